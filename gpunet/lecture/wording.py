"""Numbers and lists as the paragraphs write them, and as JSON takes them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt


def listing(parts: Iterable[object]) -> str:
    """Return ``"a, b and c"``."""
    words = [str(part) for part in parts]
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def tiny(value: float) -> str:
    """Return a difference to one digit, ``"3e-16"``, or ``"0"``."""
    return f"{value:.0e}" if value else "0"


def rounded(values: npt.ArrayLike, digits: int = 4) -> Any:
    """Return an array as nested lists of floats of so many significant digits, for JSON that stays short."""
    if isinstance(values, (list, np.ndarray)) and np.ndim(values) > 0:
        return [rounded(part, digits) for part in values]
    return float(f"{float(values):.{digits}g}")  # type: ignore[arg-type]


def none_where_not_finite(values: Iterable[float]) -> list[float | None]:
    """Return the numbers with None for infinity and NaN, which JSON does not have."""
    return [float(value) if math.isfinite(value) else None for value in values]
