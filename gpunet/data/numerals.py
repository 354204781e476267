"""Which text is a number: one answer for features, targets and the names of classes.

A number is written with the digits 0 to 9, with or without sign, point and exponent, or is ``inf``; blanks of any kind
around it do not count. So ``1_000``, digits of other scripts, hexadecimals and a blank between digits are text, and an
integer of more than 64 bits is a number, which a float rounds. Python and pandas each read other text than the other
as numbers, so neither is asked.
"""

from __future__ import annotations

import contextlib
import math
import re

_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?)", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
# Where numbers belong; as the name of a class, "NA" or "None" is text like any other.
MISSING = ("", "?", "#N/A", "N/A", "NA", "n/a", "NULL", "null", "None", "NaN", "nan", "-NaN", "-nan", "<NA>")
_MISSING = frozenset(text.lower() for text in MISSING)


def is_number(text: str) -> bool:
    """Whether a text, without blanks around it, is a number."""
    return _NUMBER.fullmatch(text) is not None


def is_integer(text: str) -> bool:
    """Whether a text, without blanks around it, is an integer."""
    return _INTEGER.fullmatch(text) is not None


def with_point(text: str, decimal: str) -> str | None:
    """Return a text with its decimal sign made a point; None if it has a point, which is no decimal sign then."""
    if decimal == ".":
        return text
    return None if "." in text else text.replace(decimal, ".")


def is_missing(text: str) -> bool:
    """Whether a text, without blanks around it, stands for a number that is missing, in capitals or not."""
    return text.lower() in _MISSING


def own_number(text: str) -> int | float | None:
    """Return the finite number that Python writes as this very text: ``10``, ``-1``, ``1.5``; not ``01`` or ``1e2``."""
    with contextlib.suppress(ValueError):  # no integer, or one of thousands of digits
        integer = int(text)
        if str(integer) == text:
            return integer
    with contextlib.suppress(ValueError):
        number = float(text)
        if math.isfinite(number) and str(number) == text:
            return number
    return None
