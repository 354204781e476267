"""The names of a data frame's columns, by scikit-learn's rule: those of ``fit``, in the same order."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.columns import table_columns
from gpunet.errors import InvalidTypeError, InvalidValueError

Array = npt.NDArray[Any]

_NAMES_SHOWN = 5


def column_names(argument: str, values: object) -> Array | None:
    """Return the names of a data frame's columns, object (d,); None where it has none, or none that are text.

    Raises
    ------
    InvalidTypeError
        Some names are text and some are not.
    """
    names = table_columns(values)
    are_text = [isinstance(name, str) for name in names or ()]
    if names is None or not any(are_text):
        return None
    if not all(are_text):
        odd = names[are_text.index(False)]
        raise InvalidTypeError(
            f"{argument}: got {odd!r} for a column's name beside names that are text. Expected all of them to be text, "
            f"or none: {argument}.columns = {argument}.columns.astype(str) makes them."
        )
    return np.array(names, dtype=object)


def check_same_names(argument: str, names: Array | None, fitted: Array | None, estimator: str) -> None:
    """Compare the names of columns with those of ``fit``; warn (UserWarning) where only one of the two is known.

    Raises
    ------
    InvalidValueError
        They differ, or their order does; the message says in what.
    """
    if names is None and fitted is None:
        return
    if names is None or fitted is None:
        known, other = ("has", "without") if fitted is None else ("has no", "with")
        warnings.warn(
            f"{argument}: {known} names for its columns, but this {estimator} was fitted {other} such names: they "
            "go by their order.",
            stacklevel=4,
        )
        return
    if np.array_equal(names, fitted):
        return
    unseen = [name for name in names if name not in set(fitted)]
    missing = [name for name in fitted if name not in set(names)]
    if unseen or missing:
        differences = [f"{what} {_shown(some)}" for what, some in (("unknown", unseen), ("missing", missing)) if some]
        raise InvalidValueError(f"{argument}: columns that differ from those of fit: {'; '.join(differences)}.")
    hint = f" Use {argument}[model.feature_names_in_]." if len(set(names)) == len(names) == len(fitted) else ""
    raise InvalidValueError(
        f"{argument}: got the columns {_shown(list(names))}. Expected those of fit in their order, "
        f"{_shown(list(fitted))}.{hint}"
    )


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(map(repr, names[:_NAMES_SHOWN])) + more
