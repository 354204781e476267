"""What a layer with an activation keeps for the backward pass, and what it tells of it."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet.activations import get_activation
from gpunet.initializers import HE_NORMAL, XAVIER_NORMAL, default_initializer
from gpunet.layers import BatchNorm, BiasActivation
from tests.helpers.networks import ACTIVATIONS, pre_activations, random_problem, randomise


def network_of(activation: str, batch_norm: bool = False) -> gpunet.Network:
    network = gpunet.Network([5, 8, 3], activation=activation, batch_norm=batch_norm, dtype="float64", device="cpu")
    randomise(network)
    return network


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_only_derivatives_of_the_input_keep_the_input(activation):
    network = network_of(activation)
    X, _ = random_problem(7, 5, 3)
    linear, function = network.layers[:2]
    network.forward(X, training=True)
    assert (function.output is linear.output) == (get_activation(activation).derivative_of == "output")
    outputs = function.output.copy()
    network.forward(X, training=False)
    assert function.output is linear.output
    np.testing.assert_array_equal(function.output, outputs)


@pytest.mark.parametrize("activation", ["silu", "gelu", "hard_swish"])
def test_batch_norm_keeps_nothing_more(activation):
    X, y = random_problem(7, 5, 3)
    held = {}
    for name in ("relu", activation):
        for batch_norm in (False, True):
            network = network_of(name, batch_norm)
            network.loss_and_gradients(X, y)
            held[name, batch_norm] = network.workspace.nbytes
    assert held[activation, True] == held["relu", True]
    assert held[activation, False] == held["relu", False] + 7 * 8 * 8


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slopes_are_the_derivative_of_what_entered(activation, batch_norm):
    network = network_of(activation, batch_norm)
    X, _ = random_problem(9, 5, 3)
    (z,) = pre_activations(network, X)
    network.forward(X, training=True)
    layer = next(layer for layer in network.layers if isinstance(layer, BatchNorm | BiasActivation))
    np.testing.assert_allclose(layer.slopes(), get_activation(activation).derivative_at(z), rtol=1e-9, atol=1e-12)


def test_what_passes_on_half_of_its_input_starts_with_he():
    halving = {"relu", "leaky_relu(0.1)", "elu(0.7)", "gelu", "gelu_tanh", "silu", "mish", "hard_swish"}
    for name in ACTIVATIONS:
        expected = HE_NORMAL if name in halving else XAVIER_NORMAL
        assert default_initializer(get_activation(name)) == expected, name
