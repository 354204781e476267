"""Tables in memory (pandas, polars, Arrow, ...), column by column, through narwhals, which knows them all.

A column becomes numbers, with NaN where a value is missing, or text, with None there, whatever type its library gave
it: nullable integers, booleans, categories, decimals, Python objects.
"""

from __future__ import annotations

import decimal
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.errors import InvalidTypeError, InvalidValueError, NonFiniteError, optional_package, shown

Array = npt.NDArray[Any]
Values = Array | list[str | None]

# The classes of pandas.NA and pandas.NaT, which equal nothing, not even themselves.
_MISSING_TYPES = ("NAType", "NaTType")


def table_columns(values: Any) -> list[Any] | None:
    """Return what a table (a DataFrame of any library) calls its columns; None for what is no table."""
    for attribute in ("column_names", "columns"):  # Arrow has the names in the first, and arrays in the second
        try:
            return list(getattr(values, attribute))
        except Exception:  # whatever an object's own attribute of that name is, or raises
            continue
    return None


def known_frame(argument: str, values: Any) -> Any:
    """Return narwhals' view of a table, or None if it is of no library that narwhals knows.

    Raises
    ------
    InvalidTypeError
        Its rows are not there yet, as those of polars' LazyFrame.
    InvalidValueError
        Two columns have one name.
    MissingDependencyError
    """
    with optional_package("narwhals", extra="data", purpose="reading a DataFrame with such columns"):
        import narwhals
    try:
        frame = narwhals.from_native(values, pass_through=True)
        if isinstance(frame, narwhals.LazyFrame):
            raise InvalidTypeError(
                f"{argument}: got a {type(values).__name__}. Expected its rows: {argument}.collect()."
            )
        if not isinstance(frame, narwhals.DataFrame):
            return None
        names = frame.columns
    except narwhals.exceptions.DuplicateError as error:
        raise InvalidValueError(f"{argument}: {' '.join(str(error).split())}. Expected different names.") from None
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidValueError(f"{argument}: the column name {twice!r} occurs twice. Expected different names.")
    return frame


def in_order(argument: str, values: Any, names: Sequence[str]) -> Any:
    """Return the columns of a table in the order of ``names``: an array, or a table if they have no one type."""
    array = np.asarray(values)
    if array.dtype == object and (frame := known_frame(argument, values)) is not None:
        return frame.select(list(names)).to_native()
    places = {name: place for place, name in enumerate(table_columns(values) or ())}
    return array[:, [places[name] for name in names]]


def frame_numbers(argument: str, values: Any) -> Array | None:
    """Return a table of numbers, whatever the types of its columns, float64 (n, d); None if narwhals does not know it.

    Raises
    ------
    InvalidTypeError
        A column does not hold numbers.
    NonFiniteError
        A value is missing.
    """
    frame = known_frame(argument, values)
    if frame is None or not frame.columns:
        return None
    array = np.empty(frame.shape)
    for place, name in enumerate(frame.columns):
        column = column_values(argument, name, frame.get_column(name))
        if isinstance(column, list):
            row = next((row for row, text in enumerate(column) if text is not None), 0)
            raise InvalidTypeError(
                f"{argument}: {column[row]!r} in row {row}, column {name!r} is text. Expected numbers; scikit-learn's "
                "ColumnTransformer makes such of text."
            )
        array[:, place] = column
        missing = np.isnan(column)
        if missing.any():
            row = int(np.argmax(missing))
            raise NonFiniteError(
                f"{argument}: the value in row {row}, column {name!r} is missing. Expected finite numbers.", row
            )
    return array


def column_values(argument: str, name: Any, series: Any, as_text: bool = False, hint: str = "") -> Values:
    """Return a column of narwhals' as float64 numbers, NaN where missing, or as text, None where missing.

    Parameters
    ----------
    argument : str
        What messages call the table.
    name : str
    series : narwhals.Series
    as_text : bool
        Return numbers as text too: ``1``, not ``1.0``, of an integer.
    hint : str
        What a message says at its end.

    Raises
    ------
    InvalidTypeError
        Neither numbers nor text: dates, lists, bytes, ...
    """
    import narwhals

    kind = series.dtype
    is_number = kind.is_numeric() or kind == narwhals.Boolean
    if is_number and not as_text:
        return np.array(series.cast(narwhals.Float64).to_numpy(), dtype=np.float64)
    if kind == narwhals.Categorical or kind == narwhals.Enum:
        series, kind = series.cast(narwhals.String), narwhals.String()
    if is_number or kind in (narwhals.String, narwhals.Object, narwhals.Unknown):
        return object_values(argument, name, series.to_list(), as_text)
    raise InvalidTypeError(f"{argument}, column {name!r}: holds {kind}. Expected numbers or text{hint}.")


def object_values(argument: str, name: Any, values: Sequence[Any], as_text: bool = False) -> Values:
    """Return a column of Python's objects as :func:`column_values` does.

    Raises
    ------
    InvalidTypeError
    """
    present = [None if _is_missing(value) else value for value in values]
    for row, value in enumerate(present):
        if value is not None and not isinstance(value, (str, numbers.Real, decimal.Decimal, np.bool_)):
            raise InvalidTypeError(
                f"{argument}, row {row}, column {name!r}: {shown(value)} is a {type(value).__name__}. "
                "Expected numbers or text."
            )
    if as_text or any(isinstance(value, str) for value in present):
        return [None if value is None else str(value) for value in present]
    return np.array([_float(value) for value in present])


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in _MISSING_TYPES:
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def _float(value: Any) -> float:
    try:
        return np.nan if value is None else float(value)
    except OverflowError:  # an integer of more than 1,024 bits
        return np.inf if value > 0 else -np.inf
