"""Training, validation and test rows: a fifth to test, a tenth of the rest to validate, classes in proportion."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.data.datasets import DataSet
from gpunet.errors import InvalidValueError, require_package

Array = npt.NDArray[Any]

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1
# Three rows of a class are at least two for training and validation together, of which one is for training.
FEWEST_OF_A_CLASS = 3
# Ten rows are two to test, which R^2 needs, and one to validate.
FEWEST_ROWS = 10


@dataclass(frozen=True)
class Split:
    """Row numbers, int64, of the three parts; no row is in two.

    Attributes
    ----------
    train, validation, test : ndarray of int64
    """

    train: Array
    validation: Array
    test: Array


def split_rows(data: DataSet, seed: int) -> Split:
    """Split a data set with scikit-learn's ``train_test_split``, stratified where there are classes.

    Parameters
    ----------
    data : DataSet
        With targets.
    seed : int
        0 to 2**32 - 1.

    Raises
    ------
    InvalidValueError
        Too few rows, in all or of a class.
    MissingDependencyError
    """
    try:
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise require_package("scikit-learn", extra="cli", purpose="splitting the rows") from None
    _check_rows(data)
    assert data.targets is not None
    labels = data.targets if data.class_names is not None else None
    rows = np.arange(data.rows)
    rest, test = train_test_split(rows, test_size=TEST_SHARE, random_state=seed, stratify=labels)
    train, validation = train_test_split(
        rest, test_size=VALIDATION_SHARE, random_state=seed, stratify=None if labels is None else labels[rest]
    )
    return Split(train, validation, test)


def _check_rows(data: DataSet) -> None:
    if data.class_names is not None and data.targets is not None:
        counts = np.bincount(data.targets, minlength=len(data.class_names))
        if counts.min() < FEWEST_OF_A_CLASS:
            label = int(np.argmin(counts))
            row = int(np.argmax(data.targets == label))
            raise InvalidValueError(
                f"{data.raw.target_place}, {data.raw.row_place(row)}: the class {data.class_names[label]!r} has "
                f"{counts[label]} {'row' if counts[label] == 1 else 'rows'}. Expected at least {FEWEST_OF_A_CLASS}, "
                f"to have some to train, validate and test.{_regression_hint(data)}"
            )
    classes = 1 if data.class_names is None else len(data.class_names)
    if data.rows < FEWEST_ROWS or _validation_rows(data.rows) < classes:
        least = next(rows for rows in itertools.count(FEWEST_ROWS) if _validation_rows(rows) >= classes)
        share = "" if classes == 1 else f" to have one of each of {classes} classes to validate"
        raise InvalidValueError(
            f"{data.raw.path or data.name}: has {data.rows} rows. Expected at least {least}{share}."
            f"{_regression_hint(data)}"
        )


def _regression_hint(data: DataSet) -> str:
    """Return what to do if the integers that were taken for classes are quantities."""
    are_integers = data.raw.targets is not None and data.raw.targets.dtype.kind in "iu"
    if data.class_names is None or not are_integers:
        return ""
    return " If the targets are quantities rather than classes, use --task regression."


def _validation_rows(rows: int) -> int:
    """Return how many rows ``train_test_split`` gives to validation."""
    return math.ceil(VALIDATION_SHARE * (rows - math.ceil(TEST_SHARE * rows)))
