"""Generated tables in Markdown files, between markers, so that no number is ever typed.

::

    <!-- gpunet bench report: summary -->
    ... replaced by the section of that name ...
    <!-- end -->

A marker stands alone on its line; those inside a fenced block of code are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpunet.bench.report import section
from gpunet.bench.results import Results
from gpunet.errors import FileFormatError, MissingFileError
from gpunet.files import write_text

_START = re.compile(r"\s*<!--\s*gpunet bench report:\s*(.*?)\s*-->\s*")
_END = re.compile(r"\s*<!--\s*end\s*-->\s*")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")


@dataclass(frozen=True)
class Place:
    """Where a document wants a section: its name, and the places of the two markers among the lines."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Document:
    """A Markdown file as it is and as it should be.

    Attributes
    ----------
    path : Path
    text, updated : str
    sections : list of str
        Those it asks for.
    outdated : list of str
        Those that do not hold what the results say.
    """

    path: Path
    text: str
    updated: str
    sections: list[str]
    outdated: list[str]

    def save(self) -> None:
        """Write what it should be, at once or not at all, unless it is that already.

        Raises
        ------
        OSError
        """
        if self.text != self.updated:
            write_text(self.path, self.updated)


def has_markers(path: Path) -> bool:
    """Return whether a Markdown file asks for generated sections.

    Raises
    ------
    GpunetError, OSError
    """
    return next(_places(path, _read(path).splitlines()), None) is not None


def read_document(path: Path, files: Sequence[Results]) -> Document:
    """Return a Markdown file with its sections as the results say; nothing is written yet.

    Raises
    ------
    MissingFileError
        There is no such file.
    FileFormatError
        It is no text, asks for no section, or a section has no end.
    InvalidValueError
        It asks for a section that does not exist; the message has the nearest.
    """
    text = _read(path)
    lines = text.splitlines(keepends=True)
    newline = "\r\n" if text.count("\r\n") > text.count("\n") / 2 else "\n"
    updated: list[str] = []
    outdated, sections, last = [], [], 0
    for place in _places(path, lines):
        content = f"\n{section(place.name, files, argument=f'{path}: line {place.start + 1}: section')}\n\n"
        wanted = content.replace("\n", newline)
        sections.append(place.name)
        if "".join(lines[place.start + 1 : place.end]) != wanted:
            outdated.append(place.name)
        updated += [*lines[last : place.start + 1], wanted]
        last = place.end
    if not sections:
        raise FileFormatError(
            f"{path}: has no marker. Expected a line such as <!-- gpunet bench report: summary -->, and below it "
            "one with <!-- end -->."
        )
    return Document(path, text, "".join([*updated, *lines[last:]]), sections, outdated)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise MissingFileError(f"{path}: there is no such file.") from None
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: is no Markdown file in UTF-8: {error}.") from None


def _places(path: Path, lines: Sequence[str]) -> Iterator[Place]:
    name, start, fence = "", -1, ""
    for place, line in enumerate(lines):
        if start < 0 and (mark := _FENCE.match(line)):
            if not fence:
                fence = mark[1]
            elif mark[1].startswith(fence):
                fence = ""
            continue
        if fence:
            continue
        if begins := _START.fullmatch(line):
            if start >= 0:
                break
            name, start = begins[1], place
        elif _END.fullmatch(line) and start >= 0:
            yield Place(name, start, place)
            start = -1
    if start >= 0:
        raise FileFormatError(f"{path}: line {start + 1}: the section {name!r} has no <!-- end --> below it.")
