"""Classifiers for two classes that learn epoch by epoch: the one loop, and what is the same around it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from gpunet.classic.epochs import epoch_orders
from gpunet.classic.estimator import Estimator, after_fit, learns
from gpunet.classic.inputs import check_moderate, encode_two_classes, share_right
from gpunet.errors import ConvergenceWarning, InvalidValueError, warn_user

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]


class EpochRule(Protocol):
    """A learning rule with its weights."""

    def learn_epoch(self, inputs: Array, signs: Array, order: Array | slice = ...) -> float:
        """Learn from the rows, in an order, and return how bad the epoch was; 0 where there was nothing to learn."""


Rule = TypeVar("Rule", bound=EpochRule)


class BinaryClassifier(Estimator, ABC, Generic[Rule]):
    """A classifier for two classes that decides by the sign of a score, and learns by a rule, epoch by epoch.

    Attributes
    ----------
    classes_ : ndarray, (2,)
        The two labels that ``fit`` was given, sorted; ``classes_[1]`` is +1 inside.
    n_iter_ : int
        Epochs done.
    history_ : dict of str to list
        What the rule says of each epoch.
    """

    _estimator_type: ClassVar[str | None] = "classifier"
    _measure: ClassVar[str]  # the name in history_
    _stops: ClassVar[bool] = True  # whether an epoch with nothing to learn is the last one

    max_epochs: int | None
    shuffle: bool
    seed: int

    classes_: Array
    n_iter_: int
    history_: dict[str, list[Any]]

    @learns
    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Learn from scratch; warn (ConvergenceWarning) where the last epoch left much to learn.

        Parameters
        ----------
        X : array_like, (n, d)
            Numbers of at most 1e140.
        y : array_like, (n,)
            Two different labels. One column of them, (n, 1), is taken with a warning, here and in every other method.

        Returns
        -------
        self
        """
        given = self._checked_parameters()
        features, names = given._new_features(X)
        classes, signs = encode_two_classes("y", y, len(features))
        inputs = given._inputs(features, signs)
        rule = given._new_rule(inputs)
        history: list[float] = []
        for order in given._orders(len(inputs)):
            history.append(rule.learn_epoch(inputs, signs, order))
            if given._stops and history[-1] == 0:
                break
        self._set_columns(features.shape[1], names)
        self.classes_ = classes
        self._adopt(rule, history)
        advice = given._advice(history)
        if advice:
            warn_user(f"{type(self).__name__}: {advice}", ConvergenceWarning)
        return self

    @after_fit
    @abstractmethod
    def decision_function(self, X: npt.ArrayLike) -> Array:
        """Return the score of each row, float64 (n,); above 0 stands for ``classes_[1]``."""

    @after_fit
    def predict(self, X: npt.ArrayLike) -> Array:
        """Return the label of each row, (n,)."""
        return self.classes_[(self.decision_function(X) > 0).astype(np.intp)]

    @after_fit
    def score(self, X: npt.ArrayLike, y: npt.ArrayLike) -> float:
        """Return the fraction of rows whose label is predicted."""
        return share_right(self.predict(X), y)

    def _fitted_features(self, X: npt.ArrayLike) -> Array:
        """Return X as a finite float64 array (n, n_features_in_) of moderate numbers, or raise."""
        features = super()._fitted_features(X)
        check_moderate("X", features)
        return features

    def _inputs(self, features: Array, signs: Array) -> Array:
        """Return what the rule is shown, the (x, 1), or raise where its squares overflow."""
        check_moderate("X", features)
        return np.column_stack([features, np.ones(len(features))])

    @abstractmethod
    def _new_rule(self, inputs: Array) -> Rule:
        """Return the rule with its initial weights; raise where it cannot learn these inputs."""

    def _orders(self, rows: int) -> Iterator[Array]:
        """Yield the order of the rows in each epoch."""
        return epoch_orders(rows, self.max_epochs, seed=self.seed, shuffle=self.shuffle)

    def _adopt(self, rule: Rule, history: list[float]) -> None:
        """Set the attributes that say what was learnt."""
        self.n_iter_ = len(history)
        self.history_ = {self._measure: history}

    @abstractmethod
    def _advice(self, history: list[float]) -> str:
        """Return what to warn of at the end; an empty text where all is well."""


class LinearClassifier(BinaryClassifier[Rule]):
    """A classifier whose score is w . x + b, and which can go on learning from more examples.

    Attributes
    ----------
    coef_ : ndarray, (d,)
        w.
    intercept_ : float
        b.
    """

    bias: bool

    coef_: Array
    intercept_: float

    @learns
    def partial_fit(self, X: npt.ArrayLike, y: npt.ArrayLike, classes: npt.ArrayLike | None = None) -> Self:
        """Go over the rows once, in their order, from where learning stands.

        What ``fit`` refuses because the rule would not end well is not refused here, since more examples may follow.

        Parameters
        ----------
        X : array_like, (n, d)
            With the columns of the first call.
        y : array_like, (n,)
        classes : array_like, (2,), or None
            Both labels; needed by the first call, where ``y`` may hold only one of them.

        Returns
        -------
        self
        """
        given = self._checked_parameters()
        is_fitted = self.__sklearn_is_fitted__()
        features, names = (self._fitted_features(X), None) if is_fitted else given._new_features(X)
        known = self.classes_ if is_fitted else None
        if classes is not None:
            settled, _ = encode_two_classes("classes", classes, 2)
            if known is not None and not np.array_equal(settled, known):
                raise InvalidValueError(f"classes: got {settled.tolist()}. Expected {known.tolist()}, as before.")
            known = settled
        known, signs = encode_two_classes("y", y, len(features), known)
        inputs = given._inputs(features, signs)
        rule = self._resumed_rule(given) if is_fitted else given._empty_rule(inputs.shape[1])
        measure = rule.learn_epoch(inputs, signs)
        history = self.history_[self._measure] if is_fitted else []
        history.append(measure)
        if not is_fitted:
            self._set_columns(features.shape[1], names)
        self.classes_ = known
        self._adopt(rule, history)
        return self

    @after_fit
    def decision_function(self, X: npt.ArrayLike) -> Array:
        return self._fitted_features(X) @ self.coef_ + self.intercept_

    def _inputs(self, features: Array, signs: Array) -> Array:
        if self.bias:
            return super()._inputs(features, signs)
        check_moderate("X", features)
        return features

    @abstractmethod
    def _empty_rule(self, weights: int) -> Rule:
        """Return the rule with weights of zero."""

    @abstractmethod
    def _resumed_rule(self, given: Self) -> Rule:
        """Return the rule with the weights that learning has reached, and the parameters ``given``."""

    def _set_weights(self, weights: Array) -> None:
        """Take w and b out of the weights of the (x, 1), or of the x."""
        self.coef_ = weights[: self.n_features_in_].copy()
        self.intercept_ = float(weights[-1]) if self.bias else 0.0
