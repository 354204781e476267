"""Labels of any kind, and the classes that they stand for: a network keeps them in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.errors import InvalidTypeError, InvalidValueError, ShapeError, counted, shown, warn_user
from gpunet.validation import DeviceArray, check_json, element, first, read_array

Array = npt.NDArray[Any]

CLASSES = "class_labels"
# What JSON tells apart.
_DTYPES: dict[type, type] = {str: np.str_, bool: np.bool_, int: np.int64, float: np.float64}
# NumPy's scalars, bool before int, of which Python's is one.
_SCALARS: dict[type, type] = {str: np.str_, bool: np.bool_, int: np.integer, float: np.floating}
# NumPy's kinds of dtypes.
_KINDS = "Ubiuf"
_MOST_SHOWN = 8


def known_classes(metadata: Any, count: int) -> Array | None:
    """Return the labels of a network's classes in the order of its outputs, (count,).

    None where its metadata tell none that fit, or 0 to count - 1, which need no translation.
    """
    values = metadata.get(CLASSES) if isinstance(metadata, Mapping) else None
    if not isinstance(values, (list, tuple)) or len(values) != count:
        return None
    kinds = {type(value) for value in values}
    kind = kinds.pop()
    if kinds or kind not in _DTYPES or len(set(values)) < count or (kind is int and list(values) == [*range(count)]):
        return None
    try:
        return np.array(values, _DTYPES[kind])
    except OverflowError:
        return None


def are_places(labels: Array, count: int) -> bool:
    """Say whether labels are integers from 0 to count - 1 already."""
    return labels.dtype.kind in "iu" and first((labels < 0) | (labels >= count)) is None


def learn_classes(metadata: Any, argument: str, values: Any, count: int) -> bool:
    """Write the different labels among ``values``, sorted, into ``metadata`` where a network has to be told of them.

    Labels that are 0 to count - 1, or that no network learns, stay as they are: :func:`check_labels` is for them.

    Parameters
    ----------
    metadata : dict
    argument : str
    values : array_like, (n,) or (n, 1)
        On the host.
    count : int
        Outputs of the network.

    Returns
    -------
    bool
        Whether ``metadata`` has classes now that it had not.

    Raises
    ------
    InvalidTypeError
        Labels that are missing, or of several kinds, or of none that JSON can hold; or the metadata are no dictionary.
    InvalidValueError
        More or fewer labels than outputs.
    """
    labels = read_labels(argument, values)
    if labels.ndim > 2 or labels.ndim == 0 or (labels.ndim == 2 and labels.shape[1] != 1) or not labels.size:
        return False
    if are_places(labels, count):
        return False
    if labels.dtype.kind == "f" and not (np.isfinite(labels) & (labels == np.rint(labels))).all():
        return False
    found = np.unique(labels)
    if len(found) != count:
        if labels.dtype.kind in "iu":
            return False
        raise InvalidValueError(
            f"{argument}: has {len(found)} different labels, {_listed(found)}. Expected {count}, one per output of the "
            f"network; where these rows lack some, network.metadata[{CLASSES!r}] = [...] tells all."
        )
    if known_classes({CLASSES: found.tolist()}, count) is None:
        return False
    check_json("metadata", metadata)[CLASSES] = found.tolist()
    return True


def check_labels(argument: str, values: Any, rows: int, classes: int, known: Array | None = None) -> Array:
    """Return labels as an int32 array of ``rows`` places from 0 to ``classes - 1``.

    Parameters
    ----------
    argument : str
    values : array_like, (rows,)
        Of shape (rows, 1) they are taken too, with a warning.
    rows, classes : int
    known : ndarray, (classes,), or None
        What the labels are, in the order of the places; None for integers from 0 to ``classes - 1``.

    Raises
    ------
    InvalidTypeError
        No labels of the known kind, or without known ones no integers.
    ShapeError
        Not one-dimensional, or of another length.
    InvalidValueError
        A label out of range, or none of the known ones; the message has the row.
    """
    expected = (
        f"integer labels 0 to {classes - 1}. Text, booleans and other whole numbers are learnt by a network's first "
        f"gpunet.fit(network, X, y), and told by network.metadata[{CLASSES!r}] = [...]"
    )
    if known is not None:
        expected = f"labels among {_listed(known)}"
    array = values.array if isinstance(values, DeviceArray) else read_labels(argument, values)
    if array.ndim == 2 and array.shape[1] == classes and array.shape[1] > 1:
        raise ShapeError(
            f"{argument}: got shape {array.shape}. Expected labels ({rows},), not one-hot rows: "
            f"use {argument}.argmax(axis=1), or floats for probabilities."
        )
    if array.ndim == 2 and array.shape == (rows, 1):
        warn_user(f"{argument}: got a column of labels, shape {array.shape}. {argument}.ravel() makes it ({rows},).")
        array = array.reshape(-1)
    check_one_per_row(argument, array, rows)
    if known is not None:
        return _places(argument, array, known, expected)
    if array.dtype.kind == "f":
        broken = first((array != array.round()) | (abs(array) == float("inf")))
        if broken is not None:
            raise InvalidTypeError(
                f"{argument}: got {element(array, broken)} in row {broken[0]}, of dtype {array.dtype}. "
                "Expected labels, none of them missing: integers, text or booleans."
            )
    if array.dtype.kind not in "iu":
        raise InvalidTypeError(f"{argument}: got dtype {array.dtype}. Expected {expected}.")
    wide = array.astype(np.int64, copy=False)  # of unsigned ones, what is too large for that becomes negative
    wrong = first((wide < 0) | (wide >= classes))
    if wrong is not None:
        hint = f" Labels that start at 1 need {argument} - 1." if wide.min() == 1 and wide.max() == classes else ""
        raise InvalidValueError(
            f"{argument}: label {element(array, wrong)} in row {wrong[0]} is out of range. "
            f"Expected 0 to {classes - 1}.{hint}"
        )
    return array.astype(np.int32, order="C", copy=False)


def check_one_per_row(argument: str, labels: Array, rows: int) -> None:
    """Raise ShapeError where labels are not (rows,)."""
    if labels.ndim != 1:
        raise ShapeError(f"{argument}: got shape {labels.shape}. Expected one label per row, shape ({rows},).")
    if labels.shape[0] != rows:
        raise ShapeError(
            f"{argument}: got {counted(labels.shape[0], 'label')} for {counted(rows, 'row')}. Expected one per row."
        )


def read_labels(argument: str, values: Any) -> Array:
    """Return labels as an array of text, booleans or numbers; objects become what they are.

    Raises
    ------
    InvalidTypeError
        They are of another kind, or of several.
    InvalidValueError
        An integer that 64 bits cannot hold.
    """
    array = read_array(argument, values)
    if array.dtype.kind == "T":
        return array.astype(np.str_)
    if array.dtype == object and array.size and array.ndim:
        return _converted(argument, array)
    if array.dtype.kind not in _KINDS:
        raise InvalidTypeError(f"{argument}: got dtype {array.dtype}. Expected labels: integers, text or booleans.")
    return array


def _converted(argument: str, array: Array) -> Array:
    kind = _kind(array.flat[0])
    for position, value in np.ndenumerate(array):
        if kind is None or _kind(value) is not kind:
            raise InvalidTypeError(
                f"{argument}: got {shown(value)} in row {position[0]}. Expected labels of one kind, none of them "
                "missing: integers, text or booleans."
            )
    assert kind is not None
    try:
        return array.astype(_DTYPES[kind])
    except OverflowError:
        raise InvalidValueError(f"{argument}: holds an integer that 64 bits cannot.") from None


def _kind(value: Any) -> type | None:
    """Return which of ``_DTYPES`` a label is."""
    return next((kind for kind, scalar in _SCALARS.items() if isinstance(value, (kind, scalar))), None)


def _places(argument: str, labels: Array, known: Array, expected: str) -> Array:
    """Return the place of each label among the known ones, int32."""
    if (labels.dtype.kind == "U") != (known.dtype.kind == "U"):
        raise InvalidTypeError(f"{argument}: got dtype {labels.dtype}. Expected {expected}.")
    order = np.argsort(known)
    places = order[np.searchsorted(known, labels, sorter=order).clip(max=len(known) - 1)]
    wrong = first(known[places] != labels)
    if wrong is not None:
        raise InvalidValueError(
            f"{argument}: label {labels[wrong].item()!r} in row {wrong[0]} is not known. Expected {expected}."
        )
    return places.astype(np.int32)


def _listed(labels: Array) -> str:
    some = ", ".join(map(repr, labels[:_MOST_SHOWN].tolist()))
    return f"{some}, ..." if len(labels) > _MOST_SHOWN else some
