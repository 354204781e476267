"""scikit-learn's own tests of an estimator, all of them: none is expected to fail."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from sklearn.datasets import make_blobs
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

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

with warnings.catch_warnings():
    # That they are no subclasses of scikit-learn's BaseEstimator.
    warnings.filterwarnings("ignore", "Estimator .* does not inherit", UserWarning)
    each_with_every_check = parametrize_with_checks(ESTIMATORS)


@each_with_every_check
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
