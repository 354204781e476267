"""scikit-learn's own tests of an estimator, all of them: none is expected to fail."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from sklearn.datasets import make_blobs
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from gpunet import classic
from gpunet.classic import (
    Adaline,
    Autoencoder,
    DeltaRule,
    Madaline,
    Perceptron,
    PretrainedClassifier,
    RestrictedBoltzmannMachine,
)
from gpunet.classic.estimator import Estimator

pytestmark = pytest.mark.filterwarnings("ignore")  # scikit-learn's own suites warn on purpose

ESTIMATORS = [
    Perceptron(),
    Adaline(),
    Madaline(),
    DeltaRule(epochs=5, device="cpu"),
    RestrictedBoltzmannMachine(n_components=8, device="cpu"),
    Autoencoder(hidden_layer_sizes=(8, 2), device="cpu"),
    PretrainedClassifier(hidden_layer_sizes=(16,), device="cpu"),
]


def every_check() -> list[Any]:
    """Every estimator with each of scikit-learn's checks."""
    with warnings.catch_warnings():
        # That they are no subclasses of scikit-learn's BaseEstimator.
        warnings.filterwarnings("ignore", "Estimator .* does not inherit", UserWarning)
        return [
            pytest.param(checked, check, id=f"{type(checked).__name__}-{check.func.__name__}")
            for estimator in ESTIMATORS
            for checked, check in estimator_checks_generator(estimator)
        ]


@pytest.mark.parametrize(("estimator", "check"), every_check())
def test_scikit_learn_finds_nothing(estimator: Any, check: Any) -> None:
    check(estimator)


def test_a_pretrained_classifier_reaches_the_score_that_its_tags_do_not_promise() -> None:
    """The tag is for the default of 256 units: on the same data, 16 of them do what the check asks of others."""
    X, y = make_blobs(n_samples=300, random_state=0)
    X = StandardScaler().fit_transform(X)
    assert PretrainedClassifier(hidden_layer_sizes=(16,), device="cpu").fit(X, y).score(X, y) > 0.83


def test_every_estimator_is_checked() -> None:
    public = [getattr(classic, name) for name in classic.__all__]
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Estimator)}
    assert set(map(type, ESTIMATORS)) == kinds
