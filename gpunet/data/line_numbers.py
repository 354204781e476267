"""Which line of a CSV file holds a row: looked up only when a message has to name it."""

from __future__ import annotations

import csv
from pathlib import Path


def line_number(path: Path, row: int) -> int:
    """Return the line, from 1, on which row ``row`` (from 0, header not counted) ends.

    Blank lines and line breaks within quotes make it differ from ``row + 2``.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        seen = -1  # the header is row -1
        for fields in reader:
            if is_blank(fields):
                continue
            if seen == row:
                return reader.line_num
            seen += 1
    return row + 2


def is_blank(fields: list[str]) -> bool:
    """Whether a record is a blank line, which pandas skips too."""
    return len(fields) < 2 and not "".join(fields).strip()
