"""A table as a text file: how it is opened, and on which line a row stands, looked up when a message has to name it."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

# What reading a .gz file raises where it is damaged or ends too early.
DAMAGED_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
WHITESPACE = "whitespace"


class Record(NamedTuple):
    """A row of a text file as it is written.

    Attributes
    ----------
    line : int
        On which it ends, from 1.
    fields : list of str
    """

    line: int
    fields: list[str]


@dataclass(frozen=True)
class TextFile:
    """A table in a text file, compressed by gzip where its name ends in ``.gz``.

    Attributes
    ----------
    path : Path
    separator : str
        One character, or ``"whitespace"`` for any number of spaces and tabs.
    encoding : str
    has_header : bool
        Whether the first record holds the names of the columns.
    """

    path: Path
    separator: str = ","
    encoding: str = "utf-8-sig"
    has_header: bool = True

    def open(self) -> TextIO:
        """Open the file, for a reader that knows line breaks itself."""
        if self.path.suffix.lower() != ".gz":
            return self.path.open(encoding=self.encoding, newline="")
        return io.TextIOWrapper(gzip.open(self.path), encoding=self.encoding, newline="")

    def records(self) -> Iterator[Record]:
        """Yield the records, the header too, without blank lines.

        Blank is what pandas takes for it: no more than spaces and tabs that separate nothing. ``""`` is a record.

        Raises
        ------
        csv.Error, UnicodeDecodeError, OSError, EOFError, zlib.error
        """
        blanks = " \t\r\n".replace(self.separator, "")
        line = ""

        def kept(text: str) -> str:
            nonlocal line
            line = text
            return re.sub("[ \t]+", " ", text.strip(" \t\r\n")) if self.separator == WHITESPACE else text

        delimiter = " " if self.separator == WHITESPACE else self.separator
        with self.open() as file:
            reader = csv.reader(map(kept, file), delimiter=delimiter, skipinitialspace=True)
            for fields in reader:
                if line.strip(blanks):
                    yield Record(reader.line_num, fields)

    def find_record(self, row: int) -> Record | None:
        """Return row ``row`` (from 0, header not counted), or None where it cannot be found."""
        for number, record in enumerate(self._known_records(), start=-1 if self.has_header else 0):
            if number == row:
                return record
        return None

    def line_number(self, row: int) -> int:
        """Return the line, from 1, on which row ``row`` (from 0, header not counted) ends.

        Blank lines and line breaks within quotes make it differ from the row's number.
        """
        record = self.find_record(row)
        return row + 1 + self.has_header if record is None else record.line

    def first_ragged_record(self, columns: int) -> Record | None:
        """Return the first row with more or fewer values than ``columns``, or None."""
        return next((record for record in self._known_records() if len(record.fields) != columns), None)

    def _known_records(self) -> Iterator[Record]:
        # pandas reads fields that are longer than the module csv allows; a message then does without the line.
        with contextlib.suppress(csv.Error, UnicodeDecodeError, *DAMAGED_GZIP):
            yield from self.records()
