"""From target columns, of integers, numbers or text, to labels or numbers."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.data.datasets import RawData
from gpunet.errors import InvalidTypeError, InvalidValueError, NonFiniteError, unknown_name

Array = npt.NDArray[Any]

CLASSIFICATION, REGRESSION = "classification", "regression"
TASKS = (CLASSIFICATION, REGRESSION)
_MOST_NAMES = 8


def learn_targets(raw: RawData, task: str | None) -> tuple[Array, list[str] | None]:
    """Return a training set's targets, and its class names in sorted order or None for regression.

    Parameters
    ----------
    raw : RawData
        With targets.
    task : str or None
        None takes integers and text for classes and refuses numbers with a fraction part.

    Raises
    ------
    InvalidTypeError
        Numbers without a task, or text for regression.
    NonFiniteError
        NaN or infinity among numbers.
    InvalidValueError
        One class only.
    """
    assert raw.targets is not None
    if task == REGRESSION:
        return read_numbers(raw), None
    if task is None and raw.targets.dtype.kind == "f":
        raise InvalidTypeError(
            f"{raw.target_place}: holds numbers with a decimal point, such as {raw.targets[0]} in {raw.row_place(0)}. "
            "Expected integer or text classes; --task regression predicts numbers, --task classification takes each "
            "number for a class."
        )
    if raw.targets.dtype.kind == "f":
        read_numbers(raw)
    values, labels = np.unique(raw.targets, return_inverse=True)
    if len(values) < 2:
        raise InvalidValueError(
            f"{raw.target_place}: every row has the class {str(values[0])!r}. Expected two or more."
        )
    return labels.astype(np.int64), [_class_name(value) for value in values]


def known_labels(raw: RawData, class_names: list[str]) -> Array:
    """Return the labels that a model with these classes gives the targets, int64 (n,).

    Raises
    ------
    InvalidValueError
        A class that the model does not know; the message has the line.
    """
    assert raw.targets is not None
    position = {name: label for label, name in enumerate(class_names)}
    values, inverse = np.unique(raw.targets, return_inverse=True)
    names = [_class_name(value) for value in values]
    for code, name in enumerate(names):
        if name not in position:
            row = int(np.argmax(inverse == code))
            known = class_names if len(class_names) <= _MOST_NAMES else [*class_names[:_MOST_NAMES], "..."]
            error = unknown_name("class", name, known)
            raise InvalidValueError(f"{raw.target_place}, {raw.row_place(row)}: {error}")
    return np.array([position[name] for name in names], dtype=np.int64)[inverse]


def read_numbers(raw: RawData) -> Array:
    """Return the targets of a regression, finite float64 (n,).

    Raises
    ------
    InvalidTypeError
        Text.
    NonFiniteError
        NaN or infinity.
    """
    assert raw.targets is not None
    if raw.targets.dtype.kind not in "iuf":
        row = next((row for row, value in enumerate(raw.targets) if not is_number(str(value))), 0)
        raise InvalidTypeError(
            f"{raw.target_place}, {raw.row_place(row)}: {str(raw.targets[row])!r} is not a number, "
            "and --task regression predicts numbers."
        )
    numbers = raw.targets.astype(np.float64)
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers)))
        raise NonFiniteError(f"{raw.target_place}, {raw.row_place(row)}: {numbers[row]} is not a finite number.")
    return numbers


def parse_text(values: Array) -> Array:
    """Return a column that was read as text as integers if all of it is, else as numbers if all is, else as text.

    Parameters
    ----------
    values : ndarray of text, (n,)
    """
    for dtype in (np.int64, np.float64):
        with contextlib.suppress(ValueError, OverflowError):
            return values.astype(dtype)
    return values


def is_number(text: str) -> bool:
    """Whether Python reads the text as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _class_name(value: Any) -> str:
    """Return a class's name: text as it is, whole numbers without a decimal point."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)
