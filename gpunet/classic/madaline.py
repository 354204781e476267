"""Madaline (lecture row L11): a layer of ADALINEs and one above it, trained by Madaline Rule II."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.classic.estimator import BinaryClassifier, check_moderate, encode_two_classes
from gpunet.errors import ConvergenceWarning, InvalidValueError, unknown_name
from gpunet.random import Purpose, host_generator
from gpunet.validation import check_features, check_flag, check_integer, check_number

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]

_FIRST_BLOCK = 8
_MOST_TRIALS = 100_000


class Madaline(BinaryClassifier):
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
        Passes over the examples at most.
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
    n_iter_ : int
        Epochs done.
    history_ : dict of str to list
        ``"errors"``: the examples of each epoch that were wrong when their turn came.
    classes_, n_features_in_
        See :class:`gpunet.classic.estimator.BinaryClassifier`.

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

    def __init__(
        self,
        *,
        hidden_units: int = 5,
        output: str = "adaptive",
        learning_rate: float = 0.1,
        max_flips: int = 3,
        max_epochs: int = 100,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        self.hidden_units = hidden_units
        self.output = output
        self.learning_rate = learning_rate
        self.max_flips = max_flips
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
            Not exactly two classes, a number in X above 1e140, or a parameter out of its range.
        """
        self._check_parameters()
        features = check_features("X", X, None, np.float64)
        check_moderate("X", features)
        classes, signs = encode_two_classes("y", y, len(features))
        inputs = np.column_stack([features, np.ones(len(features))])

        rule = MadalineRule(
            *self._initial_weights(inputs.shape[1]),
            learning_rate=self.learning_rate,
            max_flips=min(self.max_flips, self.hidden_units),
            adapt_output=self.output == "adaptive",
        )
        errors: list[int] = []
        while (not errors or errors[-1] > 0) and len(errors) < self.max_epochs:
            order = np.arange(len(inputs))
            if self.shuffle:
                host_generator(self.seed, Purpose.SHUFFLE, len(errors)).shuffle(order)
            errors.append(rule.learn_epoch(inputs[order], signs[order]))

        self.n_features_in_, self.classes_ = features.shape[1], classes
        self.hidden_coef_, self.hidden_intercept_ = rule.hidden[:, :-1].copy(), rule.hidden[:, -1].copy()
        self.output_coef_, self.output_intercept_ = rule.output[:-1].copy(), float(rule.output[-1])
        self.converged_ = errors[-1] == 0
        self.n_iter_ = len(errors)
        self.history_: dict[str, list[int]] = {"errors": errors}
        if not self.converged_:
            warnings.warn(
                f"Madaline: {errors[-1]} errors in the last of {len(errors)} epochs. Another seed, more hidden units "
                "or more epochs may help.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def hidden_outputs(self, X: npt.ArrayLike) -> Array:
        """Return the hidden units' outputs, -1.0 or +1.0, float64 (n, hidden units).

        Raises
        ------
        NotFittedError
            ``fit`` has not been called.
        ShapeError, InvalidTypeError, NonFiniteError, InvalidValueError
            X does not fit the estimator, or has numbers above 1e140.
        """
        features = self._fitted_features("hidden_outputs", X)
        return _sign(features @ self.hidden_coef_.T + self.hidden_intercept_)

    def decision_function(self, X: npt.ArrayLike) -> Array:
        self._require_fitted("decision_function")
        return self.hidden_outputs(X) @ self.output_coef_ + self.output_intercept_

    def _check_parameters(self) -> None:
        units = check_integer("hidden_units", self.hidden_units, 1)
        if self.output not in ("adaptive", "majority"):
            raise unknown_name("output", self.output, ("adaptive", "majority"))
        if self.output == "majority" and units % 2 == 0:
            raise InvalidValueError(f"hidden_units: {units} units can tie. Expected an odd number for a majority.")
        check_number("learning_rate", self.learning_rate, above=True, maximum=1.0)
        flips = min(check_integer("max_flips", self.max_flips, 1), units)
        trials = sum(math.comb(units, count) for count in range(1, flips + 1))
        if trials > _MOST_TRIALS:
            raise InvalidValueError(
                f"max_flips: {self.max_flips} flips of {units} hidden units are {trials} trials for an example. "
                f"Expected at most {_MOST_TRIALS}."
            )
        check_integer("max_epochs", self.max_epochs, 1)
        check_flag("shuffle", self.shuffle)
        check_integer("seed", self.seed, 0, 2**64 - 1)

    def _initial_weights(self, inputs: int) -> tuple[Array, Array]:
        """Return the hidden units' (w_j, b_j), (hidden units, inputs), and the output unit's (v, c)."""
        units = self.hidden_units
        hidden = host_generator(self.seed, Purpose.WEIGHTS, 1).uniform(-1, 1, (units, inputs)) / math.sqrt(inputs)
        output = np.append(np.ones(units), 0.0)
        if self.output == "adaptive":
            output[:-1] = host_generator(self.seed, Purpose.WEIGHTS, 2).uniform(-1, 1, units) / math.sqrt(units)
        return hidden, output


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

    def learn_epoch(self, inputs: Array, signs: Array) -> int:
        """Present the rows (x, 1) of ``inputs``, in order, and return how many were classified wrongly."""
        errors = start = 0
        block = _FIRST_BLOCK
        while start < len(inputs):
            # Weights change at errors only: look for the next one in blocks, larger ones where errors are rare.
            rows = slice(start, start + block)
            wrong = self._scores(_sign(inputs[rows] @ self.hidden.T)) * signs[rows] <= 0
            first = int(wrong.argmax())
            if not wrong[first]:
                start += block
                block *= 2
                continue
            start += first
            self._adapt(inputs[start], float(signs[start]))
            errors += 1
            start += 1
            block = _FIRST_BLOCK
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


def _sign(scores: Array) -> Array:
    """Return +1 where a score is above 0, else -1."""
    return np.where(scores > 0, 1.0, -1.0)
