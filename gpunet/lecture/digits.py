"""The handwritten digits that the experiments learn from: split and centred, the same way for all of them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from gpunet.data import load_for_training
from gpunet.errors import TrainingDivergedError
from gpunet.lecture.experiment import Array
from gpunet.network import Network
from gpunet.optimizers import SGD
from gpunet.random import Purpose, host_generator
from gpunet.training import History, evaluate, fit

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

    def fit(self, network: Network, rate: float, momentum: float = 0.0, **arguments: Any) -> History:
        """Train by gradient descent at a learning rate; the other arguments are those of :func:`gpunet.fit`."""
        return fit(network, self.X, self.y, optimizer=SGD(rate, momentum=momentum), **arguments)

    def fit_or_diverge(
        self, network: Network, rate: float, momentum: float = 0.0, **arguments: Any
    ) -> tuple[History, bool]:
        """Train as :meth:`fit` does, as far as it goes, and return whether the loss diverged."""
        try:
            return self.fit(network, rate, momentum, **arguments), False
        except TrainingDivergedError as error:
            return error.history, True

    def losses(
        self, network: Network, rate: float, momentum: float = 0.0, *, epochs: int, **arguments: Any
    ) -> list[float]:
        """Train as :meth:`fit` does and return the loss of each epoch, infinity from where it diverges."""
        history, _ = self.fit_or_diverge(network, rate, momentum, epochs=epochs, **arguments)
        return [*history["loss"], *[math.inf] * (epochs - len(history))]

    def test_accuracy(self, network: Network) -> float:
        """Return the share of the test rows that a network gets right."""
        return evaluate(network, self.X_test, self.y_test).accuracy or 0.0


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
