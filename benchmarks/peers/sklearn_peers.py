"""scikit-learn's MLPClassifier."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.peers.peer import Array, NetworkWork, Outputs, Peer, Work, as_host, as_logits, missing_package
from benchmarks.problem import (
    ADAM_BETA_1,
    ADAM_BETA_2,
    ADAM_EPSILON_BEFORE_CORRECTION,
    LEARNING_RATE,
    MOMENTUM,
    Problem,
)
from benchmarks.report.results import Case
from gpunet.activations import get_activation

_ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic", "identity": "identity"}


class Sklearn(Peer):
    """``MLPClassifier`` without its L2 term."""

    def missing(self) -> str | None:
        return missing_package("sklearn", "scikit-learn")

    def refuses(self, case: Case) -> str | None:
        if not case.is_network:
            return "MLPClassifier has no single operations"
        if case.batch_norm and len(case.sizes) > 2:
            return "MLPClassifier has no batch norm"
        if case.mode == "forward_backward":
            return "MLPClassifier gives no gradients"
        if get_activation(case.activation).name not in _ACTIVATIONS:
            return f"MLPClassifier has no {case.activation}"
        if case.sizes[-1] < 3:
            return "MLPClassifier has one output for two classes"
        return super().refuses(case)

    def is_worth(self, case: Case) -> bool:
        return case.is_network and case.sweep is None

    def versions(self) -> dict[str, str]:
        import sklearn.neural_network

        return {"scikit-learn": sklearn.__version__, "numpy": np.__version__}

    def prepare(self, case: Case, problem: Problem) -> Work:
        return SklearnNetwork(case, problem)


class SklearnNetwork(NetworkWork):
    """A classifier with the problem's parameters and an optimiser that has not stepped."""

    def __init__(self, case: Case, problem: Problem) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        super().__init__(case, problem)
        self.model = model = MLPClassifier(
            case.sizes[1:-1],
            activation=_ACTIVATIONS[get_activation(case.activation).name],
            solver=case.optimizer,
            alpha=0.0,
            batch_size=case.rows,
            learning_rate_init=LEARNING_RATE,
            momentum=MOMENTUM,
            nesterovs_momentum=False,
            beta_1=ADAM_BETA_1,
            beta_2=ADAM_BETA_2,
            epsilon=ADAM_EPSILON_BEFORE_CORRECTION,
            shuffle=case.mode == "epoch",
            random_state=0,
        )
        X, y = problem.batches[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            # Makes the arrays; the step that it takes is undone.
            model.partial_fit(X[: case.rows], y[: case.rows], classes=np.arange(case.sizes[-1]))
        for index, (weights, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True), start=1):
            weights[...] = problem.parameters[f"W{index}"].T
            bias[...] = problem.parameters[f"b{index}"]
        del model._optimizer  # the next call makes another one, of the same settings

    def forward(self, X: Array, y: Array) -> Array:
        """``predict_proba``: probabilities, since scikit-learn has no way to stop before them."""
        probabilities: Array = self.model.predict_proba(X)
        return probabilities

    def outputs(self) -> Outputs:
        if self.case.mode != "forward":
            return super().outputs()
        return {"logits": as_logits(np.log(as_host(self.unit(*self.batches[0]))))}

    def step(self, X: Array, y: Array) -> None:
        """``partial_fit`` on one batch, its checks included."""
        self.model.partial_fit(X, y)

    def epoch(self, X: Array, y: Array, shuffle: bool = True) -> None:
        """``partial_fit`` on the whole data set, which goes through it once, in batches."""
        self.model.shuffle = shuffle
        self.model.partial_fit(X, y)

    def parameters(self) -> Mapping[str, Any]:
        model = self.model
        weights = {f"W{index}": values.T for index, values in enumerate(model.coefs_, start=1)}
        return weights | {f"b{index}": values for index, values in enumerate(model.intercepts_, start=1)}
