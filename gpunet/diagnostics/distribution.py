"""Mean, spread, range and histogram of many numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Distribution:
    """What many numbers look like together. NaN and infinity are counted, and left out of everything else.

    Attributes
    ----------
    mean, std, minimum, maximum : float
        NaN where no number is finite.
    non_finite : int
        How many are NaN or infinite.
    edges : tuple of float, bins + 1
        The histogram's bins, of one width, from the minimum to the maximum. One bin around a single value.
    counts : tuple of int, bins
    """

    mean: float
    std: float
    minimum: float
    maximum: float
    non_finite: int
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: Array, bins: int = 40) -> Distribution:
        """Return the distribution of an array's elements."""
        numbers = values.reshape(-1).astype(np.float64)
        finite = numbers[np.isfinite(numbers)]
        lost = numbers.size - finite.size
        if finite.size == 0:
            return cls(math.nan, math.nan, math.nan, math.nan, lost, (0.0, 1.0), (0,))
        low, high = float(finite.min()), float(finite.max())
        # Bins that are no wider than the gaps between floating point numbers have no edges.
        if high - low <= 4 * bins * np.spacing(max(abs(low), abs(high))):
            around = max(abs(low) / 2, 1e-12)
            counts, edges = np.array([finite.size]), np.array([low - around, high + around])
        else:
            counts, edges = np.histogram(finite, bins, (low, high))
        return cls(
            float(finite.mean()),
            float(finite.std()),
            low,
            high,
            lost,
            tuple(edges.tolist()),
            tuple(counts.tolist()),
        )

    @property
    def root_mean_square(self) -> float:
        """sqrt(mean of the squares)."""
        return math.hypot(self.mean, self.std)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; NaN becomes null."""
        numbers = {name: _or_none(getattr(self, name)) for name in ("mean", "std", "minimum", "maximum")}
        return numbers | {"non_finite": self.non_finite, "edges": list(self.edges), "counts": list(self.counts)}


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
