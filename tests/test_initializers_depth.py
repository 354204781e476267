"""Orthogonal and random-walk weights (L21): what their papers say of them, and what that does in depth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import gpunet
from gpunet.activations import ELU, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from gpunet.errors import InvalidValueError
from gpunet.initializers import RandomWalk, get_initializer, random_walk_gain, reading
from gpunet.layers import Linear
from gpunet.random import Purpose, host_generator


def draw(name, shape, seed=0):
    return get_initializer(name)(shape, host_generator(seed, Purpose.WEIGHTS, 1))


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (3, 8), (8, 3), (1, 5), (5, 1), (200, 300)])
@pytest.mark.parametrize("gain", [1.0, 1.5])
def test_orthogonal_rows_or_columns(shape, gain):
    """W W^T = g^2 I where W is wide, W^T W = g^2 I where it is tall (Saxe et al. 2013)."""
    W = draw(f"orthogonal({gain})", shape)
    assert W.shape == shape
    product = W @ W.T if shape[0] <= shape[1] else W.T @ W
    np.testing.assert_allclose(product, gain**2 * np.eye(min(shape)), atol=1e-13)


def test_orthogonal_matrices_are_uniform():
    """Of a Haar-distributed 4 x 4 matrix every element is a coordinate of a random unit vector: (w + 1) / 2 is beta.

    Without the correction of the signs, R's diagonal leaves its mark: w_11 is never positive, for one.
    """
    matrices = np.array([draw("orthogonal", (4, 4), seed) for seed in range(1500)])
    for row, column in ((0, 0), (0, 3), (3, 0), (3, 3), (2, 1)):
        assert stats.kstest((matrices[:, row, column] + 1) / 2, stats.beta(1.5, 1.5).cdf).pvalue > 1e-3
    determinants = np.linalg.det(matrices)
    np.testing.assert_allclose(np.abs(determinants), 1)
    assert stats.binomtest(int((determinants > 0).sum()), len(matrices)).pvalue > 1e-3
    # A distribution that rotations of the outputs do not change: the trace of a rotated W is that of W.
    rotation = draw("orthogonal", (4, 4), seed=10_000)
    traces, rotated = np.trace(matrices, axis1=1, axis2=2), np.trace(rotation @ matrices, axis1=1, axis2=2)
    assert stats.ks_2samp(traces[::2], rotated[1::2]).pvalue > 1e-3


def test_an_orthogonal_linear_network_keeps_every_singular_value_at_any_depth():
    """Saxe et al. 2013: dynamical isometry, which matrices of independent numbers have only on average."""
    product = {}
    for name in ("orthogonal", "xavier_normal"):
        network = gpunet.Network([30] * 61, initializer=name, dtype="float64", device="cpu", batch_norm=False)
        product[name] = np.linalg.multi_dot([network.get_parameters()[f"W{i}"] for i in range(60, 0, -1)])
    np.testing.assert_allclose(np.linalg.svd(product["orthogonal"], compute_uv=False), 1, rtol=1e-12)
    values = np.linalg.svd(product["xavier_normal"], compute_uv=False)
    assert values[-1] / values[0] < 1e-6


@pytest.mark.parametrize("width", [1, 3, 5, 6, 100])
def test_the_papers_gains(width):
    """Sussillo and Abbott 2014: g = exp(1/(2N)) for linear units, sqrt(2) exp(1.2/(max(N, 6) - 2.4)) for ReLU."""
    assert random_walk_gain(Identity(), width) == pytest.approx(np.exp(1 / (2 * width)))
    assert random_walk_gain(ReLU(), width) == pytest.approx(np.sqrt(2) * np.exp(1.2 / (max(width, 6) - 2.4)))
    for activation in (Tanh(), ELU(), Sigmoid()):
        assert random_walk_gain(activation, width) == random_walk_gain(Identity(), width)


def test_leaky_relus_gain_lies_between_the_papers_two():
    assert random_walk_gain(LeakyReLU(1.0), 50) == pytest.approx(random_walk_gain(Identity(), 50), rel=1e-12)
    assert random_walk_gain(LeakyReLU(0.0), 50) == pytest.approx(random_walk_gain(ReLU(), 50), rel=1e-3)
    generator = np.random.default_rng(0)
    slopes = np.where(generator.random((200_000, 50)) < 0.5, 1.0, 0.3)
    logs = np.log(np.mean((slopes * generator.standard_normal(slopes.shape)) ** 2, axis=1))
    drift = logs.mean() + 2 * np.log(random_walk_gain(LeakyReLU(0.3), 50))
    assert abs(drift) < 4 * logs.std() / np.sqrt(len(logs)) + 2 / 50**2  # of order 1 / d^2, from the expansion


def test_the_random_walk_has_the_gains_variance_over_the_fan_in():
    W = reading(RandomWalk(), ReLU())((400, 100), host_generator(0, Purpose.WEIGHTS, 1))
    assert W.std() == pytest.approx(random_walk_gain(ReLU(), 100) / 10, rel=0.02)
    assert draw("random_walk(3)", (400, 100)).std() == pytest.approx(0.3, rel=0.02)


def log_ratios(activation, initializer, width, depth, seeds):
    """Return log(||dJ/ds_{i-1}|| / ||dJ/ds_i||) for all hidden layers of networks with one example each."""
    ratios = []
    for seed in range(seeds):
        network = gpunet.Network(
            [width] * (depth + 1),
            activation=activation,
            initializer=initializer,
            loss="squared_error",
            batch_norm=False,
            seed=seed,
            dtype="float64",
            device="cpu",
        )
        generator = np.random.default_rng(seed)
        for _ in network.forward_layers(generator.standard_normal((1, width)), dropout=False):
            pass
        passes = network.backward_layers(generator.standard_normal((1, width)), dropout=False)
        norms = [np.linalg.norm(gradient) for layer, gradient in passes if isinstance(layer, Linear)]
        ratios.append(np.diff(np.log(norms)))
    return np.array(ratios)


@pytest.mark.parametrize(
    ("activation", "other", "drift"), [("identity", "xavier_normal", -1 / 2), ("relu", "he_normal", -2.5 / 2)]
)
def test_the_gradients_norm_walks_at_random_without_drift(activation, other, drift):
    """Through 60 layers the mean log ratio is 0 within its standard error; with g = 1 or sqrt(2) it drifts down.

    The standard error is that of independent networks. The drift of log z is -Var z / 2 to order 1 / width.
    """
    walk = log_ratios(activation, "random_walk", width=30, depth=60, seeds=50).mean(axis=1)
    assert abs(walk.mean()) < 3 * walk.std(ddof=1) / np.sqrt(len(walk))
    drifting = log_ratios(activation, other, width=30, depth=60, seeds=50).mean(axis=1)
    error = drifting.std(ddof=1) / np.sqrt(len(drifting))
    assert drifting.mean() < -3 * error
    assert abs(drifting.mean() - drift / 30) < 3 * error


def test_the_network_tells_the_random_walk_which_activation_its_weights_read():
    """W1 reads the inputs: linear. The others read the layer below, whatever their own layer has."""
    network = gpunet.Network(
        [400, 400, 400, 400], activation=["relu", "tanh"], initializer="random_walk", device="cpu", batch_norm=False
    )
    expected = [random_walk_gain(activation, 400) / 20 for activation in (Identity(), ReLU(), Tanh())]
    found = [network.get_parameters()[f"W{index}"].std() for index in (1, 2, 3)]
    np.testing.assert_allclose(found, expected, rtol=0.01)


@pytest.mark.parametrize("name", ["orthogonal", "orthogonal(0.5)", "random_walk", "random_walk(1.1)"])
def test_saved_networks_keep_the_initializers_name(name, tmp_path):
    network = gpunet.Network([3, 4, 2], initializer=name, device="cpu")
    again = gpunet.load(network.save(tmp_path / "network.npz"), device="cpu")
    assert again.configuration == network.configuration
    again.reset_parameters()
    np.testing.assert_array_equal(again.parameters["W2"], network.parameters["W2"])


@pytest.mark.parametrize("name", ["orthogonal(0)", "orthogonal(-1)", "random_walk(0)", "random_walk(nan)", "normal(0)"])
def test_gains_are_positive(name):
    with pytest.raises(InvalidValueError, match="above 0"):
        gpunet.Network([3, 4, 2], initializer=name, device="cpu")


@pytest.mark.parametrize("name", ["lsuv", "data_dependent"])
def test_initializers_that_need_data_say_so(name):
    with pytest.raises(InvalidValueError, match=rf"needs data.*data_initializers\.{name}\(network, X\)"):
        gpunet.Network([3, 4, 2], initializer=name, device="cpu")
    with pytest.raises(InvalidValueError, match=f"Did you mean '{name}'"):
        gpunet.Network([3, 4, 2], initializer=name + "x", device="cpu")
