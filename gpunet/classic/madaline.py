"""Madaline (lecture row L11): a layer of ADALINEs and one above it, trained by Madaline Rule II."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.classic.binary_classifier import BinaryClassifier
from gpunet.classic.epochs import mistakes
from gpunet.classic.estimator import after_fit, check_name, check_seed, parameter
from gpunet.errors import InvalidValueError, counted
from gpunet.random import Purpose, host_generator
from gpunet.validation import LARGEST_SIZE, check_flag, check_integer, check_number

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]

_MOST_TRIALS = 100_000


class MadalineRule:
    """Madaline Rule II on two layers of weights.

    Parameters
    ----------
    hidden : ndarray, (m, d + 1)
        Rows (w_j, b_j); changed in place.
    output : ndarray, (m + 1,)
        (v, c); changed in place where ``adapt_output``.
    learning_rate : float
        alpha.
    max_flips : int
        At most m.
    adapt_output : bool
    """

    def __init__(
        self, hidden: Array, output: Array, *, learning_rate: float, max_flips: int, adapt_output: bool
    ) -> None:
        self.hidden = hidden
        self.output = output
        self.learning_rate = learning_rate
        self.adapt_output = adapt_output
        units = range(len(hidden))
        # One array for each number of flips: a row for each trial, the units that it flips.
        self._trials = [np.array(list(itertools.combinations(units, count))) for count in range(1, max_flips + 1)]

    def learn_epoch(self, inputs: Array, signs: Array, order: Array | slice = slice(None)) -> int:
        """Present the rows (x, 1) of ``inputs`` and return how many were classified wrongly."""
        inputs, signs = inputs[order], signs[order]

        def is_wrong(rows: slice) -> Array:
            return self._scores(_sign(inputs[rows] @ self.hidden.T)) * signs[rows] <= 0

        errors = 0
        for row in mistakes(len(inputs), is_wrong):
            self._adapt(inputs[row], float(signs[row]))
            errors += 1
        return errors

    def _scores(self, hidden_outputs: Array) -> Array:
        return hidden_outputs @ self.output[:-1] + self.output[-1]

    def _adapt(self, x: Array, sign: float) -> None:
        """Learn from an example (x, 1) that is classified wrongly."""
        scores = self.hidden @ x
        outputs = _sign(scores)
        for unit in self._smallest_flip(scores, outputs, sign):
            error = -outputs[unit] - scores[unit]
            self.hidden[unit] += self.learning_rate * error * x / (x @ x)
        if not self.adapt_output:
            return
        reached = np.append(_sign(self.hidden @ x), 1.0)
        score = float(reached @ self.output)
        if score * sign <= 0:
            self.output += self.learning_rate * (sign - score) * reached / len(reached)

    def _smallest_flip(self, scores: Array, outputs: Array, sign: float) -> Array:
        """Return the units of the least disturbing trial that makes the network's output right; none if none does."""
        score = self._scores(outputs)
        for trials in self._trials:
            flipped_scores = score - 2 * (self.output[:-1] * outputs)[trials].sum(axis=1)
            disturbance = np.where(flipped_scores * sign > 0, np.abs(scores)[trials].sum(axis=1), np.inf)
            best = int(disturbance.argmin())
            if np.isfinite(disturbance[best]):
                return trials[best]
        return np.empty(0, np.intp)


@dataclass(kw_only=True, eq=False, repr=False)
class Madaline(BinaryClassifier[MadalineRule]):
    """A three-layer network of ADALINEs, inputs, hidden units and one output unit, for two classes.

    A hidden unit j has the score s_j = w_j . x + b_j and the output h_j = +1 where s_j > 0 and -1 otherwise. The output
    unit scores v . h + c; above 0 stands for ``classes_[1]``. A step function has no useful derivative, so that no
    gradient reaches the hidden units. Madaline Rule II disturbs as little as possible instead. Where an example is
    classified wrongly, it flips hidden outputs on trial: single ones first, then pairs, and so on, and among as many
    always those whose scores are closest to 0. The first trial that makes the network's output right is kept: each of
    its units moves towards the flipped output by the alpha-LMS rule

        w <- w + alpha (target - s) (x, 1) / ||(x, 1)||^2,

    which changes its score by the fraction alpha of what is missing. If the output is wrong still, the output unit
    takes such a step towards the example's own -1 or +1. Training ends with the first epoch without an error; nothing
    guarantees that there is one, and another seed may do better.

    Each update decides what the next one is, so the rule is sequential: it runs with NumPy on the host.

    Parameters
    ----------
    hidden_units : int
    output : str
        ``"adaptive"``: v and c are learnt. ``"majority"``: v = 1 and c = 0, a vote of an odd number of units.
    learning_rate : float
        alpha, above 0 and at most 1.
    max_flips : int
        The most hidden outputs flipped in one trial.
    max_epochs : int
        Passes over the examples at most; ``fit`` warns where they end it.
    shuffle : bool
        Whether each epoch has an order of its own; False keeps the order of X.
    seed : int
        Draws the initial weights, uniform in +-1 / sqrt(inputs + 1) and +-1 / sqrt(hidden units), and the orders.

    Attributes
    ----------
    hidden_coef_ : ndarray, (hidden units, d)
        The w_j.
    hidden_intercept_ : ndarray, (hidden units,)
        The b_j.
    output_coef_ : ndarray, (hidden units,)
        v.
    output_intercept_ : float
        c.
    converged_ : bool
        Whether the last epoch had no error, so that all examples are classified rightly.
    history_ : dict of str to list
        ``"errors"``: the examples of each epoch that were wrong when their turn came.
    classes_, n_iter_, n_features_in_, feature_names_in_
        See :class:`gpunet.classic.binary_classifier.BinaryClassifier`.

    References
    ----------
    Winter and Widrow 1988, "Madaline Rule II: a training algorithm for neural networks". Widrow and Lehr 1990, "30
    years of adaptive neural networks: perceptron, Madaline, and backpropagation".

    Examples
    --------
    >>> X, y = [[-1, -1], [-1, 1], [1, -1], [1, 1]], [0, 1, 1, 0]
    >>> Madaline(hidden_units=3).fit(X, y).predict(X).tolist()
    [0, 1, 1, 0]
    """

    hidden_units: int = parameter(5, check_integer, minimum=1, maximum=LARGEST_SIZE)
    output: str = parameter("adaptive", check_name, names=("adaptive", "majority"))
    learning_rate: float = parameter(0.1, check_number, above=True, maximum=1.0)
    max_flips: int = parameter(3, check_integer, minimum=1)
    max_epochs: int = parameter(100, check_integer, minimum=1)
    shuffle: bool = parameter(True, check_flag)
    seed: int = parameter(0, check_seed)

    _measure = "errors"

    @after_fit
    def hidden_outputs(self, X: npt.ArrayLike) -> Array:
        """Return the hidden units' outputs, -1.0 or +1.0, float64 (n, hidden units)."""
        return _sign(self._fitted_features(X) @ self.hidden_coef_.T + self.hidden_intercept_)

    @after_fit
    def decision_function(self, X: npt.ArrayLike) -> Array:
        return self.hidden_outputs(X) @ self.output_coef_ + self.output_intercept_

    def _checked_parameters(self) -> Self:
        given = super()._checked_parameters()
        units = given.hidden_units
        if given.output == "majority" and units % 2 == 0:
            raise InvalidValueError(f"hidden_units: {units} units can tie. Expected an odd number for a majority.")
        trials = sum(math.comb(units, count) for count in range(1, min(given.max_flips, units) + 1))
        if trials > _MOST_TRIALS:
            raise InvalidValueError(
                f"max_flips: {given.max_flips} flips of {units} hidden units are {trials} trials for an example. "
                f"Expected at most {_MOST_TRIALS}."
            )
        return given

    def _new_rule(self, inputs: Array) -> MadalineRule:
        return MadalineRule(
            *self._initial_weights(inputs.shape[1]),
            learning_rate=self.learning_rate,
            max_flips=min(self.max_flips, self.hidden_units),
            adapt_output=self.output == "adaptive",
        )

    def _adopt(self, rule: MadalineRule, history: list[float]) -> None:
        super()._adopt(rule, history)
        self.hidden_coef_, self.hidden_intercept_ = rule.hidden[:, :-1].copy(), rule.hidden[:, -1].copy()
        self.output_coef_, self.output_intercept_ = rule.output[:-1].copy(), float(rule.output[-1])
        self.converged_ = history[-1] == 0

    def _advice(self, history: list[float]) -> str:
        if history[-1] == 0:
            return ""
        return (
            f"{counted(int(history[-1]), 'error')} in the last of {counted(len(history), 'epoch')}. Another seed, more "
            "hidden units or more epochs may help."
        )

    def _initial_weights(self, inputs: int) -> tuple[Array, Array]:
        """Return the hidden units' (w_j, b_j), (hidden units, inputs), and the output unit's (v, c)."""
        units = self.hidden_units
        hidden = host_generator(self.seed, Purpose.WEIGHTS, 1).uniform(-1, 1, (units, inputs)) / math.sqrt(inputs)
        output = np.append(np.ones(units), 0.0)
        if self.output == "adaptive":
            output[:-1] = host_generator(self.seed, Purpose.WEIGHTS, 2).uniform(-1, 1, units) / math.sqrt(units)
        return hidden, output


def _sign(scores: Array) -> Array:
    """Return +1 where a score is above 0, else -1."""
    return np.where(scores > 0, 1.0, -1.0)
