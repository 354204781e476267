"""Sigmoid cross-entropy: independent labels, their loss, gradient and predictions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunet
from gpunet.backends import NumpyBackend
from gpunet.layers import SigmoidCrossEntropy
from tests.helpers.networks import gradient_error, random_problem, randomise


def run(outputs, targets, weights=None):
    gradient, loss = np.full_like(outputs, np.nan), np.full(2, np.nan, outputs.dtype)
    NumpyBackend().sigmoid_cross_entropy(outputs, targets, weights, gradient, loss)
    return gradient, loss


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 600), columns=st.integers(1, 30), weighted=st.booleans())
def test_loss_and_gradient_are_those_of_the_textbook(rows, columns, weighted):
    generator = np.random.default_rng(rows * 100 + columns)
    outputs = 3 * generator.standard_normal((rows, columns))
    targets = generator.uniform(-1, 2, (rows, columns)).clip(0, 1)
    weights = generator.uniform(0.1, 2, rows) if weighted else None
    gradient, loss = run(outputs, targets, weights)
    w = np.ones(rows) if weights is None else weights
    p = 1 / (1 + np.exp(-outputs))
    losses = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(axis=1)
    np.testing.assert_allclose(gradient, (p - targets) * (w / w.sum())[:, np.newaxis], rtol=1e-8, atol=1e-15)
    assert loss[0] == pytest.approx((losses * w).sum() / w.sum(), rel=1e-10)
    assert loss[1] == pytest.approx(w.sum(), rel=1e-12)


def test_one_output_is_softmax_of_two_classes():
    generator = np.random.default_rng(0)
    outputs, labels = 5 * generator.standard_normal((300, 1)), generator.integers(0, 2, 300, np.int32)
    weights = generator.uniform(0, 2, 300)
    gradient, loss = run(outputs, labels.reshape(-1, 1).astype(float), weights)
    both, expected, value = np.hstack([0 * outputs, outputs]), np.empty((300, 2)), np.empty(2)
    NumpyBackend().softmax_cross_entropy(both, labels, weights, expected, value)
    np.testing.assert_allclose(loss, value, rtol=1e-13)
    np.testing.assert_allclose(gradient[:, 0], expected[:, 1], rtol=1e-10, atol=1e-17)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits_keep_their_digits(dtype):
    """The loss and gradient of a nearly certain, right prediction are exp(-abs(o)), and not 0."""
    relative, smallest = 4 * float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for output in (-1e4, -80.0, -30.0, -1.0, 0.0, 1.0, 30.0, 80.0, 1e4):
            for target in (0.0, 0.25, 1.0):
                gradient, loss = run(np.full((1, 1), output, dtype), np.full((1, 1), target, dtype))
                e = np.exp(-abs(np.longdouble(output)))
                right = target if output >= 0 else 1 - target
                error = ((1 - right) - right * e) / (1 + e) * (1 if output >= 0 else -1)
                expected = float((1 - right) * abs(output) + np.log1p(e))
                assert loss[0] == pytest.approx(expected, rel=relative, abs=smallest)
                assert gradient[0, 0] == pytest.approx(float(error), rel=relative, abs=smallest)


def test_rows_of_weight_zero_count_for_nothing():
    generator = np.random.default_rng(0)
    outputs, targets = generator.standard_normal((6, 4)), generator.uniform(0, 1, (6, 4))
    weights = np.array([1, 0, 2, 0, 1, 0.0])
    gradient, loss = run(outputs, targets, weights)
    kept = weights > 0
    partial, expected = run(outputs[kept], targets[kept], weights[kept])
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient[kept], partial, rtol=1e-12)
    assert not gradient[~kept].any()
    gradient, loss = run(outputs, targets, np.zeros(6))
    assert not gradient.any()
    assert not loss.any()


def test_nan_is_not_hidden():
    for target in (0.0, 1.0):
        gradient, loss = run(np.array([[np.nan, 1.0]]), np.array([[target, 1.0]]))
        assert np.isnan(loss[0])
        assert np.isnan(gradient[0, 0])
        assert np.isfinite(gradient[0, 1])


def make_network(outputs=3, **arguments):
    return gpunet.Network([5, 8, outputs], loss="sigmoid_cross_entropy", device="cpu", **arguments)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_network_gradients_match_finite_differences(batch_norm, weighted):
    network = make_network(activation="tanh", batch_norm=batch_norm, dtype="float64")
    randomise(network)
    generator = np.random.default_rng(3)
    X, targets = generator.standard_normal((6, 5)), generator.uniform(-1, 2, (6, 3)).clip(0, 1)
    arguments = {"l2": 0.02, "sample_weight": np.array([0.5, 0, 2, 1, 3.0, 1]) if weighted else None}
    _, gradients = network.loss_and_gradients(X, targets, input_gradient=True, **arguments)
    for name, view in (*network.parameters.items(), ("X", X)):
        error = gradient_error(gradients[name], lambda: network.loss_and_gradients(X, targets, **arguments)[0], view)
        assert error <= 1e-6, name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [1, 4])
def test_predictions_are_labels_of_every_output(dtype, outputs):
    network = make_network(outputs, dtype=dtype)
    X, _ = random_problem(50, 5, 2)
    logits, probabilities, labels = network.logits(X), network.predict_proba(X), network.predict(X)
    assert probabilities.shape == labels.shape == (50, outputs)
    assert (probabilities.dtype, labels.dtype) == (np.dtype(dtype), np.int64)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits.astype(float))), rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(labels, probabilities > 0.5)
    assert 0 < labels.mean() < 1
    assert not network.is_classifier
    assert network.has_probabilities


def test_a_half_is_no_label():
    """Neither a logit of 0, whose probability is 1/2, nor a target of 1/2."""
    outputs, targets = np.array([[0.0, 0.0, -1.0, 1.0]]), np.array([[0.5, 0.6, 0.5, 0.5]])
    assert SigmoidCrossEntropy.predict(outputs).tolist() == [[0, 0, 0, 1]]
    network, right = gpunet.Network([5, 4], loss="sigmoid_cross_entropy", device="cpu"), np.zeros(1)
    network.loss_layer.score(outputs, targets, None, right)
    assert right == 2


def test_learns_labels_that_do_not_exclude_one_another():
    X, _ = random_problem(400, 5, 2)
    targets = X[:, :3] > 0  # eight combinations, given as booleans
    network = make_network(seed=1)
    rule = gpunet.EarlyStopping(patience=3, monitor="validation_accuracy")
    history = gpunet.fit(network, X, targets, epochs=25, batch_size=20, validation=(X, targets), early_stopping=rule)
    found = gpunet.evaluate(network, X, targets)
    assert found.accuracy == (network.predict(X) == targets).mean() == max(history["validation_accuracy"])
    assert found.accuracy > 0.95


def test_evaluation_weighs_rows_and_counts_every_label():
    network = make_network(dtype="float64")
    X, _ = random_problem(5000, 5, 2)  # more than one block of rows
    generator = np.random.default_rng(0)
    targets, weights = generator.uniform(0, 1, (5000, 3)), generator.uniform(0, 2, 5000)
    right = (network.predict(X) == (targets > 0.5)).mean(axis=1)
    found = gpunet.evaluate(network, X, targets, sample_weight=weights)
    assert found.accuracy == pytest.approx((right * weights).sum() / weights.sum(), rel=1e-12)
    o = network.logits(X)
    losses = (np.logaddexp(0, o) - o * targets).sum(axis=1)
    assert found.loss == pytest.approx((losses * weights).sum() / weights.sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (
            np.full((12, 3), -0.01),
            gpunet.InvalidValueError,
            r"y: -0\.01.* in row 0, column 0.* Expected numbers from 0",
        ),
        (np.eye(12, 3) + np.eye(12, 3, -2), None, ""),
        (2 * np.eye(12, 3, -4), gpunet.InvalidValueError, r"y: 2\.0 in row 4, column 0 is out of range"),
        (np.full((12, 3), np.nan), gpunet.NonFiniteError, "y: nan in row 0, column 0"),
        (np.zeros(12, int), gpunet.ShapeError, r"y: got shape \(12,\). Expected \(12, 3\)"),
        (np.zeros((11, 3)), gpunet.ShapeError, r"y: got shape \(11, 3\)"),
        (np.full((12, 3), "a"), gpunet.InvalidTypeError, "y: got dtype <U1"),
        (np.zeros((12, 3), bool), None, ""),
    ],
)
def test_targets_are_checked_at_the_edge(targets, error, message):
    network = make_network()
    X, _ = random_problem(12, 5, 2)
    before = network.flat_parameters.copy()
    for call in (
        lambda: network.loss_and_gradients(X, targets),
        lambda: gpunet.evaluate(network, X, targets),
        lambda: gpunet.fit(network, X, targets, epochs=1),
    ):
        if error is None:
            call()
            continue
        with pytest.raises(error, match=message):
            call()
        np.testing.assert_array_equal(network.flat_parameters, before)


def test_one_output_takes_one_column_or_none():
    network = make_network(1)
    X, y = random_problem(12, 5, 2)
    expected = network.loss_and_gradients(X, y)[0]
    for form in (y.reshape(-1, 1), y == 1, (y == 1).tolist(), y.astype(float)):
        assert network.loss_and_gradients(X, form)[0] == expected


def test_weights_by_class_are_refused():
    X, y = random_problem(12, 5, 2)
    with pytest.raises(gpunet.InvalidValueError, match="class_weight: a network with loss='sigmoid_cross_entropy'"):
        gpunet.fit(make_network(1), X, y, class_weight="balanced")
