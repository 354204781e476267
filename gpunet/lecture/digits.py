"""The handwritten digits that the experiments learn from: split and centred, the same way for all of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt

from gpunet.data import load_for_training
from gpunet.random import Purpose, host_generator

Array = npt.NDArray[Any]

INPUTS, CLASSES = 64, 10
TEST_ROWS = 500


class Digits(NamedTuple):
    """Pixels from 0 to 1 less their means over the training rows, and labels 0 to 9.

    Attributes
    ----------
    X, y : ndarray, (n, 64) of float64 and (n,) of int64
        To train on.
    X_test, y_test : ndarray
        500 rows that are not among them.
    """

    X: Array
    y: Array
    X_test: Array
    y_test: Array


def split_digits(seed: int, rows: int = 1280) -> Digits:
    """Return scikit-learn's digits in an order drawn from the seed: 500 to test, ``rows`` of the others to train.

    Parameters
    ----------
    seed : int
    rows : int
        1 to 1,297. A smaller number gives the first of the rows that a larger one gives.

    Raises
    ------
    MissingDependencyError
        scikit-learn is not installed.
    """
    data = load_for_training("digits")
    assert data.targets is not None
    order = host_generator(seed, Purpose.SPLIT).permutation(data.rows)
    X, y = data.features[order] / 16, data.targets[order]
    train = slice(TEST_ROWS, TEST_ROWS + rows)
    mean = X[train].mean(axis=0)
    return Digits(X[train] - mean, y[train], X[:TEST_ROWS] - mean, y[:TEST_ROWS])
