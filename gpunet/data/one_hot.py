"""Columns of text as inputs: one per category, 1 where the row has it and else 0."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.data.datasets import RawData
from gpunet.errors import UnknownCategoryWarning

Array = npt.NDArray[Any]

_MOST_SHOWN = 3


@dataclass(frozen=True)
class OneHot:
    """The categories of each column of text.

    A value that is none of them, or missing, is 0 in all of the column's inputs.

    Attributes
    ----------
    categories : dict of str to list of str
        By column, sorted.
    """

    categories: dict[str, list[str]]

    @classmethod
    def learn(cls, values: Array, names: Sequence[str], categories: Mapping[str, Sequence[str]]) -> OneHot:
        """Learn from training rows.

        Parameters
        ----------
        values : ndarray of float64, (n, d)
            The training rows: of text, the places of its values among ``categories``.
        names : sequence of str
            The columns' names.
        categories : mapping of str to sequence of str
            Of the whole data set.
        """
        learned = {}
        for name, known in categories.items():
            places = values[:, names.index(name)]
            learned[name] = [known[int(place)] for place in np.unique(places[~np.isnan(places)])]
        return cls(learned)

    @classmethod
    def from_metadata(cls, content: Mapping[str, Any], names: Sequence[str]) -> OneHot:
        """Return what :func:`dataclasses.asdict` turned into what JSON can hold.

        Raises
        ------
        KeyError, TypeError, ValueError
            It does not fit the columns.
        """
        categories = content["categories"]
        if not set(categories) <= set(names):
            raise ValueError("its categories are of other columns")
        for known in categories.values():
            if not isinstance(known, list) or not known or not all(isinstance(name, str) for name in known):
                raise TypeError("expected lists of categories")
            if len(set(known)) < len(known):
                raise ValueError("a category occurs twice")
        return cls(dict(categories))

    def apply(self, values: Array, names: Sequence[str], categories: Mapping[str, Sequence[str]]) -> Array:
        """Return the columns, those of text replaced by one per category; what stands behind the columns stays.

        Parameters
        ----------
        values : ndarray of float64, (n, d + k)
        names : sequence of str
            Of the first d.
        categories : mapping of str to sequence of str
            What the places in columns of text stand for, in these data.
        """
        pieces = []
        for place, name in enumerate(names):
            column = values[:, [place]]
            if name in self.categories:
                given = categories[name]
                wanted = [given.index(category) if category in given else -1 for category in self.categories[name]]
                column = (column == np.array(wanted)).astype(np.float64)
            pieces.append(column)
        return np.concatenate([*pieces, values[:, len(names) :]], axis=1)

    def warn_of_unknown(self, raw: RawData) -> None:
        """Warn, once, of texts that are none of the categories."""
        found = list(self._unknown(raw))
        if found:
            more = f"; and {len(found) - _MOST_SHOWN} more texts" if len(found) > _MOST_SHOWN else ""
            warnings.warn(
                f"{'; '.join(found[:_MOST_SHOWN])}{more}: no training row had such, so none of its column's inputs "
                "is set.",
                UnknownCategoryWarning,
                stacklevel=4,
            )

    def _unknown(self, raw: RawData) -> Iterator[str]:
        for name, known in self.categories.items():
            places = raw.features[:, raw.feature_names.index(name)]
            for place, category in enumerate(raw.categories[name]):
                if category not in set(known):
                    rows = np.flatnonzero(places == place)
                    where = raw.row_place(int(rows[0]))
                    count = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
                    yield f"{raw.feature_place(raw.feature_names.index(name))}: {category!r} in {where}{count}"
