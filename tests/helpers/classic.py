"""One small estimator of each kind of gpunet.classic, and data that each of them takes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

import gpunet
from gpunet.classic import (
    Adaline,
    Autoencoder,
    DeltaRule,
    Madaline,
    Perceptron,
    PretrainedClassifier,
    RestrictedBoltzmannMachine,
)

X = np.random.default_rng(0).random((24, 3))
Y = (X[:, 0] + X[:, 1] > 1).astype(int)
SMALL: dict[type, dict[str, Any]] = {
    Perceptron: {},
    Adaline: {"learning_rate": 0.1, "epochs": 5},
    Madaline: {"hidden_units": 3, "max_epochs": 5},
    DeltaRule: {"epochs": 2, "device": "cpu"},
    RestrictedBoltzmannMachine: {"n_components": 4, "epochs": 1, "device": "cpu"},
    Autoencoder: {"hidden_layer_sizes": (4, 2), "pretraining_epochs": 1, "epochs": 1, "device": "cpu"},
    PretrainedClassifier: {"hidden_layer_sizes": (4,), "pretraining_epochs": 1, "epochs": 1, "device": "cpu"},
}
KINDS = list(SMALL)
# Every method that takes X; those of the second list take y too, where the estimator learns from it.
METHODS = [
    *["predict", "predict_proba", "decision_function", "hidden_outputs", "transform", "reconstruct"],
    *["reconstruction_error", "free_energy", "score_samples", "gibbs", "inverse_transform"],
]
METHODS_WITH_TARGETS = ["fit", "partial_fit", "score"]


def small(kind: type, **parameters: Any) -> Any:
    """An estimator that learns at once."""
    return kind(**{**SMALL[kind], **parameters})


def fit_quietly(model: Any, X: Any, y: Any) -> Any:
    """Fit, whether or not the limit of epochs ends it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gpunet.ConvergenceWarning)
        return model.fit(X, y)


def has_targets(kind: type) -> bool:
    """Whether an estimator learns from targets."""
    return kind not in (RestrictedBoltzmannMachine, Autoencoder)


def same_state(model: Any, before: dict[str, Any]) -> bool:
    """Whether an estimator's attributes are the very objects that they were."""
    now = vars(model)
    return now.keys() == before.keys() and all(value is before[name] for name, value in now.items())
