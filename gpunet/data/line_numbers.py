"""Which line of a CSV file holds a row, and how many values: looked up only when a message has to name it."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO


class Record(NamedTuple):
    """A row of a CSV file as it is written.

    Attributes
    ----------
    line : int
        On which it ends, from 1.
    values : int
        How many fields it has.
    """

    line: int
    values: int


def line_number(path: Path, row: int) -> int:
    """Return the line, from 1, on which row ``row`` (from 0, header not counted) ends.

    Blank lines and line breaks within quotes make it differ from ``row + 2``.
    """
    record = find_record(path, row)
    return row + 2 if record is None else record.line


def find_record(path: Path, row: int) -> Record | None:
    """Return row ``row`` (from 0, header not counted), or None where it cannot be found."""
    for number, record in enumerate(_records(path), start=-1):  # the header is row -1
        if number == row:
            return record
    return None


def first_longer_record(path: Path, columns: int) -> Record | None:
    """Return the first row with more than ``columns`` values, or None."""
    return next((record for record in _records(path) if record.values > columns), None)


def read_records(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each record of an open CSV file ends, from 1, and its fields, without blank lines.

    Blank is what pandas takes for it: no more than spaces and tabs. ``""`` is a record.

    Raises
    ------
    csv.Error, UnicodeDecodeError
    """
    line = ""

    def kept(text: str) -> str:
        nonlocal line
        line = text
        return text

    reader = csv.reader(map(kept, file), skipinitialspace=True)
    for fields in reader:
        if line.strip(" \t\r\n"):
            yield reader.line_num, fields


def _records(path: Path) -> Iterator[Record]:
    # pandas reads fields that are longer than the module csv allows; a message then does without the line.
    with path.open(encoding="utf-8-sig", newline="") as file, contextlib.suppress(csv.Error):
        for line, fields in read_records(file):
            yield Record(line, len(fields))
