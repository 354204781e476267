"""ADALINE (lecture row L10): a linear unit trained on the squared error of its score by the Widrow-Hoff rule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.classic.binary_classifier import LinearClassifier
from gpunet.classic.epochs import epoch_orders
from gpunet.classic.estimator import check_seed, parameter
from gpunet.errors import InvalidValueError, TrainingDivergedError, counted
from gpunet.validation import check_flag, check_integer, check_number

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]

# More than the weights' moving about at a usable learning rate adds to the loss of weights of zero, 1.
_LARGE_LOSS = 10.0
_USUAL_RATE = 0.01


@dataclass
class WidrowHoffRule:
    """The Widrow-Hoff rule on rows (x, 1), or x without a bias, whose targets y are any numbers.

    Attributes
    ----------
    weights : ndarray, (m,)
        Changed in place.
    learning_rate : float or None
        None takes :func:`default_rate` of the rows at hand.
    batch_size : int or None
        Rows per update; None takes all of them.
    epoch : int
        Epochs so far.
    last_rate : float
        Of the last epoch.
    """

    weights: Array
    learning_rate: float | None
    batch_size: int | None
    epoch: int = 0
    last_rate: float = 0.0

    def learn_epoch(self, inputs: Array, targets: Array, order: Array | slice = slice(None)) -> float:
        """Apply the rule and return the mean of (y - yhat)^2 over the rows with the weights that it leaves.

        Raises
        ------
        TrainingDivergedError
            The loss became infinite.
        """
        self.epoch += 1
        self.last_rate = default_rate(inputs) if self.learning_rate is None else self.learning_rate
        with np.errstate(over="ignore", invalid="ignore"):
            self._learn(inputs[order], targets[order])
            loss = float(np.mean((targets - inputs @ self.weights) ** 2))
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"learning_rate: with {self.last_rate!r} the loss became {loss} in epoch {self.epoch}. Below "
                f"2 / max ||x||^2 = {single_example_bound(inputs):.6g} nothing can diverge.",
                self.epoch,
            )
        return loss

    def _learn(self, inputs: Array, targets: Array) -> None:
        if self.batch_size == 1:
            for x, target in zip(inputs, targets, strict=True):
                self.weights += self.last_rate * (target - x @ self.weights) * x
            return
        size = self.batch_size or len(inputs)
        for start in range(0, len(inputs), size):
            batch = inputs[start : start + size]
            errors = targets[start : start + size] - batch @ self.weights
            self.weights += self.last_rate / len(batch) * (errors @ batch)


@dataclass(kw_only=True, eq=False, repr=False)
class Adaline(LinearClassifier[WidrowHoffRule]):
    """A linear classifier trained by the Widrow-Hoff (least mean squares) rule.

    Each example asks the score yhat = w . x + b to be its y = -1 or +1, with the loss (y - yhat)^2. Learning starts at
    w = 0, b = 0, and a batch sets w <- w + eta mean((y - yhat) x), b <- b + eta mean(y - yhat): stochastic gradient
    descent, where eta absorbs the factor 2 of the loss's gradient. Predicts ``classes_[1]`` where the score is above 0.

    **Learning rates.** On all examples at once, with the correlation matrix C = mean((x, 1) (x, 1)^T), an update
    multiplies the distance to the least-squares solution along each eigenvector of C by 1 - eta lambda. That converges
    for eta < 2 / lambda_max; from there on it is unstable, and ``fit`` refuses.

    For one example at a time, an update leaves (1 - eta ||(x, 1)||^2) times the example's own error. Below
    eta = 2 / max ||(x, 1)||^2 nothing can diverge, though the weights keep moving around the least-squares solution,
    the closer the smaller eta is. The updates of an epoch together, in any order, change volumes in weight space by the
    product of those factors; where that is more than 1, the rule is unstable, and ``fit`` refuses. In between, and for
    batches of other sizes, it goes by what happens: a large loss is warned of, an infinite one is an error.

    Each update needs the weights that the one before it left, so the rule is sequential: it runs with NumPy on the
    host.

    Parameters
    ----------
    learning_rate : float or None
        eta, above 0. None takes 0.01, or half of 2 / max ||(x, 1)||^2 where that is less, so that nothing diverges.
    epochs : int
        Passes over the examples.
    batch_size : int or None
        Examples per update: 1 is Widrow and Hoff's rule, None takes all of them.
    bias : bool
        Whether b is learnt, as the weight of an input that is always 1; otherwise it is 0.
    shuffle : bool
        Whether each epoch has an order of its own; False keeps the order of X.
    seed : int
        Draws the orders.

    Attributes
    ----------
    history_ : dict of str to list
        ``"loss"``: the mean of (y - yhat)^2 over the examples after each epoch; it is 1 before the first.
    learning_rate_ : float
        eta of the last epoch.
    coef_, intercept_, classes_, n_iter_, n_features_in_, feature_names_in_
        See :class:`gpunet.classic.binary_classifier.LinearClassifier`.

    References
    ----------
    Widrow and Hoff 1960, "Adaptive switching circuits". Widrow and Lehr 1990, "30 years of adaptive neural networks:
    perceptron, Madaline, and backpropagation".

    Examples
    --------
    >>> model = Adaline(learning_rate=0.1).fit([[0.0, 1.0], [2.0, 0.0], [3.0, 1.0]], ["a", "b", "b"])
    >>> model.predict([[4.0, 0.0]]).tolist()
    ['b']
    """

    learning_rate: float | None = parameter(None, check_number, above=True, optional=True)
    epochs: int = parameter(50, check_integer, minimum=1)
    batch_size: int | None = parameter(1, check_integer, minimum=1, optional=True)
    bias: bool = parameter(True, check_flag)
    shuffle: bool = parameter(True, check_flag)
    seed: int = parameter(0, check_seed)

    _measure = "loss"
    _stops = False

    def _new_rule(self, inputs: Array) -> WidrowHoffRule:
        """Return the rule; raise where the weights provably diverge."""
        if self.learning_rate is None:
            return self._empty_rule(inputs.shape[1])
        if self.batch_size is None or self.batch_size >= len(inputs):
            bound = rate_bound(inputs)
            if self.learning_rate >= bound:
                raise InvalidValueError(
                    f"learning_rate: {self.learning_rate!r} diverges on these examples. Expected less than "
                    f"2 / lambda_max = {bound:.6g}, with lambda_max the largest eigenvalue of their correlation matrix."
                )
        elif self.batch_size == 1:
            # A factor of exactly 0 makes the product 0.
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                growth = np.log(np.abs(1 - self.learning_rate * np.einsum("ij,ij->i", inputs, inputs))).sum()
            if growth > 0:
                raise InvalidValueError(
                    f"learning_rate: {self.learning_rate!r} diverges on these examples, in any order. Expected "
                    f"less; below 2 / max ||x||^2 = {single_example_bound(inputs):.6g} nothing can diverge."
                )
        return self._empty_rule(inputs.shape[1])

    def _empty_rule(self, weights: int) -> WidrowHoffRule:
        return WidrowHoffRule(np.zeros(weights), self.learning_rate, self.batch_size)

    def _resumed_rule(self, given: Self) -> WidrowHoffRule:
        weights = np.append(self.coef_, self.intercept_) if given.bias else self.coef_.copy()
        return WidrowHoffRule(weights, given.learning_rate, given.batch_size, self.n_iter_)

    def _orders(self, rows: int) -> Iterator[Array]:
        shuffle = self.shuffle and self.batch_size is not None and self.batch_size < rows
        return epoch_orders(rows, self.epochs, seed=self.seed, shuffle=shuffle)

    def _adopt(self, rule: WidrowHoffRule, history: list[float]) -> None:
        super()._adopt(rule, history)
        self._set_weights(rule.weights)
        self.learning_rate_ = rule.last_rate

    def _advice(self, history: list[float]) -> str:
        if history[-1] <= _LARGE_LOSS:
            return ""
        return (
            f"the loss is {history[-1]:.3g} after {counted(len(history), 'epoch')}, and 1 with weights of zero. "
            "A lower learning rate may help."
        )


def default_rate(inputs: Array) -> float:
    """Return 0.01, or half of :func:`single_example_bound` where that is less."""
    return min(_USUAL_RATE, single_example_bound(inputs) / 2)


def rate_bound(inputs: Array) -> float:
    """Return 2 / lambda_max of the correlation matrix mean(x x^T): on all rows at once, lower rates converge.

    Parameters
    ----------
    inputs : ndarray, (n, m)
        The x, or the (x, 1) for a bias.

    Returns
    -------
    float
        Infinity where every x is zero.
    """
    largest = float(np.linalg.norm(inputs, 2))  # singular value: sqrt(n lambda_max)
    return 2 * len(inputs) / largest / largest if largest > 0 else math.inf


def single_example_bound(inputs: Array) -> float:
    """Return 2 / max ||x||^2: below it, no update overshoots its own example, whatever the order and batch size."""
    largest = float(np.einsum("ij,ij->i", inputs, inputs).max())
    return 2 / largest if largest > 0 else math.inf
