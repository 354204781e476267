"""Huber's loss and that of quantiles: values, gradients at corners, and networks that learn with them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunet
from gpunet.backends import NumpyBackend
from gpunet.layers import LOSSES, get_loss
from tests.helpers.networks import gradient_error, randomise

SPECIFICATIONS = ("huber(0.4)", "quantile(0.3)", "quantile(0.1, 0.5, 0.95)")


def run(name, outputs, targets, number, weights=None):
    gradient, loss = np.full_like(outputs, np.nan), np.full(2, np.nan, outputs.dtype)
    getattr(NumpyBackend(), name)(outputs, targets, weights, gradient, loss, number)
    return gradient, loss


def weighted(losses, weights):
    w = np.ones(len(losses)) if weights is None else weights
    return (losses.sum(axis=1) * w).sum() / w.sum(), (w / w.sum())[:, np.newaxis]


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 600), columns=st.integers(1, 30), weigh=st.booleans(), delta=st.floats(0.01, 10))
def test_huber_is_the_textbooks(rows, columns, weigh, delta):
    generator = np.random.default_rng(rows * 100 + columns)
    outputs, targets = 3 * generator.standard_normal((2, rows, columns))
    weights = generator.uniform(0.1, 2, rows) if weigh else None
    gradient, loss = run("huber", outputs, targets, delta, weights)
    e = outputs - targets
    losses = np.where(abs(e) <= delta, e**2 / 2, delta * (abs(e) - delta / 2))
    value, share = weighted(losses, weights)
    assert loss[0] == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(
        gradient, share * np.where(abs(e) <= delta, e, delta * np.sign(e)), rtol=1e-12, atol=1e-300
    )


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 600), columns=st.integers(1, 30), weigh=st.booleans(), several=st.booleans())
def test_quantile_is_the_textbooks(rows, columns, weigh, several):
    generator = np.random.default_rng(rows * 100 + columns)
    outputs, targets = 3 * generator.standard_normal((2, rows, columns))
    levels = generator.uniform(0.01, 0.99, columns if several else 1)
    weights = generator.uniform(0.1, 2, rows) if weigh else None
    gradient, loss = run("quantile", outputs, targets, levels, weights)
    u = targets - outputs
    value, share = weighted(np.maximum(levels * u, (levels - 1) * u), weights)
    assert loss[0] == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(gradient, share * np.where(u > 0, -levels, 1 - levels), rtol=1e-12)


def test_gradients_at_corners():
    """Huber's is continuous there; that of a quantile is 0 where an output is its target."""
    e = np.array([[-1.0, -0.5, 0.0, 0.5, 1.0]])
    gradient, loss = run("huber", e, 0 * e, 0.5)
    np.testing.assert_array_equal(gradient, [[-0.5, -0.5, 0, 0.5, 0.5]])
    assert loss[0] == 2 * (0.375 + 0.125)
    gradient, loss = run("quantile", e, 0 * e, np.array([0.25]))
    np.testing.assert_array_equal(gradient, [[-0.25, -0.25, 0, 0.75, 0.75]])
    assert loss[0] == 1.5 * (0.25 + 0.75)


@pytest.mark.parametrize("name", ["huber", "quantile"])
def test_what_is_not_finite_is_not_hidden(name):
    number = 0.5 if name == "huber" else np.array([0.25])
    gradient, loss = run(name, np.array([[np.nan, 1.0]]), np.zeros((1, 2)), number)
    assert np.isnan(loss[0])
    assert np.isnan(gradient[0, 0])
    assert np.isfinite(gradient[0, 1])
    for output in (np.inf, -np.inf):
        assert run(name, np.array([[output, 1.0]]), np.zeros((1, 2)), number)[1][0] == np.inf


def test_huber_overflows_only_where_its_loss_does():
    largest = np.array([[np.finfo(np.float32).max]])
    gradient, loss = run("huber", largest.astype(np.float32), np.zeros((1, 1), np.float32), 0.5)
    assert loss[0] == pytest.approx(largest[0, 0] / 2, rel=1e-6)
    assert gradient[0, 0] == 0.5


def make_network(loss, outputs=3, **arguments):
    return gpunet.Network([5, 8, outputs], loss=loss, device="cpu", **arguments)


@pytest.mark.parametrize("loss", SPECIFICATIONS)
@pytest.mark.parametrize("weigh", [False, True])
def test_network_gradients_match_finite_differences(loss, weigh):
    """Away from the corners: targets keep their distance from each."""
    network = make_network(loss, activation="tanh", dtype="float64")
    randomise(network)
    generator = np.random.default_rng(3)
    X = generator.standard_normal((6, 5))
    network.loss_and_gradients(X, np.zeros((6, 3)))  # which leaves the outputs of training mode
    targets = network.layers[-1].output + generator.choice([-0.9, -0.2, 0.2, 0.9], (6, 3))
    arguments = {"l2": 0.02, "sample_weight": np.array([0.5, 0, 2, 1, 3.0, 1]) if weigh else None}
    _, gradients = network.loss_and_gradients(X, targets, input_gradient=True, **arguments)
    for name, view in (*network.parameters.items(), ("X", X)):
        error = gradient_error(gradients[name], lambda: network.loss_and_gradients(X, targets, **arguments)[0], view)
        assert error <= 1e-6, name


def test_several_quantiles_of_one_target():
    """Quantiles of what nothing predicts are those of the sample, whichever form the targets have."""
    y = np.random.default_rng(0).exponential(size=501)
    X = np.ones((501, 1))
    network = gpunet.Network([1, 3], loss=gpunet.Quantile(0.1, 0.5, 0.9), dtype="float64", device="cpu")
    for form in (y, y.reshape(-1, 1), np.stack([y] * 3, axis=1), y.tolist()):
        assert network.loss_and_gradients(X, form)[0] == network.loss_and_gradients(X, y)[0]
    gpunet.fit(network, X, y, epochs=400, batch_size=501, optimizer=gpunet.SGD(gpunet.CosineRate(0.5, 400)))
    np.testing.assert_allclose(network.predict(X)[0], np.quantile(y, [0.1, 0.5, 0.9]), atol=0.02)
    with pytest.raises(gpunet.ShapeError, match=r"y: got shape \(501, 2\). Expected \(501, 3\)"):
        network.loss_and_gradients(X, np.zeros((501, 2)))


def test_huber_is_not_ruled_by_outliers():
    generator = np.random.default_rng(0)
    X = generator.standard_normal((400, 1))
    y = 2 * X[:, 0]
    y[:40] += 1000
    found = {}
    for loss in ("squared_error", "huber(0.1)"):
        network = gpunet.Network([1, 1], loss=loss, dtype="float64", device="cpu")
        gpunet.fit(network, X, y, epochs=200, batch_size=400, optimizer=gpunet.Adam(0.05))
        found[loss] = abs(network.predict(np.zeros((1, 1)))[0]).item()
    assert found["huber(0.1)"] < 0.1 < 1 < found["squared_error"]


@pytest.mark.parametrize("loss", [*SPECIFICATIONS, gpunet.Huber(0.7), gpunet.Quantile(0.1, 0.2, 0.3)])
def test_files_and_copies_keep_the_numbers(loss, tmp_path):
    network = make_network(loss, dtype="float64")
    X, y = np.random.default_rng(0).standard_normal((2, 9, 5))
    expected = network.loss_and_gradients(X, y[:, :3])[0]
    network.save(tmp_path / "network.npz")
    for other in (gpunet.load(tmp_path / "network.npz", device="cpu"), copy.deepcopy(network)):
        assert other.configuration["loss"] == network.configuration["loss"] == str(get_loss(loss))
        assert other.loss_and_gradients(X, y[:, :3])[0] == expected


def test_a_loss_belongs_to_one_network():
    loss = gpunet.Huber(0.5)
    one, other = make_network(loss), make_network(loss)
    assert one.loss_layer is not other.loss_layer
    assert one.loss_layer.value is not other.loss_layer.value


@pytest.mark.parametrize("loss", [gpunet.Huber(0.5), gpunet.Quantile(0.5)], ids=str)
def test_what_a_loss_was_made_with_cannot_be_set(loss):
    """A recorded step has it as a constant, and a file's header says it."""
    layer = make_network(loss).loss_layer
    with pytest.raises(AttributeError):
        setattr(layer, "delta" if loss.name == "huber" else "levels", 0.25)


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        ("huber(0)", gpunet.InvalidValueError, "delta: 0.0 is out of range"),
        ("huber(nan)", gpunet.InvalidValueError, "delta: nan"),
        ("huber(1, 2)", gpunet.InvalidValueError, r"loss: 'huber' takes one number, got 'huber\(1, 2\)'"),
        ("squared_error(1)", gpunet.InvalidValueError, "loss: 'squared_error' takes no number"),
        ("huber(a)", gpunet.InvalidValueError, r"loss: 'a' in 'huber\(a\)' is not a number"),
        ("huber(", gpunet.InvalidValueError, "loss: cannot read 'huber\\('"),
        ("hubert", gpunet.InvalidValueError, "loss: .*huber"),
        ("quantile(0)", gpunet.InvalidValueError, "quantile: 0.0 is out of range. Expected a number above 0, below 1"),
        ("quantile(1)", gpunet.InvalidValueError, "quantile: 1.0 is out of range"),
        ("quantile(0.1, 0.2)", gpunet.InvalidValueError, "loss: .* has 2 quantiles for 3 outputs"),
        ("quantile(0.1,)", gpunet.InvalidValueError, "loss: '' in .* is not a number"),
        (7, gpunet.InvalidTypeError, "loss: got 7"),
        (gpunet.Huber, gpunet.InvalidTypeError, "loss: got"),
    ],
)
def test_losses_are_checked_at_the_edge(loss, error, message):
    with pytest.raises(error, match=message):
        make_network(loss)


def test_losses_are_named_with_their_numbers():
    assert {name: str(kind()) for name, kind in LOSSES.items()} == {
        "softmax_cross_entropy": "softmax_cross_entropy",
        "sigmoid_cross_entropy": "sigmoid_cross_entropy",
        "squared_error": "squared_error",
        "huber": "huber(1.0)",
        "quantile": "quantile(0.5)",
    }
    assert repr(get_loss("Quantile( 0.25 ,0.5 )")) == "<loss quantile(0.25, 0.5)>"
