"""float64 gradient checks of every parameter and of the input, over all kinds of networks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunet
from gpunet.layers import LOSSES
from gpunet.lecture.derivations.activations import activation_named
from gpunet.lecture.derivations.batch_gradient import loop_over_examples, squared_error, vectorised
from gpunet.lecture.derivations.batch_norm import batch_norm_network_gradients
from tests.helpers.networks import (
    ACTIVATIONS,
    CORNERS,
    gradient_error,
    pre_activations,
    random_problem,
    randomise,
    sizes,
)

TOLERANCE = 1e-6
NORMALISATIONS = {"plain": (False, True), "batch_norm": (True, True), "batch_norm_without_scale_shift": (True, False)}


def away_from_kinks(network: gpunet.Network, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a problem on which no unit is so near to a kink that a finite difference would cross it."""
    corners = [CORNERS.get(str(activation), (0,)) for activation in network.activations]
    for seed in range(1000):
        X, y = random_problem(rows, network.layer_sizes[0], network.layer_sizes[-1], seed)
        layers = zip(pre_activations(network, X), corners, strict=True)
        if all(np.abs(z - corner).min() > 1e-3 for z, places in layers for corner in places):
            return X, y
    raise AssertionError("no problem away from the kinks was found")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("rows", [3, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_gradient_matches_finite_differences(activation, layers, normalisation, rows, weighted):
    batch_norm, scale_shift = NORMALISATIONS[normalisation]
    network = gpunet.Network(
        sizes(layers),
        activation=activation,
        batch_norm=batch_norm,
        scale_shift=scale_shift,
        dtype="float64",
        device="cpu",
        seed=layers,
    )
    randomise(network)
    X, y = away_from_kinks(network, rows)
    arguments = {"l2": 0.03, "sample_weight": np.arange(1.0, rows + 1) if weighted else None}

    _, gradients = network.loss_and_gradients(X, y, input_gradient=True, **arguments)

    def cost() -> float:
        return network.loss_and_gradients(X, y, **arguments)[0]

    # Three rows, normalised, make a cost so bent that differences of a step of 1e-5 are off by more than the tolerance.
    for name, view in (*network.parameters.items(), ("X", X)):
        assert gradient_error(gradients[name], cost, view, step=1e-6) <= TOLERANCE, name


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_of_every_loss_match_finite_differences(loss, batch_norm, weighted):
    network = gpunet.Network(
        [4, 6, 2], activation="tanh", batch_norm=batch_norm, loss=loss, dtype="float64", device="cpu"
    )
    randomise(network)
    generator = np.random.default_rng(3)
    X, targets = generator.standard_normal((5, 4)), generator.standard_normal((5, 2))
    if network.is_classifier:
        targets = targets.argmax(axis=1)
    elif network.has_probabilities:
        targets = targets.clip(-1, 1) / 2 + 0.5
    weights = np.array([0.5, 0, 2, 1, 3.0]) if weighted else None
    _, gradients = network.loss_and_gradients(X, targets, sample_weight=weights, input_gradient=True)
    for name, view in (*network.parameters.items(), ("X", X)):
        error = gradient_error(
            gradients[name], lambda: network.loss_and_gradients(X, targets, sample_weight=weights)[0], view
        )
        assert error <= TOLERANCE, name


@pytest.mark.parametrize("output_activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes_", [[4, 2], [4, 6, 2]], ids=str)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_output_activations_with_squared_error_match_finite_differences(output_activation, sizes_, batch_norm):
    network = gpunet.Network(
        sizes_,
        activation="tanh",
        output_activation=output_activation,
        batch_norm=batch_norm,
        loss="squared_error",
        dtype="float64",
        device="cpu",
    )
    randomise(network)
    generator = np.random.default_rng(2)
    X, targets = generator.standard_normal((5, 4)), generator.standard_normal((5, 2))
    linear = gpunet.Network(sizes_, activation="tanh", batch_norm=batch_norm, loss="squared_error", dtype="float64")
    linear.set_parameters(network.get_parameters())
    s = linear.forward(X, training=True).copy()
    assert np.abs(s).min() > 1e-3  # no finite difference crosses a kink
    f = activation_named(output_activation.split("(")[0], slope=0.1, alpha=0.7).function
    cost, gradients = network.loss_and_gradients(X, targets, input_gradient=True, l2=0.02)
    expected = 0.5 * ((f(s) - targets) ** 2).sum() / 5 + network.penalty(0.02)
    assert cost == pytest.approx(expected, rel=1e-12)
    for name, view in (*network.parameters.items(), ("X", X)):
        error = gradient_error(gradients[name], lambda: network.loss_and_gradients(X, targets, l2=0.02)[0], view)
        assert error <= TOLERANCE, name


def test_gradients_under_dropout_match_finite_differences_of_the_same_mask():
    network = gpunet.Network([5, 9, 8, 3], activation="tanh", dropout=[0.4, 0.2], dtype="float64", device="cpu")
    randomise(network)
    X, y = random_problem(6, 5, 3)
    _, gradients = network.loss_and_gradients(X, y, input_gradient=True)
    for name, view in (*network.parameters.items(), ("X", X)):
        error = gradient_error(gradients[name], lambda: network.loss_and_gradients(X, y)[0], view)
        assert error <= TOLERANCE, name


def test_different_activations_per_layer():
    network = gpunet.Network(
        [5, 7, 6, 4, 3],
        activation=["tanh", "elu", "sigmoid"],
        batch_norm=[True, False, True],
        dtype="float64",
        device="cpu",
    )
    randomise(network)
    X, y = away_from_kinks(network, 5)
    _, gradients = network.loss_and_gradients(X, y, l2=0.1)
    for name, view in network.parameters.items():
        error = gradient_error(gradients[name], lambda: network.loss_and_gradients(X, y, l2=0.1)[0], view)
        assert error <= TOLERANCE, name


def test_the_gradient_of_a_bias_before_batch_norm_is_zero():
    network = gpunet.Network([5, 8, 3], bias_before_batch_norm=True, dtype="float64", device="cpu")
    randomise(network)
    X, y = random_problem(11, 5, 3)
    _, gradients = network.loss_and_gradients(X, y)
    assert np.abs(gradients["b1"]).max() < 1e-14 < np.abs(gradients["W1"]).max()


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(2, 40),
    widths=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    classes=st.integers(2, 6),
    activation=st.sampled_from(("relu", "elu", "tanh")),
    weighted=st.booleans(),
)
def test_gradients_equal_the_lecture_loop_over_examples(rows, widths, classes, activation, weighted):
    network = gpunet.Network(
        [*widths, classes], activation=activation, batch_norm=False, dtype="float64", device="cpu", seed=rows
    )
    randomise(network)
    X, y = random_problem(rows, widths[0], classes, seed=rows)
    weights = np.linspace(0.5, 2, rows) if weighted else None
    cost, gradients = network.loss_and_gradients(X, y, l2=0.02, sample_weight=weights)

    parameters = network.get_parameters()
    W = [parameters[f"W{index}"] for index in range(1, len(widths) + 1)]
    b = [parameters[f"b{index}"] for index in range(1, len(widths) + 1)]
    for oracle in (loop_over_examples, vectorised):
        expected_cost, expected = oracle(X, y, W, b, 0.02, activation_named(activation), sample_weights=weights)
        assert cost == pytest.approx(expected_cost, rel=1e-12)
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, expected[name], rtol=1e-9, atol=1e-13, err_msg=name)


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(3, 20),
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    activation=st.sampled_from(("relu", "leaky_relu", "tanh")),
    scale_shift=st.booleans(),
)
def test_batch_norm_gradients_equal_the_lecture_term_by_term(rows, widths, activation, scale_shift):
    network = gpunet.Network(
        [*widths, 3], activation=activation, scale_shift=scale_shift, dtype="float64", device="cpu", seed=rows
    )
    randomise(network)
    X, y = random_problem(rows, widths[0], 3, seed=rows)
    cost, gradients = network.loss_and_gradients(X, y, l2=0.02, input_gradient=True)

    parameters = network.get_parameters()
    hidden = range(1, len(widths))
    expected_cost, expected = batch_norm_network_gradients(
        X,
        y,
        [parameters[f"W{index}"] for index in (*hidden, len(widths))],
        [parameters[f"gamma{index}"] for index in hidden] if scale_shift else None,
        [parameters[f"beta{index}"] for index in hidden] if scale_shift else None,
        parameters[f"b{len(widths)}"],
        0.02,
        activation_named(activation),
    )
    assert cost == pytest.approx(expected_cost, rel=1e-10)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-7, atol=1e-10, err_msg=name)


def test_squared_error_equals_the_lecture_loop():
    network = gpunet.Network(
        [4, 5, 2], activation="sigmoid", batch_norm=False, loss="squared_error", dtype="float64", device="cpu"
    )
    generator = np.random.default_rng(0)
    X, targets = generator.standard_normal((7, 4)), generator.standard_normal((7, 2))
    cost, gradients = network.loss_and_gradients(X, targets, l2=0.1)
    p = network.get_parameters()
    expected_cost, expected = loop_over_examples(
        X, targets, [p["W1"], p["W2"]], [p["b1"], p["b2"]], 0.1, activation_named("sigmoid"), loss=squared_error
    )
    assert cost == pytest.approx(expected_cost, rel=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-10, atol=1e-14)
