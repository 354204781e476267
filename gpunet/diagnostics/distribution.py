"""Mean, spread, range and histogram of many numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.validation import check_integer


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
    def of(cls, values: npt.ArrayLike, bins: int = 40) -> Distribution:
        """Return the distribution of an array's elements.

        Parameters
        ----------
        values : array_like of numbers
        bins : int
            At least 1.
        """
        bins = check_integer("bins", bins, 1)
        numbers = np.asarray(values).reshape(-1).astype(np.float64)
        finite = numbers[np.isfinite(numbers)]
        lost = numbers.size - finite.size
        if finite.size == 0:
            return cls(math.nan, math.nan, math.nan, math.nan, lost, (0.0, 1.0), (0,))
        low, high = float(finite.min()), float(finite.max())
        largest = max(abs(low), abs(high))
        # Squares of what is left neither overflow nor fade.
        scale = 1.0 if largest == 0 or 1e-150 < largest < 1e150 else largest
        finite = finite / scale
        # Bins that are no wider than the gaps between floating point numbers have no edges.
        if high / scale - low / scale <= 4 * bins * np.spacing(largest) / scale:
            around = max(abs(low) / 2, 1e-12)
            counts, edges = np.array([finite.size]), np.array([low - around, high + around])
        else:
            counts, edges = np.histogram(finite, bins, (low / scale, high / scale))
            edges = edges * scale
        return cls(
            float(finite.mean()) * scale,
            float(finite.std()) * scale,
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
        numbers = {name: or_none(getattr(self, name)) for name in ("mean", "std", "minimum", "maximum")}
        return numbers | {"non_finite": self.non_finite, "edges": list(self.edges), "counts": list(self.counts)}


def or_none(value: float | None) -> float | None:
    """Return a number that JSON can hold, None for the others."""
    return value if value is not None and math.isfinite(value) else None
