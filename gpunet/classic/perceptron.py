"""The perceptron (lecture row L9): a linear decision that learns from its mistakes only."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.classic.binary_classifier import LinearClassifier
from gpunet.classic.epochs import mistakes
from gpunet.classic.estimator import check_seed, parameter
from gpunet.classic.separability import signed_separation
from gpunet.errors import InvalidValueError, counted
from gpunet.validation import check_flag, check_integer, check_targets

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]

# Products of smaller numbers, and shares of such products, fade to 0.
_SMALLEST_LENGTH = 1e-140


class PerceptronRule:
    """The perceptron rule on the signed examples p_i = y_i (x_i, 1): a mistake is w . p_i <= 0, an update w += p_i.

    Parameters
    ----------
    count : int
        Weights, which are 0 to begin with.

    Attributes
    ----------
    weights : ndarray, (count,)
        w.
    late_updates : ndarray, (count,)
        The sum of the updates, each times the number of examples before it.
    seen, mistakes : int
        Examples and mistakes so far.
    """

    def __init__(self, count: int) -> None:
        self.weights = np.zeros(count)
        self.late_updates = np.zeros(count)
        self.seen = self.mistakes = 0

    @property
    def averaged_weights(self) -> Array:
        """The average of w over the examples seen: an update is missing from the averages of those before it."""
        return self.weights - self.late_updates / self.seen

    def learn_epoch(self, examples: Array, signs: Array, order: Array | slice = slice(None)) -> int:
        """Apply the rule to the signed examples, (n, count), and return the number of mistakes."""
        examples = examples[order]
        count = 0
        for row in mistakes(len(examples), lambda rows: examples[rows] @ self.weights <= 0):
            self.weights += examples[row]
            self.late_updates += (self.seen + row) * examples[row]
            count += 1
        self.seen += len(examples)
        self.mistakes += count
        return count


@dataclass(kw_only=True, eq=False, repr=False)
class Perceptron(LinearClassifier[PerceptronRule]):
    """A linear classifier trained by the perceptron rule.

    Predicts ``classes_[1]`` where w . x + b > 0 and ``classes_[0]`` otherwise. Learning starts at w = 0, b = 0, takes
    one example at a time, and on a mistake, y (w . x + b) <= 0 with y = -1 or +1, sets w <- w + y x and b <- b + y:
    stochastic gradient descent on the perceptron loss max(0, -y (w . x + b)) with learning rate 1. (Another rate would
    only scale w and b. A score of exactly 0 counts as a mistake for either class, or nothing would leave zero.)
    Training ends with the first epoch that has no mistake. Where a hyperplane separates the classes there is one, after
    at most (R / gamma)^2 mistakes: see :func:`gpunet.classic.separation`.

    Each update decides what the next one is, so the rule is sequential: it runs with NumPy on the host.

    Parameters
    ----------
    averaged : bool
        Whether ``coef_`` and ``intercept_`` are the averages of w and b over all examples seen, which classify data
        that no hyperplane separates far more evenly than whatever the last mistake left (Freund and Schapire 1999).
    bias : bool
        Whether b is learnt, as the weight of an input that is always 1; otherwise it is 0.
    max_epochs : int or None
        Passes over the examples at most; ``fit`` warns where they end it. None sets no limit, and ``fit`` refuses it
        (InvalidValueError) for classes that no hyperplane separates.
    shuffle : bool
        Whether each epoch has an order of its own; False keeps the order of X.
    seed : int
        Draws the orders.

    Attributes
    ----------
    converged_ : bool
        Whether the last epoch had no mistake. That holds for the last w and b, not for their averages.
    mistakes_ : int
        Updates in all.
    history_ : dict of str to list
        ``"mistakes"``: the mistakes of each epoch.
    coef_, intercept_, classes_, n_iter_, n_features_in_, feature_names_in_
        See :class:`gpunet.classic.binary_classifier.LinearClassifier`.

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

    averaged: bool = parameter(False, check_flag)
    bias: bool = parameter(True, check_flag)
    max_epochs: int | None = parameter(1000, check_integer, minimum=1, optional=True)
    shuffle: bool = parameter(True, check_flag)
    seed: int = parameter(0, check_seed)

    _measure = "mistakes"

    def _inputs(self, features: Array, signs: Array) -> Array:
        """Return the p_i, (n, m), whose products w . p_i neither overflow nor fade; or raise."""
        examples = super()._inputs(features, signs) * signs[:, np.newaxis]
        largest = float(np.abs(examples).max())
        if 0 < largest < _SMALLEST_LENGTH:
            raise InvalidValueError(
                f"X: no number is larger than {largest:g}, and squares of such numbers are 0. Expected at least "
                f"{_SMALLEST_LENGTH:g}: scale the features."
            )
        return examples

    def _new_rule(self, inputs: Array) -> PerceptronRule:
        if self.max_epochs is None and not signed_separation(inputs).is_separable:
            raise InvalidValueError(
                "max_epochs: None sets no limit, but no hyperplane separates the classes: the rule would never stop. "
                "Expected a number of epochs."
            )
        return self._empty_rule(inputs.shape[1])

    def _empty_rule(self, weights: int) -> PerceptronRule:
        return PerceptronRule(weights)

    def _resumed_rule(self, given: Self) -> PerceptronRule:
        if given.bias != (len(self._rule.weights) > self.n_features_in_):
            raise InvalidValueError(f"bias: got {given.bias}. Expected {not given.bias}, as before; fit learns anew.")
        return copy.deepcopy(self._rule)

    def _adopt(self, rule: PerceptronRule, history: list[float]) -> None:
        super()._adopt(rule, history)
        self._rule = rule
        self._set_weights(rule.averaged_weights if self.averaged else rule.weights)
        self.mistakes_ = rule.mistakes
        self.converged_ = history[-1] == 0

    def _advice(self, history: list[float]) -> str:
        if history[-1] == 0:
            return ""
        return (
            f"{counted(int(history[-1]), 'mistake')} in the last of {counted(len(history), 'epoch')}. More epochs "
            "help only if a hyperplane separates the classes; averaged=True helps also otherwise."
        )


def perceptron_loss(signs: npt.ArrayLike, scores: npt.ArrayLike) -> Array:
    """Return the perceptron loss of each example, max(0, -y s) for its score s = w^T x + b.

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
