"""Training, validation and test rows: a fifth to test, a tenth of the rest to validate, classes in proportion.

A class of one or two rows cannot be in all three parts: all of its rows are for training.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.data.datasets import DataSet
from gpunet.data.numerals import is_integer
from gpunet.data.targets import REGRESSION
from gpunet.errors import InvalidValueError, counted, optional_package

Array = npt.NDArray[Any]

# scikit-learn's random_state takes no more.
LARGEST_SEED = 2**32 - 1
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

    The rows of a class of fewer than three are for training, all of them.

    Parameters
    ----------
    data : DataSet
        With targets.
    seed : int
        0 to 2**32 - 1.

    Raises
    ------
    InvalidValueError
        Too few rows, in all or of most classes.
    MissingDependencyError
    """
    with optional_package("scikit-learn", extra="cli", purpose="splitting the rows", module="sklearn"):
        from sklearn.model_selection import train_test_split
    common, rare = _common_and_rare_rows(data)
    labels = data.targets if data.class_names is not None else None
    _check_rows(data, len(common), 1 if labels is None else len(np.unique(labels[common])))
    rest, test = train_test_split(
        common, test_size=TEST_SHARE, random_state=seed, stratify=None if labels is None else labels[common]
    )
    train, validation = train_test_split(
        rest, test_size=VALIDATION_SHARE, random_state=seed, stratify=None if labels is None else labels[rest]
    )
    return Split(np.concatenate([train, rare]), validation, test)


def _common_and_rare_rows(data: DataSet) -> tuple[Array, Array]:
    """Return the rows to split, and those of classes that are too rare for it.

    Raises
    ------
    InvalidValueError
        All classes but one are too rare, or most are.
    """
    rows = np.arange(data.rows)
    if data.class_names is None or data.targets is None:
        return rows, rows[:0]
    counts = np.bincount(data.targets, minlength=len(data.class_names))
    is_rare = counts < FEWEST_OF_A_CLASS
    common = int(np.count_nonzero(~is_rare))
    if common < max(2, len(counts) / 2):
        label = int(np.argmin(counts))
        row = int(np.argmax(data.targets == label))
        raise InvalidValueError(
            f"{data.raw.target_place}, {data.raw.row_place(row)}: the class {data.class_names[label]!r} has "
            f"{counted(counts[label], 'row')}. Expected at least {FEWEST_OF_A_CLASS}, "
            f"to have some to train, validate and test.{_regression_hint(data)} "
            f"{len(counts) - common} of {len(counts)} classes have fewer; at most half may, and two must have them."
        )
    rare = is_rare[data.targets]
    return rows[~rare], rows[rare]


def _check_rows(data: DataSet, rows: int, classes: int) -> None:
    """Raise if ``rows`` are too few to be split with ``classes`` in proportion."""
    if rows < FEWEST_ROWS or _validation_rows(rows) < classes:
        least = next(rows for rows in itertools.count(FEWEST_ROWS) if _validation_rows(rows) >= classes)
        share = "" if classes == 1 else f" to have one of each of {classes} classes to validate"
        split = "" if rows == data.rows else f" of classes of at least {FEWEST_OF_A_CLASS}"
        raise InvalidValueError(
            f"{data.raw.path or data.name}: has {counted(rows, 'row')}{split}. Expected at least {least}{share}."
            f"{_regression_hint(data)}"
        )


def _regression_hint(data: DataSet) -> str:
    """Return what to do if the integers that were taken for classes are quantities."""
    if data.class_names is None or not all(map(is_integer, data.class_names)):
        return ""
    return f' If the targets are quantities rather than classes, use task="{REGRESSION}".'


def _validation_rows(rows: int) -> int:
    """Return how many rows ``train_test_split`` gives to validation."""
    return math.ceil(VALIDATION_SHARE * (rows - math.ceil(TEST_SHARE * rows)))
