"""A linear layer and the bias and activation after it, forward in one operation: the same numbers as one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpunet

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((7, 5)), RNG.integers(0, 3, 7)
NETWORKS: dict[str, dict[str, Any]] = {
    "no batch norm": {"batch_norm": False},
    "what backward keeps is the input": {"batch_norm": False, "activation": "gelu"},
    "dropout after it": {"batch_norm": False, "dropout": 0.3},
    "a bias before batch norm": {"bias_before_batch_norm": True},
    "an output activation": {"batch_norm": False, "output_activation": "tanh", "loss": "squared_error"},
}


def network(name: str, device: str | gpunet.backends.Backend = "cpu") -> gpunet.Network:
    made = gpunet.Network([5, 6, 4, 3], seed=1, initial_bias=0.1, device=device, **NETWORKS[name])
    made.set_parameters({name: RNG.standard_normal(values.shape) for name, values in made.get_parameters().items()})
    return made


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_as_layer_by_layer(name: str, training: bool) -> None:
    one = network(name)
    x = one.check_inputs(X)
    found = one.forward(x, training).copy()
    *_, (_, expected) = one.forward_layers(x, training=training)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_backward_finds_what_it_needs(name: str) -> None:
    """Also after a forward pass in inference in between, and with other data before."""
    one = network(name)
    x, gradient = one.check_inputs(X), RNG.standard_normal((7, 3)).astype(np.float32)
    gradients = []
    for forward in (one.forward, lambda x, training: list(one.forward_layers(x, training=training))):
        one.forward(one.check_inputs(-X), True)
        forward(x, True)
        dx = one.backward(gradient.copy(), input_gradient=True)
        assert dx is not None
        gradients.append([dx.copy(), one.flat_gradients.copy()])
    for found, expected in zip(*gradients, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_where_numbers_stop_being_finite_is_told_as_before(name: str) -> None:
    one = network(name)
    x = one.check_inputs(1e38 * X)
    with np.errstate(all="ignore"):
        one.forward(x, True)
        found = one.first_non_finite()
        list(one.forward_layers(x))
        assert found == one.first_non_finite()
        assert found is not None
        passed = one.forward_layers(x, training=False)  # in buffers that layers share: looked at one by one
        names = [layer.name for layer, output in passed if not np.isfinite(output).all()]
        assert one.first_non_finite(x) == f"output of {names[0]}"


def test_a_layer_has_the_output_that_it_would_have_alone() -> None:
    one = network("what backward keeps is the input")
    outputs = []
    for forward in (lambda x: one.forward(x, True), lambda x: list(one.forward_layers(x))):
        forward(one.check_inputs(X))
        outputs.append([layer.output.copy() for layer in one.layers])
    for layer, found, expected in zip(one.layers, *outputs, strict=True):
        np.testing.assert_array_equal(found, expected, err_msg=layer.name)
