"""Readers of single arguments, for ``type=``: whatever is wrong is refused before any work."""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable
from pathlib import Path

LARGEST_WIDTH = 1_000_000


def whole_number(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return a reader of integers in a range, for ``type=``."""
    expected = f"an integer of at least {minimum}" if maximum is None else f"an integer from {minimum} to {maximum}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}") from None
        if value < minimum or (maximum is not None and value > maximum):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return read


def number(minimum: float, *, above: bool = False, below: float = math.inf) -> Callable[[str], float]:
    """Return a reader of finite numbers of at least (or above) a minimum and below a maximum, for ``type=``."""
    expected = f"a finite number {'above' if above else 'of at least'} {minimum:g}"
    if below < math.inf:
        expected += f" and below {below:g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}") from None
        # A comparison with NaN is False, so NaN fails the first one.
        if not minimum <= value < below or (above and value == minimum):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return read


def widths(text: str) -> list[int]:
    """Read ``--layers``: ``"128,64"``."""
    read = whole_number(1, LARGEST_WIDTH)
    try:
        return [read(part) for part in text.split(",")]
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}. Expected hidden widths such as 128,64") from None


def names(text: str) -> list[str]:
    """Read a list such as ``"80,90"``; a name with a comma in it is quoted: ``'"b, c",d'``."""
    return [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]


def folder(text: str) -> Path:
    """Read the name of a folder that exists or can be made."""
    path = _named(text, "folder")
    if path.is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is a file, expected a folder")
    return path


def csv_file(text: str) -> Path:
    """Read the name of a .csv file to write."""
    path = _named(text, "file")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder, expected a file")
    if path.suffix.lower() != ".csv":
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .csv")
    return path


def _named(text: str, expected: str) -> Path:
    # Path("") is the working folder, which nobody means by an empty name (an unset variable of a script, say).
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no name, expected a {expected}")
    return Path(text)
