"""From target columns, of integers, numbers or text, to labels or numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.data.datasets import RawData
from gpunet.data.numerals import is_integer, is_missing, is_number, own_number
from gpunet.errors import InvalidTypeError, InvalidValueError, NonFiniteError, unknown_name

Array = npt.NDArray[Any]

CLASSIFICATION, REGRESSION = "classification", "regression"
TASKS = (CLASSIFICATION, REGRESSION)
_MOST_NAMES = 8


def learn_targets(raw: RawData, task: str | None) -> tuple[Array, list[str] | None]:
    """Return a training set's targets, and its class names in sorted order or None for regression.

    A class's name is the text of its targets. Names are sorted as numbers where each of them is what its number is
    written as (``9``, ``10``, but not ``09``), and as text otherwise.

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
        Another task, or one class only.
    """
    assert raw.targets is not None
    if task is not None and task not in TASKS:
        raise unknown_name("task", task, TASKS)
    if task == REGRESSION:
        return read_numbers(raw), None
    values, labels = np.unique(raw.targets, return_inverse=True)
    names = [str(value) for value in values]
    if task is None:
        _refuse_quantities(raw, names, labels)
    if raw.targets.dtype.kind == "f":
        read_numbers(raw)
    if len(names) < 2:
        raise InvalidValueError(f"{raw.target_place}: every row has the class {names[0]!r}. Expected two or more.")
    order = _sorted_codes(names)
    return np.argsort(order)[labels].astype(np.int64), [names[code] for code in order]


def _sorted_codes(names: list[str]) -> list[int]:
    numbers = [number for number in map(own_number, names) if number is not None]
    if len(numbers) < len(names):
        return sorted(range(len(names)), key=names.__getitem__)
    return sorted(range(len(names)), key=lambda code: (numbers[code], names[code]))


def _refuse_quantities(raw: RawData, names: list[str], labels: Array) -> None:
    """Raise if what is not missing are numbers and not all of them integers."""
    codes = [code for code, name in enumerate(names) if not is_missing(name)]
    fractions = [code for code in codes if not is_integer(names[code])]
    if not fractions or not all(is_number(names[code]) for code in fractions):
        return
    row = int(np.argmax(np.isin(labels, fractions)))
    raise InvalidTypeError(
        f"{raw.target_place}: holds numbers with a decimal point, such as {names[labels[row]]} in "
        f'{raw.row_place(row)}. Expected integer or text classes; task="{REGRESSION}" predicts numbers, '
        f'task="{CLASSIFICATION}" takes each number for a class.'
    )


def known_labels(raw: RawData, class_names: list[str]) -> Array:
    """Return the labels that a model with these classes gives the targets, int64 (n,).

    A target is the class with the same text; where there is none, the one class with the same number, if both are
    what that number is written as (``1`` and ``1.0``).

    Raises
    ------
    InvalidValueError
        A class that the model does not know; the message has the line.
    """
    assert raw.targets is not None
    by_text = {name: label for label, name in enumerate(class_names)}
    numbers = [own_number(name) for name in class_names]
    counts = Counter(numbers)
    by_number = {number: label for label, number in enumerate(numbers) if number is not None and counts[number] == 1}
    values, inverse = np.unique(raw.targets, return_inverse=True)
    labels = []
    for code, name in enumerate(map(str, values)):
        number = own_number(name)
        label = by_text.get(name, None if number is None else by_number.get(number))
        if label is None:
            row = int(np.argmax(inverse == code))
            known = class_names if len(class_names) <= _MOST_NAMES else [*class_names[:_MOST_NAMES], "..."]
            error = unknown_name("class", name, known)
            raise InvalidValueError(f"{raw.target_place}, {raw.row_place(row)}: {error}")
        labels.append(label)
    return np.array(labels, dtype=np.int64)[inverse]


def read_numbers(raw: RawData) -> Array:
    """Return the targets of a regression, finite float64 (n,).

    Raises
    ------
    InvalidTypeError
        Text.
    NonFiniteError
        NaN or infinity, or a number that is missing.
    """
    assert raw.targets is not None
    if raw.targets.dtype.kind in "iuf":
        with np.errstate(over="ignore"):  # numbers of more than 64 bits
            numbers = raw.targets.astype(np.float64)
    else:
        numbers = np.array([_target_number(raw, row, str(value).strip()) for row, value in enumerate(raw.targets)])
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers)))
        raise NonFiniteError(f"{raw.target_place}, {raw.row_place(row)}: {numbers[row]} is not a finite number.")
    return numbers


def _target_number(raw: RawData, row: int, text: str) -> float:
    if is_missing(text):
        raise NonFiniteError(f"{raw.target_place}, {raw.row_place(row)}: {text} is not a finite number.")
    if not is_number(text):
        raise InvalidTypeError(
            f"{raw.target_place}, {raw.row_place(row)}: {text!r} is not a number, and a regression predicts numbers."
        )
    return float(text)
