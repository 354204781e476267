"""Initial weights (L19, L20): means, spreads, ranges, and what they do in depth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import gpunet
from gpunet.activations import get_activation
from gpunet.errors import InvalidTypeError, InvalidValueError
from gpunet.initializers import (
    INITIALIZERS,
    Normal,
    Orthogonal,
    RandomWalk,
    default_initializer,
    get_initializer,
)
from gpunet.random import Purpose, host_generator

SHAPE = (300, 200)  # m, d


def draw(name, shape=SHAPE):
    return get_initializer(name)(shape, host_generator(0, Purpose.WEIGHTS, 1))


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("normal", 0.01),
        ("normal(1)", 1.0),
        ("normal(0.5)", 0.5),
        ("xavier_normal", np.sqrt(2 / 500)),
        ("xavier_uniform", np.sqrt(2 / 500)),
        ("he_normal", np.sqrt(2 / 200)),
        ("he_uniform", np.sqrt(2 / 200)),
    ],
)
def test_mean_spread_and_distribution(name, std):
    W = draw(name).ravel()
    assert abs(W.mean()) < 5 * std / np.sqrt(W.size)
    assert W.std() == pytest.approx(std, rel=0.02)
    if "uniform" in name:
        assert np.abs(W).max() <= std * np.sqrt(3)
        assert stats.kstest(W, stats.uniform(-std * np.sqrt(3), 2 * std * np.sqrt(3)).cdf).pvalue > 1e-3
    else:
        assert stats.kstest(W, stats.norm(0, std).cdf).pvalue > 1e-3


def test_zeros_are_zero_and_never_break_the_symmetry():
    assert not draw("zeros").any()
    network = gpunet.Network([4, 6, 3], initializer="zeros", batch_norm=False, device="cpu")
    X = np.random.default_rng(0).standard_normal((60, 4))
    gpunet.fit(network, X, (X[:, 0] > 0).astype(int), epochs=5)
    assert (network.parameters["W1"] == network.parameters["W1"][0]).all()


def test_the_lectures_xavier_for_square_layers():
    """1/sqrt(500) is a standard deviation."""
    assert draw("xavier_normal", (500, 500)).std() == pytest.approx(1 / np.sqrt(500), rel=0.01)


def test_layers_draw_from_streams_of_their_own():
    narrow = gpunet.Network([4, 5, 6, 3], device="cpu")
    wide = gpunet.Network([4, 50, 6, 3], device="cpu")
    again = gpunet.Network([4, 5, 6, 3], device="cpu", batch_norm=False)
    np.testing.assert_array_equal(narrow.parameters["W3"], wide.parameters["W3"])
    np.testing.assert_array_equal(narrow.parameters["W2"], again.parameters["W2"])


def layer_stds(activation, initializer):
    """Return the spread of the activations in each layer of the lecture's 10 x 500 network."""
    network = gpunet.Network([500] * 11, activation=activation, initializer=initializer, batch_norm=False, device="cpu")
    network.forward(np.random.default_rng(0).standard_normal((200, 500)).astype(np.float32), training=True)
    return [float(layer.output.std()) for layer in network.layers if layer.kind == "activation"][:9]


def test_what_the_lecture_shows_for_ten_layers():
    """L19: small weights let activations fade and unit ones saturate them; Xavier keeps tanh, He keeps ReLU (L20)."""
    assert layer_stds("tanh", "normal(0.01)")[-1] < 1e-5
    assert layer_stds("tanh", "normal(1)")[-1] > 0.9
    xavier = layer_stds("tanh", "xavier_normal")
    assert 0.1 < xavier[-1] < xavier[0] < 0.8
    assert layer_stds("relu", "xavier_normal")[-1] < 0.1
    he = layer_stds("relu", "he_normal")
    assert 0.4 < he[-1] / he[0] < 2.5


@pytest.mark.parametrize("name", INITIALIZERS)
def test_names_are_read_back(name):
    assert str(get_initializer(str(get_initializer(name)))) == str(get_initializer(name))


def test_the_default_follows_the_activation():
    for activation, expected in (("relu", "he_normal"), ("elu", "he_normal"), ("tanh", "xavier_normal")):
        assert str(default_initializer(get_activation(activation))) == expected
        assert str(gpunet.Network([3, 4, 2], activation=activation, device="cpu").initializer) == expected


def test_initial_bias():
    plain = gpunet.Network([3, 4, 2], batch_norm=False, initial_bias=0.1, device="cpu")
    np.testing.assert_array_equal(plain.parameters["b1"], np.float32(0.1))
    np.testing.assert_array_equal(plain.parameters["b2"], 0)
    normalised = gpunet.Network([3, 4, 2], initial_bias=0.1, device="cpu")
    np.testing.assert_array_equal(normalised.parameters["beta1"], np.float32(0.1))


@pytest.mark.parametrize(
    "initializer",
    [Normal(np.float32(0.05)), Orthogonal(np.int64(2)), RandomWalk(np.float64(1.25)), Orthogonal(3)],
    ids=str,
)
def test_numbers_may_be_numpys_and_are_saved(initializer, tmp_path):
    network = gpunet.Network([3, 4, 2], initializer=initializer, device="cpu")
    again = gpunet.load(network.save(tmp_path / "network.npz"), device="cpu")
    assert str(again.initializer) == str(network.initializer) == str(initializer)
    again.reset_parameters()
    np.testing.assert_array_equal(again.parameters["W1"], network.parameters["W1"])


@pytest.mark.parametrize("kind", [Normal, Orthogonal, RandomWalk])
@pytest.mark.parametrize(
    ("number", "error"),
    [(0, InvalidValueError), (-1.0, InvalidValueError), (np.inf, InvalidValueError), ("1", InvalidTypeError)],
)
def test_numbers_out_of_range_are_refused(kind, number, error):
    with pytest.raises(error, match=r"Expected a finite number above 0"):
        kind(number)


def test_a_class_is_not_an_initializer():
    with pytest.raises(InvalidTypeError, match="initializer: got the class Orthogonal"):
        gpunet.Network([3, 4, 2], initializer=Orthogonal, device="cpu")
