"""Scaling of features and targets: (x - offset) / scale, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.errors import FileFormatError, NonFiniteError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Scaling:
    """What is subtracted from each column, and what the difference is divided by.

    Parameters
    ----------
    offset, scale : list of float
        One number per column.
    """

    offset: list[float]
    scale: list[float]

    @classmethod
    def standardising(cls, values: Array, names: list[str], are_flags: Sequence[bool] | None = None) -> Scaling:
        """Return the scaling that gives each column mean 0 and standard deviation 1; constant columns keep scale 1.

        Parameters
        ----------
        values : ndarray, (n, d)
            The rows to learn from: of a training set, the training part only.
        names : list of str
            The columns' names, for the error message.
        are_flags : sequence of bool, or None
            Which columns are 0 or 1 and stay so; None for none.

        Raises
        ------
        NonFiniteError
            A column's numbers are too large to be averaged.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            mean, deviation = values.mean(axis=0), values.std(axis=0)
        # Rounding gives a constant column such as 0.1 a tiny deviation, so constant is what the extremes say.
        deviation = np.where(values.min(axis=0) == values.max(axis=0), 1.0, deviation)
        unusable = ~(np.isfinite(mean) & np.isfinite(deviation)) | (deviation == 0)
        if unusable.any():
            column = int(np.argmax(unusable))
            raise NonFiniteError(
                f"column {names[column]!r}: its numbers, from {values[:, column].min():g} to "
                f"{values[:, column].max():g}, cannot be standardised in double precision."
            )
        if are_flags is not None:
            mean, deviation = np.where(are_flags, 0.0, mean), np.where(are_flags, 1.0, deviation)
        return cls(mean.tolist(), deviation.tolist())

    @classmethod
    def dividing(cls, columns: int, largest: float) -> Scaling:
        """Return the scaling that divides every column by one number."""
        return cls([0.0] * columns, [float(largest)] * columns)

    @classmethod
    def from_metadata(cls, content: Mapping[str, Any], columns: int) -> Scaling:
        """Return the scaling that ``dataclasses.asdict`` turned into what JSON can hold.

        Raises
        ------
        FileFormatError
            Not one finite offset and one finite scale, not 0, for each of ``columns`` columns.
        """
        offset = np.asarray(content["offset"], dtype=np.float64)
        scale = np.asarray(content["scale"], dtype=np.float64)
        usable = offset.shape == scale.shape == (columns,)
        if not usable or not (np.isfinite(offset).all() and np.isfinite(scale).all() and scale.all()):
            raise FileFormatError(f"scaling: expected a finite offset and scale for each of {columns} columns.")
        return cls(offset.tolist(), scale.tolist())

    def apply(self, values: Array) -> Array:
        """Return (values - offset) / scale, float64 (n, d)."""
        with np.errstate(over="ignore"):  # a network's check of its inputs names the row and the column
            scaled: Array = (values - np.array(self.offset)) / np.array(self.scale)
        return scaled

    def invert(self, values: Array) -> Array:
        """Return values * scale + offset, float64 (n, d)."""
        original: Array = values * np.array(self.scale) + np.array(self.offset)
        return original
