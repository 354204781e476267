"""The perceptron (lecture row L9): a linear decision that learns from its mistakes only."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.classic.estimator import BinaryClassifier, check_moderate, encode_known_classes, encode_two_classes
from gpunet.classic.separability import signed_examples, signed_separation
from gpunet.errors import ConvergenceWarning, InvalidValueError
from gpunet.random import Purpose, host_generator
from gpunet.validation import check_features, check_flag, check_integer, check_targets

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]

_FIRST_BLOCK = 8
# Products of smaller numbers, and shares of such products, fade to 0.
_SMALLEST_LENGTH = 1e-140


class Perceptron(BinaryClassifier):
    """A linear classifier trained by the perceptron rule.

    Predicts ``classes_[1]`` where w . x + b > 0 and ``classes_[0]`` otherwise. Learning starts at w = 0, b = 0, takes
    one example at a time, and on a mistake, y (w . x + b) <= 0 with y = -1 or +1, sets w <- w + y x and b <- b + y:
    stochastic gradient descent on the perceptron loss max(0, -y (w . x + b)) with learning rate 1. (Another rate would
    only scale w and b. A score of exactly 0 counts as a mistake for either class, or nothing would leave zero.)
    Training ends with the first epoch that has no mistake. Where a hyperplane separates the classes there is one, after
    at most (R / gamma)^2 mistakes: see :func:`gpunet.classic.separability.separation`.

    Each update decides what the next one is, so the rule is sequential: it runs with NumPy on the host.

    Parameters
    ----------
    averaged : bool
        Whether ``coef_`` and ``intercept_`` are the averages of w and b over all examples seen, which classify data
        that no hyperplane separates far more evenly than whatever the last mistake left (Freund and Schapire 1999).
    bias : bool
        Whether b is learnt, as the weight of an input that is always 1; otherwise it is 0.
    max_epochs : int or None
        Passes over the examples at most. None sets no limit, and is refused for classes that no hyperplane separates.
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
    converged_ : bool
        Whether the last epoch had no mistake. That holds for the last w and b, not for their averages.
    mistakes_ : int
        Updates in all.
    n_iter_ : int
        Epochs done.
    history_ : dict of str to list
        ``"mistakes"``: the mistakes of each epoch.
    classes_, n_features_in_
        See :class:`gpunet.classic.estimator.BinaryClassifier`.

    References
    ----------
    Rosenblatt 1958, "The perceptron". Novikoff 1962, "On convergence proofs for perceptrons". Freund and Schapire 1999,
    "Large margin classification using the perceptron algorithm".

    Examples
    --------
    >>> model = Perceptron().fit([[0.0, 1.0], [2.0, 0.0], [3.0, 1.0]], ["a", "b", "b"])
    >>> model.predict([[4.0, 0.0]]).tolist(), model.converged_
    (['b'], True)
    """

    def __init__(
        self,
        *,
        averaged: bool = False,
        bias: bool = True,
        max_epochs: int | None = 1000,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        self.averaged = averaged
        self.bias = bias
        self.max_epochs = max_epochs
        self.shuffle = shuffle
        self.seed = seed

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Learn from scratch; warn (ConvergenceWarning) where ``max_epochs`` ended it.

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
            Not exactly two classes, a number in X above 1e140, an X of nothing but numbers below 1e-140 without a bias,
            a parameter out of its range, or ``max_epochs=None`` where no hyperplane separates the classes.
        """
        self._check_parameters()
        features = check_features("X", X, None, np.float64)
        classes, signs = encode_two_classes("y", y, len(features))
        examples = self._examples(features, signs)
        if self.max_epochs is None and not signed_separation(examples).is_separable:
            raise InvalidValueError(
                "max_epochs: None sets no limit, but no hyperplane separates the classes: the rule would never stop. "
                "Expected a number of epochs."
            )

        self._start(features.shape[1], classes, examples.shape[1])
        while not self.converged_ and (self.max_epochs is None or self.n_iter_ < self.max_epochs):
            order = np.arange(len(examples))
            if self.shuffle:
                host_generator(self.seed, Purpose.SHUFFLE, self.n_iter_).shuffle(order)
            self._learn(examples[order])
        if not self.converged_:
            warnings.warn(
                f"Perceptron: {self.history_['mistakes'][-1]} mistakes in the last of {self.n_iter_} epochs. More "
                "epochs help only if a hyperplane separates the classes; averaged=True helps also otherwise.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def partial_fit(self, X: npt.ArrayLike, y: npt.ArrayLike, classes: npt.ArrayLike | None = None) -> Self:
        """Go over the rows once, in their order, from where learning stands.

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
            A label that is not one of the two classes, an X that ``fit`` would refuse, a parameter out of its range, or
            another ``bias`` than before.
        """
        self._check_parameters()
        is_fitted = self.__sklearn_is_fitted__()
        if is_fitted and self.bias != (len(self._weights) > self.n_features_in_):
            raise InvalidValueError(f"bias: got {self.bias}. Expected {not self.bias}, as before; fit learns anew.")
        features = check_features("X", X, self.n_features_in_ if is_fitted else None, np.float64)
        known, signs = encode_known_classes("y", y, len(features), self.classes_ if is_fitted else None, classes)
        examples = self._examples(features, signs)
        if not is_fitted:
            self._start(features.shape[1], known, examples.shape[1])
        self._learn(examples)
        return self

    def decision_function(self, X: npt.ArrayLike) -> Array:
        return self._fitted_features("decision_function", X) @ self.coef_ + self.intercept_

    def _check_parameters(self) -> None:
        for name in ("averaged", "bias", "shuffle"):
            check_flag(name, getattr(self, name))
        check_integer("seed", self.seed, 0, 2**64 - 1)
        if self.max_epochs is not None:
            check_integer("max_epochs", self.max_epochs, 1)

    def _examples(self, features: Array, signs: Array) -> Array:
        """Return the p_i, (n, m), whose products w . p_i neither overflow nor fade; or raise."""
        check_moderate("X", features)
        examples = signed_examples(features, signs, bias=self.bias)
        largest = float(np.abs(examples).max())
        if 0 < largest < _SMALLEST_LENGTH:
            raise InvalidValueError(
                f"X: no number is larger than {largest:g}, and squares of such numbers are 0. Expected at least "
                f"{_SMALLEST_LENGTH:g}: scale the features."
            )
        return examples

    def _start(self, inputs: int, classes: Array, weights: int) -> None:
        """Forget everything: zero weights, which a bias makes one more than the inputs."""
        self.n_features_in_ = inputs
        self.classes_ = classes
        self.converged_ = False
        self.mistakes_ = 0
        self.n_iter_ = 0
        self.history_: dict[str, list[int]] = {"mistakes": []}
        self._weights = np.zeros(weights)
        self._late_updates = np.zeros(weights)
        self._seen = 0

    def _learn(self, examples: Array) -> None:
        """Go over the signed examples once and set the attributes."""
        mistakes = learn_epoch(examples, self._weights, self._late_updates, self._seen)
        self._seen += len(examples)
        self.converged_ = mistakes == 0
        self.mistakes_ += mistakes
        self.n_iter_ += 1
        self.history_["mistakes"].append(mistakes)

        weights = self._weights - self._late_updates / self._seen if self.averaged else self._weights
        self.coef_ = weights[: self.n_features_in_].copy()
        self.intercept_ = float(weights[-1]) if self.bias else 0.0


def learn_epoch(examples: Array, weights: Array, late_updates: Array, seen: int) -> int:
    """Apply the perceptron rule to the signed examples p_i, in order, and return the number of mistakes.

    Parameters
    ----------
    examples : ndarray, (n, m)
        p_i = y_i (x_i, 1): a mistake is w . p_i <= 0, an update w += p_i.
    weights : ndarray, (m,)
        w; changed in place.
    late_updates : ndarray, (m,)
        Changed in place: each update, times the number of examples before it. With t examples seen, the average over
        them of w after each is w - late_updates / t: an update is missing from the averages of those before it.
    seen : int
        Examples seen in earlier epochs.
    """
    mistakes = start = 0
    block = _FIRST_BLOCK
    while start < len(examples):
        # Weights change at mistakes only: look for the next one in blocks, larger ones where mistakes are rare.
        wrong = examples[start : start + block] @ weights <= 0
        first = int(wrong.argmax())
        if not wrong[first]:
            start += block
            block *= 2
            continue
        start += first
        weights += examples[start]
        late_updates += (seen + start) * examples[start]
        mistakes += 1
        start += 1
        block = _FIRST_BLOCK
    return mistakes


def perceptron_loss(signs: npt.ArrayLike, scores: npt.ArrayLike) -> Array:
    """Return the perceptron loss of each example, max(0, -y s) for its score s = w . x + b.

    Parameters
    ----------
    signs : array_like, (n,)
        y: -1 or +1.
    scores : array_like, (n,)
        See :meth:`Perceptron.decision_function`.

    Returns
    -------
    ndarray of float64, (n,)

    Raises
    ------
    ShapeError, InvalidTypeError, NonFiniteError
        Not as many signs as scores, or not finite numbers.
    InvalidValueError
        A sign other than -1 and +1.
    """
    s = check_targets("scores", scores, np.size(scores), 1, np.float64)[:, 0]
    y = check_targets("signs", signs, len(s), 1, np.float64)[:, 0]
    wrong = np.abs(y) != 1
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InvalidValueError(f"signs: {y[row]:g} in row {row}. Expected -1 or +1.")
    return np.maximum(0.0, -y * s)
