"""Networks as fitted estimators of scikit-learn, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import gpunet
from tests.helpers.whole_models import CASES

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])
PROBLEMS: dict[str, tuple[Any, Any]] = {
    "classes": (X_IRIS, NAMES[Y_IRIS]),
    "two classes": (X_IRIS, Y_IRIS == 2),
    "labels": make_multilabel_classification(60, n_features=7, n_classes=3, random_state=0),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_a_classifier_there_and_back(problem: str, activation: str) -> None:
    X, y = PROBLEMS[problem]
    theirs = MLPClassifier((5, 3), activation=activation, max_iter=3, random_state=0).fit(X, y)
    network = gpunet.from_sklearn(theirs, device="cpu")
    found = network.predict_proba(X)
    np.testing.assert_allclose(found, theirs.predict_proba(X), rtol=1e-12, atol=1e-14)
    if network.is_classifier:
        np.testing.assert_array_equal(network.predict(X), theirs.predict(X))
    back = gpunet.to_sklearn(network)
    np.testing.assert_allclose(back.predict_proba(X), theirs.predict_proba(X), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(back.predict(X), theirs.predict(X))


@pytest.mark.parametrize("targets", [1, 2])
def test_a_regressor_there_and_back(targets: int) -> None:
    X, y = load_diabetes(return_X_y=True)
    y = y if targets == 1 else np.column_stack([y, -y])
    theirs = MLPRegressor(hidden_layer_sizes=(5,), max_iter=3, random_state=0).fit(X, y)
    network = gpunet.from_sklearn(theirs, device="cpu")
    np.testing.assert_allclose(network.predict(X), theirs.predict(X), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(gpunet.to_sklearn(network).predict(X), theirs.predict(X), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("given", [{}, {"with_mean": False}, {"with_std": False}], ids=str)
def test_a_pipeline_is_taken_with_its_scaler(given: dict[str, bool]) -> None:
    X = X_IRIS * [1, 1e3, 1e-3, 10] + [2013, 0, 5, -1e4]
    theirs = make_pipeline(StandardScaler(**given), StandardScaler(), MLPClassifier((5,), max_iter=3)).fit(
        X, NAMES[Y_IRIS]
    )
    network = gpunet.from_sklearn(theirs, device="cpu")
    np.testing.assert_allclose(network.predict_proba(X), theirs.predict_proba(X), rtol=1e-9)
    np.testing.assert_array_equal(network.predict(X), theirs.predict(X))


def test_what_scikit_learn_has_not_is_refused() -> None:
    with pytest.raises(gpunet.InvalidValueError, match="batch norm"):
        gpunet.to_sklearn(gpunet.Network([4, 5, 3], device="cpu"))
    with pytest.raises(gpunet.InvalidValueError, match="gelu"):
        gpunet.to_sklearn(gpunet.Network([4, 5, 3], activation="gelu", batch_norm=False, device="cpu"))
    for classes in (["b", "a", "b"], ["a", "b"]):
        with pytest.raises(gpunet.ShapeError, match="3 labels, each once"):
            gpunet.to_sklearn(gpunet.Network([4, 3], device="cpu"), classes=classes)
    for scaler in (MinMaxScaler(), StandardScaler()):
        with pytest.raises(gpunet.InvalidTypeError, match=r"before the network\. Expected a fitted StandardScaler"):
            gpunet.from_sklearn(make_pipeline(scaler, MLPClassifier(max_iter=1).fit(X_IRIS, Y_IRIS)))
    for estimator in (
        MLPClassifier(),
        3,
        gpunet.Network([4, 3], device="cpu"),
        make_pipeline(StandardScaler(), MLPClassifier()),
    ):
        with pytest.raises(gpunet.InvalidTypeError, match="fitted MLPClassifier"):
            gpunet.from_sklearn(estimator)


@pytest.mark.parametrize("case", CASES)
def test_a_model_of_raw_rows_keeps_its_scaling(case: str) -> None:
    """It was lost: ``to_sklearn(estimator.network_)`` takes what the estimator's own ``StandardScaler`` makes."""
    model, X, answers, probabilities = CASES[case](batch_norm=False)
    theirs = gpunet.to_sklearn(model)
    expected = ["imputation1", "scaling2"] if case == "missing values" else ["scaling1"]
    assert [name for name, _ in theirs.steps] == [*expected, "network"]
    X = pd.DataFrame(X, columns=getattr(theirs[0], "feature_names_in_", None))
    if case == "missing values":
        with pytest.raises(gpunet.InvalidTypeError, match=r"got SimpleImputer before .*estimator\[-1\]"):
            gpunet.from_sklearn(theirs)
    else:
        back, method = (
            gpunet.from_sklearn(theirs, device="cpu"),
            "predict" if probabilities is None else "predict_proba",
        )
        found, expected = (getattr(one, method)(X) for one in (back, theirs))
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10 * np.ptp(expected))
        again = gpunet.to_sklearn(back)
        np.testing.assert_allclose(
            getattr(again, method)(np.asarray(X)), expected, rtol=1e-7, atol=1e-10 * np.ptp(expected)
        )
    if probabilities is None:
        np.testing.assert_allclose(theirs.predict(X), answers, rtol=1e-6, atol=1e-6 * np.ptp(answers))
        return
    np.testing.assert_array_equal(theirs.predict(X), answers)
    order = [list(classes_of(model)).index(one) for one in theirs.classes_] if answers.ndim == 1 else slice(None)
    np.testing.assert_allclose(theirs.predict_proba(X), probabilities[:, order], rtol=0, atol=1e-6)


def classes_of(model: Any) -> Any:
    return gpunet.data.class_names(model) if isinstance(model, gpunet.Network) else model.classes_


def test_the_network_alone_when_asked() -> None:
    model, X, _, probabilities = CASES["text"]()
    theirs = gpunet.to_sklearn(model, classes=["a", "b", "ü"], bare=True)
    inputs = (X - X.mean(axis=0)) / X.std(axis=0)
    np.testing.assert_allclose(theirs.predict_proba(inputs), probabilities, rtol=0, atol=1e-6)


def test_the_names_of_columns_come_along() -> None:
    model, X, answers, _ = CASES["trained classifier"](batch_norm=False)
    frame = pd.DataFrame(X, columns=gpunet.to_sklearn(model)[0].feature_names_in_)
    np.testing.assert_array_equal(gpunet.to_sklearn(model).predict(frame), answers)
    with pytest.raises(ValueError, match="feature names should match"):
        gpunet.to_sklearn(model).predict(frame.rename(columns={"column 0": "year"}))
