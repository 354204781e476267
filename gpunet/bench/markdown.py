"""Markdown as GitHub reads it, with columns that are also aligned in a terminal; and numbers of three digits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpunet.bench.rows import Spread

NOTHING = "-"
# A spread within so much of its median on both sides is left out of a cell.
_NARROW = 0.05


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return a table; the first ``left`` columns are aligned to the left, the others to the right."""
    cells = [[_escaped(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(3, *(len(row[place]) for row in cells)) for place in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if place < left else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])


def significant(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits and no exponent: ``"0.0512"``, ``"15,300"``."""
    rounded = float(f"{value:.{digits - 1}e}")
    if rounded == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(decimals, 0)}f}"


def milliseconds(value: float | None) -> str:
    """Return a time with its unit."""
    return NOTHING if value is None else f"{significant(value)} ms"


def seconds(value: float | None) -> str:
    """Return a time with its unit."""
    return NOTHING if value is None else f"{significant(value)} s"


def times(value: float) -> str:
    """Return a ratio: ``"0.97x"``, ``"12.4x"``."""
    return f"{_ratio(value)}x"


def times_with_spread(ratio: Spread) -> str:
    """Return a ratio, and its 10th and 90th percentile where they lie apart: ``"1.51x, 1.38-1.62"``."""
    shown = times(ratio.median)
    if ratio.median * (1 - _NARROW) <= ratio.p10 and ratio.p90 <= ratio.median * (1 + _NARROW):
        return shown
    return f"{shown}, {_ratio(ratio.p10)}-{_ratio(ratio.p90)}"


def percent(value: float | None, *, cached: bool = False) -> str:
    """Return a share of the floor; one above 100 says that it is the cache's doing."""
    if value is None:
        return NOTHING
    return f"{value:.0f} %" + (" (cache)" if cached and value > 100 else "")


def megabytes(value: int | None) -> str:
    """Return bytes as MB of a million."""
    return NOTHING if value is None else f"{significant(value / 1e6)} MB"


def plural(count: int, noun: str) -> str:
    """Return ``"1 case"``, ``"2 cases"``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if 0.0995 <= value < 9.995 else significant(value)


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")
