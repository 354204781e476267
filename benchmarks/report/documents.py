"""Generated tables in Markdown files, between markers on lines of their own, so that no number is ever typed.

::

    <!-- gpunet bench report: summary -->
    ... replaced by the section of that name ...
    <!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpunet.errors import FileFormatError, MissingFileError
from gpunet.files import write_text

from .results import Results
from .sections import OVERALL, section

_START, _END = re.compile(r"^<!-- gpunet bench report: (.*) -->\n", re.MULTILINE), "<!-- end -->"


@dataclass(frozen=True)
class Document:
    """A Markdown file as it is and as it should be, the sections that it has, and those of them that are outdated."""

    path: Path
    text: str
    updated: str
    sections: list[str]
    outdated: list[str]

    def save(self) -> None:
        """Write what it should be, at once or not at all, unless it is that already."""
        if self.text != self.updated:
            write_text(self.path, self.updated)


def read_document(path: Path, files: Sequence[Results]) -> Document:
    """Return a Markdown file with its sections as the results say; nothing is written yet.

    Sections on one machine show the newest results of a CPU, and of a GPU; those on all machines have them all.

    Raises
    ------
    MissingFileError
        There is no such file.
    FileFormatError
        It is no text, asks for no section, or a section has no end.
    InvalidValueError
        It asks for a section that does not exist; the message has the nearest.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingFileError(f"{path}: there is no such file.") from None
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: is no Markdown file in UTF-8: {error}.") from None
    starts = list(_START.finditer(text))
    if not starts:
        raise FileFormatError(
            f"{path}: has no marker. Expected a line such as <!-- gpunet bench report: summary -->, and below it "
            f"one with {_END}."
        )
    shown = _newest(files)
    stops = [*(start.start() for start in starts[1:]), len(text)]
    sections, outdated, updated = [start[1] for start in starts], [], text[: starts[0].start()]
    for start, stop in zip(starts, stops, strict=True):
        name, line = start[1], text.count("\n", 0, start.start()) + 1
        content, end, after = text[start.end() : stop].partition(_END)
        if not end:
            raise FileFormatError(f"{path}: line {line}: the section {name!r} has no {_END} below it.")
        wanted = f"\n{section(name, files if name in OVERALL else shown, argument=f'{path}: line {line}: section')}\n\n"
        if content != wanted:
            outdated.append(name)
        updated += f"{start[0]}{wanted}{end}{after}"
    return Document(path, text, updated, sections, outdated)


def _newest(files: Sequence[Results]) -> list[Results]:
    """Return the newest results without and with a GPU."""
    newest = {bool(results.machine.get("gpu")): results for results in sorted(files, key=lambda one: one.date)}
    return list(newest.values())
