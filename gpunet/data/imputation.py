"""Values that are missing: filled in, with an input for each column that tells where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.data.options import check_missing
from gpunet.errors import InvalidValueError, optional_package
from gpunet.validation import check_number

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Imputation:
    """What stands in for missing numbers, and which columns have an indicator.

    A missing text stays missing: it is none of its column's categories.

    Attributes
    ----------
    strategy : str
        ``"mean"``, ``"median"`` or ``"most_frequent"``, of the training rows.
    fill : dict of str to float
        By column of numbers.
    indicated : list of str
        The columns in which training rows lacked values. Of each, an input is 1 where the value is missing, and else 0.
    """

    strategy: str
    fill: dict[str, float]
    indicated: list[str]

    @classmethod
    def learn(cls, strategy: str, values: Array, names: Sequence[str], text: Sequence[str]) -> Imputation:
        """Learn from training rows, by scikit-learn's ``SimpleImputer``.

        Parameters
        ----------
        strategy : str
        values : ndarray of float64, (n, d)
            The training rows.
        names : sequence of str
            The columns' names.
        text : sequence of str
            Those of the columns that hold categories.

        Raises
        ------
        InvalidValueError
            No training row has a value in a column.
        """
        with optional_package("scikit-learn", extra="cli", purpose="filling in missing values", module="sklearn"):
            from sklearn.impute import SimpleImputer
        missing: Array = np.isnan(values)
        for name, lacks in zip(names, missing.T, strict=True):
            if lacks.all():
                raise InvalidValueError(
                    f'column {name!r}: no training row has a value. Expected at least one; drop="{name}" leaves it out.'
                )
        columns = [place for place, name in enumerate(names) if name not in text]
        fill: dict[str, float] = {}
        if columns:
            imputer = SimpleImputer(strategy=strategy).fit(values[:, columns])
            fill = {names[place]: value for place, value in zip(columns, imputer.statistics_.tolist(), strict=True)}
        indicated = [name for name, lacks in zip(names, missing.T, strict=True) if lacks.any()]
        return cls(strategy, fill, indicated)

    @classmethod
    def from_metadata(cls, content: Mapping[str, Any], names: Sequence[str], text: Sequence[str]) -> Imputation:
        """Return the imputation that :func:`dataclasses.asdict` turned into what JSON can hold.

        Raises
        ------
        KeyError, TypeError, ValueError
            It does not fit the columns.
        """
        fill = {name: check_number("fill", value, minimum=-math.inf) for name, value in content["fill"].items()}
        indicated = list(content["indicated"])
        if set(fill) != set(names) - set(text) or not set(indicated) <= set(names):
            raise ValueError("its imputation is of other columns")
        check_missing(content["strategy"])
        return cls(content["strategy"], fill, indicated)

    def apply(self, values: Array, names: Sequence[str]) -> Array:
        """Return the columns without missing numbers, and the indicators behind them, (n, d + k)."""
        missing = np.isnan(values)
        fill = np.array([self.fill.get(name, np.nan) for name in names])
        places = {name: place for place, name in enumerate(names)}
        indicators = missing[:, [places[name] for name in self.indicated]]
        return np.concatenate([np.where(missing, fill, values), indicators], axis=1)
