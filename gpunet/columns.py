"""The names of a network's inputs, and putting the columns of a DataFrame into their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpunet.errors import InvalidValueError, counted
from gpunet.frames import in_order, table_columns


def numbered_names(columns: int) -> list[str]:
    """Return what the columns of data without names are called: ``x0``, ``x1``, ..."""
    return [f"x{column}" for column in range(columns)]


def known_columns(metadata: Any, columns: int) -> list[str] | None:
    """Return the names of a network's inputs, if its metadata are of ``gpunet train`` and tell them, or None.

    Names that only stand for numbers, because an NPZ file has none, are not known; neither are those of features that
    are not the inputs.
    """
    data = metadata.get("data") if isinstance(metadata, Mapping) else None
    if not isinstance(data, Mapping) or data.get("one_hot") is not None or data.get("imputation") is not None:
        return None
    names = data.get("feature_names")
    if not isinstance(names, list) or len(names) != columns or not all(isinstance(name, str) for name in names):
        return None
    return None if data.get("target_name") is None and names == numbered_names(columns) else names


def columns_in_order(argument: str, values: Any, names: Sequence[str] | None) -> Any:
    """Return the columns of a table (a DataFrame of any library) in the order of ``names``.

    What has no names of columns, or has others than text, comes back as it is; so does everything if ``names`` is None.

    Raises
    ------
    InvalidValueError
        The table's columns are others than ``names``, or one occurs twice.
    """
    found = table_columns(values)
    if names is None or not found or not all(isinstance(name, str) for name in found) or found == list(names):
        return values
    places = {name: place for place, name in enumerate(found)}
    needed = set(names)
    problem = next((f"lacks the column {name!r}" for name in names if name not in places), None)
    problem = problem or next((f"has a column {name!r}" for name in found if name not in needed), None)
    if problem is None and len(places) < len(found):
        problem = f"has {counted(len(found), 'column')} of {counted(len(places), 'name')}"
    if problem is not None:
        raise InvalidValueError(
            f"{argument}: {problem}. Expected the columns of the network's training data, in any order; "
            f"{argument}.to_numpy() goes by their order alone."
        )
    return in_order(argument, values, names)
