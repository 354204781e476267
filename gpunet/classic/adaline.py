"""ADALINE (lecture row L10): a linear unit trained on the squared error of its score by the Widrow-Hoff rule."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.classic.estimator import BinaryClassifier, check_moderate, encode_known_classes, encode_two_classes
from gpunet.errors import ConvergenceWarning, InvalidValueError, TrainingDivergedError
from gpunet.random import Purpose, host_generator
from gpunet.validation import check_features, check_flag, check_integer, check_number

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]

# More than the weights' moving about at a usable learning rate adds to the loss of weights of zero, 1.
_LARGE_LOSS = 10.0


class Adaline(BinaryClassifier):
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
    learning_rate : float
        eta, above 0.
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
    coef_ : ndarray, (d,)
        w.
    intercept_ : float
        b.
    n_iter_ : int
        Epochs done.
    history_ : dict of str to list
        ``"loss"``: the mean of (y - yhat)^2 over the examples after each epoch; it is 1 before the first.
    classes_, n_features_in_
        See :class:`gpunet.classic.estimator.BinaryClassifier`.

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

    def __init__(
        self,
        *,
        learning_rate: float = 0.01,
        epochs: int = 50,
        batch_size: int | None = 1,
        bias: bool = True,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.bias = bias
        self.shuffle = shuffle
        self.seed = seed

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Learn from scratch; warn (ConvergenceWarning) where the loss ends above 10: it starts from 1.

        Parameters
        ----------
        X : array_like, (n, d)
        y : array_like, (n,)
            Two different labels.

        Raises
        ------
        ShapeError, InvalidTypeError, NonFiniteError
            X or y is not what it should be.
        InvalidValueError
            Not exactly two classes, a number in X above 1e140, a parameter out of its range, or a learning rate at
            which the weights diverge.
        TrainingDivergedError
            The loss became infinite: the learning rate is too high for these examples. The estimator is as it was.
        """
        self._check_parameters()
        features = check_features("X", X, None, np.float64)
        classes, signs = encode_two_classes("y", y, len(features))
        inputs = self._with_bias(features)
        rows = self.batch_size or len(inputs)
        self._refuse_divergence(inputs, rows)

        weights, losses = np.zeros(inputs.shape[1]), []
        for epoch in range(self.epochs):
            order = np.arange(len(inputs))
            if self.shuffle and rows < len(inputs):
                host_generator(self.seed, Purpose.SHUFFLE, epoch).shuffle(order)
            with np.errstate(over="ignore", invalid="ignore"):
                learn_epoch(inputs[order], signs[order], weights, self.learning_rate, rows)
                losses.append(float(np.mean((signs - inputs @ weights) ** 2)))
            self._check_loss(losses[-1], epoch + 1, inputs)
        self._set(features.shape[1], classes, weights, losses)
        if losses[-1] > _LARGE_LOSS:
            warnings.warn(
                f"Adaline: the loss is {losses[-1]:.3g} after {len(losses)} epochs, and 1 with weights of zero. A "
                "lower learning rate may help.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def partial_fit(self, X: npt.ArrayLike, y: npt.ArrayLike, classes: npt.ArrayLike | None = None) -> Self:
        """Go over the rows once, in their order, from where learning stands.

        No learning rate is refused beforehand here, since more examples may follow.

        Parameters
        ----------
        X : array_like, (n, d)
        y : array_like, (n,)
        classes : array_like, (2,), or None
            Both labels; needed by the first call, where ``y`` may hold only one of them.

        Raises
        ------
        ShapeError, InvalidTypeError, NonFiniteError
            X or y is not what it should be, or X has another width than before.
        InvalidValueError
            A label that is not one of the two classes, a number in X above 1e140, or a parameter out of its range.
        TrainingDivergedError
            The loss became infinite. The estimator is as it was.
        """
        self._check_parameters()
        is_fitted = self.__sklearn_is_fitted__()
        features = check_features("X", X, self.n_features_in_ if is_fitted else None, np.float64)
        known, signs = encode_known_classes("y", y, len(features), self.classes_ if is_fitted else None, classes)
        inputs = self._with_bias(features)
        weights = np.zeros(inputs.shape[1])
        losses: list[float] = []
        if is_fitted:
            weights[: self.n_features_in_] = self.coef_
            weights[self.n_features_in_ :] = self.intercept_
            losses = self.history_["loss"]
        with np.errstate(over="ignore", invalid="ignore"):
            learn_epoch(inputs, signs, weights, self.learning_rate, self.batch_size or len(inputs))
            loss = float(np.mean((signs - inputs @ weights) ** 2))
        self._check_loss(loss, len(losses) + 1, inputs)
        losses.append(loss)
        self._set(features.shape[1], known, weights, losses)
        return self

    def decision_function(self, X: npt.ArrayLike) -> Array:
        return self._fitted_features("decision_function", X) @ self.coef_ + self.intercept_

    def _check_parameters(self) -> None:
        check_number("learning_rate", self.learning_rate, above=True)
        check_integer("epochs", self.epochs, 1)
        if self.batch_size is not None:
            check_integer("batch_size", self.batch_size, 1)
        check_integer("seed", self.seed, 0, 2**64 - 1)
        for name in ("bias", "shuffle"):
            check_flag(name, getattr(self, name))

    def _with_bias(self, features: Array) -> Array:
        """Return the (x, 1), or the x where there is no bias; raise where squares of the x overflow."""
        check_moderate("X", features)
        return np.column_stack([features, np.ones(len(features))]) if self.bias else features

    def _refuse_divergence(self, inputs: Array, rows: int) -> None:
        """Raise where the weights provably diverge."""
        if rows >= len(inputs):
            bound = rate_bound(inputs)
            if self.learning_rate >= bound:
                raise InvalidValueError(
                    f"learning_rate: {float(self.learning_rate)!r} diverges on these examples. Expected less than "
                    f"2 / lambda_max = {bound:.6g}, with lambda_max the largest eigenvalue of their correlation matrix."
                )
        elif rows == 1:
            # A factor of exactly 0 makes the product 0.
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                growth = np.log(np.abs(1 - self.learning_rate * np.einsum("ij,ij->i", inputs, inputs))).sum()
            if growth > 0:
                raise InvalidValueError(
                    f"learning_rate: {float(self.learning_rate)!r} diverges on these examples, in any order. Expected "
                    f"less; below 2 / max ||x||^2 = {single_example_bound(inputs):.6g} nothing can diverge."
                )

    def _check_loss(self, loss: float, epoch: int, inputs: Array) -> None:
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"learning_rate: with {float(self.learning_rate)!r} the loss became {loss} in epoch {epoch}. Below "
                f"2 / max ||x||^2 = {single_example_bound(inputs):.6g} nothing can diverge.",
                epoch,
            )

    def _set(self, inputs: int, classes: Array, weights: Array, losses: list[float]) -> None:
        self.n_features_in_ = inputs
        self.classes_ = classes
        self.coef_ = weights[:inputs].copy()
        self.intercept_ = float(weights[-1]) if self.bias else 0.0
        self.n_iter_ = len(losses)
        self.history_: dict[str, list[float]] = {"loss": losses}


def learn_epoch(inputs: Array, targets: Array, weights: Array, learning_rate: float, batch_size: int) -> None:
    """Apply the Widrow-Hoff rule to the rows, in order, ``batch_size`` at a time.

    Parameters
    ----------
    inputs : ndarray, (n, m)
        The x, or the (x, 1) for a bias.
    targets : ndarray, (n,)
        y: any numbers.
    weights : ndarray, (m,)
        Changed in place.
    learning_rate : float
    batch_size : int
    """
    if batch_size == 1:
        for x, target in zip(inputs, targets, strict=True):
            weights += learning_rate * (target - x @ weights) * x
        return
    for start in range(0, len(inputs), batch_size):
        batch = inputs[start : start + batch_size]
        weights += learning_rate / len(batch) * ((targets[start : start + batch_size] - batch @ weights) @ batch)


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
