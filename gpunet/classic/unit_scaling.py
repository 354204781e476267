"""Numbers of any size as numbers from 0 to 1, and back: for units that know nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.classic.inputs import check_moderate
from gpunet.errors import InvalidValueError

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class UnitScaling:
    """A linear map of each column's range onto [0, 1]; what lies outside the range becomes 0 or 1.

    It is what scikit-learn's ``MinMaxScaler(clip=True)`` does.

    Attributes
    ----------
    smallest, largest : ndarray of float64, (d,)
        A column whose numbers are all the same becomes 0.
    """

    smallest: Array
    largest: Array

    def scaled(self, values: Array) -> Array:
        """Return numbers from 0 to 1 for the rows of ``values``, (n, d), in their dtype."""
        span = self.largest - self.smallest
        units = (np.clip(values, self.smallest, self.largest) - self.smallest) / np.where(span > 0, span, 1.0)
        return units.astype(values.dtype, copy=False)

    def restored(self, units: Array) -> Array:
        """Return the numbers that the rows of ``units``, (n, d), stand for, in their dtype."""
        return (self.smallest + units * (self.largest - self.smallest)).astype(units.dtype, copy=False)


def learn_scaling(argument: str, values: Array, *, scales: bool) -> UnitScaling | None:
    """Return how to map the columns of ``values``, (n, d), to [0, 1]; None where all of them are there already.

    Raises
    ------
    InvalidValueError
        They are not, and ``scales`` is false; or a number is too large.
    """
    if not scales or _are_units(values):
        check_units(argument, values)
        return None
    check_moderate(argument, values)
    return UnitScaling(values.min(axis=0).astype(np.float64), values.max(axis=0).astype(np.float64))


def as_units(argument: str, values: Array, scaling: UnitScaling | None) -> Array:
    """Return ``values``, (n, d), as numbers from 0 to 1; without a scaling they have to be that, or it raises."""
    if scaling is not None:
        return scaling.scaled(values)
    check_units(argument, values)
    return values


def check_units(argument: str, values: Array) -> None:
    """Raise InvalidValueError where a number is below 0 or above 1; the message has the row and the column."""
    if not _are_units(values):
        row, column = np.argwhere((values < 0) | (values > 1))[0]
        raise InvalidValueError(
            f"{argument}: {values[row, column]} in row {row}, column {column} is out of range. Expected numbers from 0 "
            "to 1, such as scikit-learn's MinMaxScaler(clip=True) makes."
        )


def _are_units(values: Array) -> bool:
    return bool(values.min() >= 0 and values.max() <= 1)
