"""scikit-learn's MLPClassifier."""

from __future__ import annotations

import itertools
import warnings
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from benchmarks.cases import NETWORK, Case
from benchmarks.problem import LEARNING_RATE, MOMENTUM, Problem
from benchmarks.providers.base import Outputs, Provider, Work, as_host
from benchmarks.providers.common import (
    ADAM_BETA_1,
    ADAM_BETA_2,
    ADAM_EPSILON_BEFORE_CORRECTION,
    as_logits,
    first_refusal,
    missing_package,
    refuse_on_cpu,
    refuse_unknown,
)
from gpunet.activations import get_activation

Array = npt.NDArray[Any]

_ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic", "identity": "identity"}


class _ClassifierWork(Work):
    """``predict_proba`` or ``partial_fit`` of a classifier with the problem's parameters."""

    def __init__(self, case: Case, problem: Problem) -> None:
        self.problem = problem
        self.model = new_model(case, problem)
        self.turn = itertools.cycle(problem.batches)

    def once(self, X: Array, y: Array) -> None:
        """Train on data."""
        self.model.partial_fit(X, y)

    def run(self, repeats: int) -> None:
        once = self.once
        for X, y in itertools.islice(self.turn, repeats):
            once(X, y)

    def parameters(self) -> Outputs:
        """Return the parameters as they are now."""
        model = self.model
        weights = {f"W{index}": as_host(values.T) for index, values in enumerate(model.coefs_, start=1)}
        return weights | {f"b{index}": as_host(values) for index, values in enumerate(model.intercepts_, start=1)}


class _Forward(_ClassifierWork):
    """``predict_proba``: probabilities, since scikit-learn has no way to stop before them."""

    def once(self, X: Array, y: Array) -> None:
        self.model.predict_proba(X)

    def outputs(self) -> Outputs:
        return {"logits": as_logits(np.log(self.model.predict_proba(self.problem.batches[0][0])))}


class _Step(_ClassifierWork):
    """``partial_fit`` on one batch, its checks included."""

    def outputs(self) -> Outputs:
        for X, y in self.problem.batches[: self.problem.checked_steps]:
            self.once(X, y)
        return self.parameters()


class _Epoch(_ClassifierWork):
    """``partial_fit`` on the whole data set, which goes through it once, in batches."""

    def outputs(self) -> Outputs:
        self.model.shuffle = False
        self.once(*self.problem.batches[0])
        self.model.shuffle = True
        return self.parameters()


_WORK: dict[str, type[_ClassifierWork]] = {"forward": _Forward, "step": _Step, "epoch": _Epoch}


class Sklearn(Provider):
    """``MLPClassifier`` without its L2 term."""

    name: ClassVar[str] = "sklearn"
    label: ClassVar[str] = "scikit-learn"

    def missing(self) -> str | None:
        return missing_package("sklearn", "scikit-learn")

    def refuses(self, case: Case) -> str | None:
        return first_refusal(refuse_unknown(case), refuse_on_cpu(case), _refuse(case))

    def versions(self) -> dict[str, str]:
        import sklearn.neural_network

        return {"scikit-learn": sklearn.__version__, "numpy": np.__version__}

    def prepare(self, case: Case, problem: Problem) -> Work:
        return _WORK[case.mode](case, problem)


def _refuse(case: Case) -> str | None:
    if case.operation != NETWORK:
        return "MLPClassifier has no single operations"
    if case.batch_norm and len(case.sizes) > 2:
        return "MLPClassifier has no batch norm"
    if case.mode not in _WORK:
        return "MLPClassifier gives no gradients"
    if get_activation(case.activation).name not in _ACTIVATIONS:
        return f"MLPClassifier has no {case.activation}"
    if case.sizes[-1] < 3:
        return "MLPClassifier has one output for two classes"
    return None


def new_model(case: Case, problem: Problem) -> Any:
    """Return a classifier with the problem's parameters and an optimiser that has not stepped."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
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
    return model
