"""scikit-learn's MLPClassifier as an independent oracle, without batch norm."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import hamming_loss, log_loss
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

import gpunet
from tests.helpers.networks import random_problem


def copy_weights(network: gpunet.Network, model: MLPClassifier | MLPRegressor) -> None:
    """Give the network the weights of a fitted model; scikit-learn keeps W transposed."""
    values = {}
    for index, (coefficients, intercepts) in enumerate(zip(model.coefs_, model.intercepts_, strict=True), start=1):
        values[f"W{index}"], values[f"b{index}"] = coefficients.T, intercepts
    network.set_parameters(values)


@pytest.mark.parametrize(
    ("theirs", "ours"), [("relu", "relu"), ("tanh", "tanh"), ("logistic", "sigmoid"), ("identity", "identity")]
)
def test_probabilities_equal_those_of_a_fitted_classifier(theirs, ours):
    X, y = random_problem(150, 6, 4)
    model = MLPClassifier((9, 5), activation=theirs, max_iter=5, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
    network = gpunet.Network([6, 9, 5, 4], activation=ours, batch_norm=False, dtype="float64", device="cpu")
    copy_weights(network, model)
    np.testing.assert_allclose(network.predict_proba(X), model.predict_proba(X), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(network.predict(X), model.predict(X))
    assert gpunet.evaluate(network, X, y).accuracy == pytest.approx(model.score(X, y), abs=1e-12)


def test_several_labels_per_row():
    X, _ = random_problem(150, 6, 4)
    Y = (X[:, :3] + X[:, 3:] > 0).astype(int)
    model = MLPClassifier((9,), activation="tanh", alpha=0.0, learning_rate_init=0.02, max_iter=20, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, Y)
    network = gpunet.Network(
        [6, 9, 3], activation="tanh", batch_norm=False, loss="sigmoid_cross_entropy", dtype="float64", device="cpu"
    )
    copy_weights(network, model)
    np.testing.assert_allclose(network.predict_proba(X), model.predict_proba(X), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(network.predict(X), model.predict(X))
    found = gpunet.evaluate(network, X, Y)
    assert found.accuracy == pytest.approx(1 - hamming_loss(Y, model.predict(X)), abs=1e-12)
    assert 0.5 < found.accuracy < 1
    losses = sum(log_loss(Y[:, label], model.predict_proba(X)[:, label]) for label in range(3))
    assert found.loss == pytest.approx(losses, rel=1e-10)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_training_follows_the_same_path(solver):
    """50 full-batch epochs from the same weights; scikit-learn's alpha / (2 n) is the lecture's lambda."""
    rows, alpha = 120, 0.3
    epsilon = 1e-30  # scikit-learn adds it before the bias correction of the second moment, the paper after
    X, y = random_problem(rows, 6, 4)
    model = MLPClassifier(
        (9, 5),
        activation="tanh",
        solver=solver,
        alpha=alpha,
        batch_size=rows,
        learning_rate_init=0.01,
        momentum=0.9,
        nesterovs_momentum=True,
        shuffle=False,
        random_state=0,
    )
    network = gpunet.Network([6, 9, 5, 4], activation="tanh", batch_norm=False, dtype="float64", device="cpu")
    model.partial_fit(X, y, classes=np.unique(y))  # creates the weights and takes the first step
    copy_weights(network, model)
    parameters = model.coefs_ + model.intercepts_  # moments of zero again, so that both start alike
    model._optimizer = (
        SGDOptimizer(parameters, 0.01, "constant", 0.9, True)
        if solver == "sgd"
        else AdamOptimizer(parameters, 0.01, epsilon=epsilon)
    )
    for _ in range(50):
        model.partial_fit(X, y)

    optimizer = gpunet.SGD(0.01, momentum=0.9, nesterov=True) if solver == "sgd" else gpunet.Adam(0.01, epsilon=epsilon)
    gpunet.fit(network, X, y, epochs=50, batch_size=rows, shuffle=False, l2=alpha / (2 * rows), optimizer=optimizer)
    for index, coefficients in enumerate(model.coefs_, start=1):
        np.testing.assert_allclose(network.parameters[f"W{index}"], coefficients.T, rtol=0, atol=1e-9)


def test_squared_error_equals_the_regressors_loss():
    X, _ = random_problem(80, 5, 2)
    targets = np.column_stack([X[:, 0] * X[:, 1], X[:, 2]])
    model = MLPRegressor(hidden_layer_sizes=(7,), activation="tanh", alpha=0.0, max_iter=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, targets)
    network = gpunet.Network(
        [5, 7, 2], activation="tanh", batch_norm=False, loss="squared_error", dtype="float64", device="cpu"
    )
    copy_weights(network, model)
    np.testing.assert_allclose(network.predict(X), model.predict(X), rtol=0, atol=1e-12)
    # scikit-learn averages over the outputs as well; the lecture's E sums over them.
    expected = ((targets - model.predict(X)) ** 2).sum(axis=1).mean() / 2
    assert gpunet.evaluate(network, X, targets).loss == pytest.approx(expected, rel=1e-12)
