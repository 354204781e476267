"""Generated tables in Markdown files, between markers, so that no number is ever typed.

::

    <!-- gpunet bench report: summary -->
    ... replaced by the section of that name ...
    <!-- end -->

A marker stands alone on its line; those inside a fenced block of code are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpunet.errors import FileFormatError, MissingFileError
from gpunet.files import write_text

from .results import Results
from .sections import section

_START = r"^[ \t]*<!--[ \t]*gpunet bench report:[ \t]*(?P<name>.*?)[ \t]*-->[ \t]*\n"
_END = r"^[ \t]*<!--[ \t]*end[ \t]*-->[ \t]*$"
# A fenced block, or a section: its first marker, and up to its last one if that comes before another section begins.
_FENCE = r"^[ \t]*(?P<fence>`{3,}|~{3,}).*?(?:^[ \t]*(?P=fence)|\Z)"
_NO_START = rf"(?!{_START.replace('(?P<name>', '(?:')})"
_SECTION = rf"(?P<start>{_START})(?:(?P<content>(?:{_NO_START}.)*?)(?P<end>{_END}))?"
_PLACES = re.compile(f"{_FENCE}|{_SECTION}", re.MULTILINE | re.DOTALL)


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
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise MissingFileError(f"{path}: there is no such file.") from None
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: is no Markdown file in UTF-8: {error}.") from None
    newline = "\r\n" if text.count("\r\n") > text.count("\n") / 2 else "\n"
    plain = text.replace("\r\n", "\n")
    sections: list[str] = []
    outdated: list[str] = []

    def replacement(match: re.Match[str]) -> str:
        if match["start"] is None:
            return match[0]
        name, line = match["name"], plain.count("\n", 0, match.start()) + 1
        if match["end"] is None:
            raise FileFormatError(f"{path}: line {line}: the section {name!r} has no <!-- end --> below it.")
        wanted = f"\n{section(name, files, argument=f'{path}: line {line}: section')}\n\n"
        sections.append(name)
        if match["content"] != wanted:
            outdated.append(name)
        return f"{match['start']}{wanted}{match['end']}"

    updated = _PLACES.sub(replacement, plain)
    if not sections:
        raise FileFormatError(
            f"{path}: has no marker. Expected a line such as <!-- gpunet bench report: summary -->, and below it "
            "one with <!-- end -->."
        )
    return Document(path, text, updated.replace("\n", newline), sections, outdated)
