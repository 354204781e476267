"""The lecture's single-example derivation: Jacobians and gradients against finite differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpunet.activations
from gpunet.lecture.derivations import single_example as lecture
from gpunet.lecture.derivations.activations import Activation, FloatArray, activation_named
from tests.helpers.jacobians import assert_agrees, jacobian_by_central_differences

ACTIVATIONS = [
    *map(activation_named, gpunet.activations.ACTIVATIONS),
    activation_named("leaky_relu", slope=0.1),
    activation_named("elu", alpha=0.3),
]
LAYER_WIDTHS = [(5, 3), (5, 7, 3), (3, 1, 4, 2), (1, 2, 1, 3, 2), (3, 3, 3, 3, 3)]
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda activation: activation.name)
each_network = pytest.mark.parametrize("widths", LAYER_WIDTHS, ids=str)


def network(
    widths: tuple[int, ...], activation: Activation
) -> tuple[FloatArray, FloatArray, list[FloatArray], list[FloatArray]]:
    """x, one-hot y, weights and biases with no hidden score near the kink at 0."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((widths[0], 1))
        y = lecture.one_hot(int(rng.integers(widths[-1])), widths[-1])
        weights = [rng.standard_normal((m, d)) for d, m in itertools.pairwise(widths)]
        biases = [rng.standard_normal((m, 1)) for m in widths[1:]]
        _, scores = lecture.forward_pass(x, weights, biases, activation)
        if all(np.abs(s).min() > 1e-2 for s in scores):
            return x, y, weights, biases
    raise AssertionError("every seed gave a score near zero")


# Activations and their derivatives.


@pytest.mark.parametrize(
    ("name", "options", "at_minus_2", "at_3"),
    [
        ("sigmoid", {}, 1 / (1 + np.exp(2)), 1 / (1 + np.exp(-3))),
        ("tanh", {}, -np.sinh(2) / np.cosh(2), np.sinh(3) / np.cosh(3)),
        ("relu", {}, 0, 3),
        ("leaky_relu", {}, -0.02, 3),
        ("leaky_relu", {"slope": 0.1}, -0.2, 3),
        ("elu", {}, np.exp(-2) - 1, 3),
        ("elu", {"alpha": 0.3}, 0.3 * (np.exp(-2) - 1), 3),
        ("identity", {}, -2, 3),
        ("selu", {}, 1.0507009873554805 * 1.6732632423543772 * (np.exp(-2) - 1), 3 * 1.0507009873554805),
        ("softplus", {}, np.log(1 + np.exp(-2)), np.log(1 + np.exp(3))),
        ("gelu", {}, -0.045500263896358414, 2.99595030590511),  # -2 Phi(-2), 3 Phi(3)
        ("silu", {}, -2 / (1 + np.exp(2)), 3 / (1 + np.exp(-3))),
        ("mish", {}, -2 * np.tanh(np.log(1 + np.exp(-2))), 3 * np.tanh(np.log(1 + np.exp(3)))),
        ("hard_sigmoid", {}, 1 / 6, 1),
        ("hard_tanh", {}, -1, 1),
        ("hard_swish", {}, -1 / 3, 3),
    ],
)
def test_activation_has_the_lecture_s_values(
    name: str, options: dict[str, float], at_minus_2: float, at_3: float
) -> None:
    values = activation_named(name, **options).function(np.array([-2.0, 3.0]))
    np.testing.assert_allclose(values, [at_minus_2, at_3], rtol=1e-14)


@each_activation
def test_jacobian_of_an_activation_is_diagonal_with_its_derivative(activation: Activation) -> None:
    s = np.array([[-7.0], [-2.5], [-0.3], [0.2], [1.7], [8.0]])
    expected = jacobian_by_central_differences(activation.function, s)
    assert_agrees(lecture.jacobian_activation_by_scores(s, activation), expected)
    np.testing.assert_allclose(activation.derivative(s)[:, 0], np.diag(expected), rtol=1e-6, atol=1e-12)


@each_activation
def test_activation_keeps_shape_and_stays_finite_at_extreme_scores(activation: Activation) -> None:
    s = np.array([[-1e4, -800.0, 0.0], [800.0, 1e4, 1.0]])
    with np.errstate(all="raise", under="ignore"):
        for values in (activation.function(s), activation.derivative(s)):
            assert values.shape == s.shape
            assert values.dtype == np.float64
            assert np.isfinite(values).all()


def test_derivative_at_the_kink_is_that_from_the_left() -> None:
    zero = np.zeros(1)
    assert activation_named("relu").derivative(zero) == 0
    assert activation_named("leaky_relu", slope=0.2).derivative(zero) == 0.2
    assert activation_named("elu", alpha=0.7).derivative(zero) == 0.7


def test_saturated_derivatives_keep_their_digits() -> None:
    s = np.array([-30.0, 30.0])
    np.testing.assert_allclose(activation_named("sigmoid").derivative(s), np.exp(-30), rtol=1e-12)
    np.testing.assert_allclose(activation_named("tanh").derivative(s), 4 * np.exp(-60), rtol=1e-12)


def test_unknown_activation_is_refused_with_the_known_names() -> None:
    with pytest.raises(ValueError, match=r"'swish'.*sigmoid, tanh, relu"):
        activation_named("swish")


# Local Jacobians.


@given(d=st.integers(1, 6), m=st.integers(1, 6), seed=st.integers(0, 1000))
def test_jacobians_of_a_linear_node(d: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, W, b = rng.standard_normal((d, 1)), rng.standard_normal((m, d)), rng.standard_normal((m, 1))
    assert_agrees(
        lecture.jacobian_linear_by_input(W),
        jacobian_by_central_differences(lambda x: lecture.linear(x, W, b), x),
    )
    assert_agrees(
        lecture.jacobian_linear_by_bias(m),
        jacobian_by_central_differences(lambda b: lecture.linear(x, W, b), b),
    )
    assert_agrees(
        lecture.jacobian_linear_by_weights(x, m),
        jacobian_by_central_differences(lambda v: lecture.linear(x, v.reshape(W.shape), b), lecture.vec(W)),
    )


def test_jacobian_by_weights_has_the_input_where_the_lecture_puts_it() -> None:
    x = np.array([[5.0], [7.0]])
    expected = [[5, 7, 0, 0, 0, 0], [0, 0, 5, 7, 0, 0], [0, 0, 0, 0, 5, 7]]
    np.testing.assert_array_equal(lecture.jacobian_linear_by_weights(x, 3), expected)


@given(c=st.integers(1, 7), seed=st.integers(0, 1000))
def test_jacobians_of_softmax_and_cross_entropy(c: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    s, y = rng.standard_normal((c, 1)), lecture.one_hot(int(rng.integers(c)), c)
    p = lecture.softmax(s)
    assert_agrees(lecture.jacobian_softmax_by_scores(p), jacobian_by_central_differences(lecture.softmax, s))
    assert_agrees(
        lecture.jacobian_cross_entropy_by_probabilities(p, y),
        jacobian_by_central_differences(lambda p: lecture.cross_entropy(p, y), p, step=1e-4 * p[y == 1].item()),
    )


@given(c=st.integers(1, 9), seed=st.integers(0, 1000))
def test_softmax_jacobian_form_is_p_minus_y(c: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    s, y = 3 * rng.standard_normal((c, 1)), lecture.one_hot(int(rng.integers(c)), c)
    p = lecture.softmax(s)
    product = lecture.jacobian_cross_entropy_by_probabilities(p, y) @ lecture.jacobian_softmax_by_scores(p)
    np.testing.assert_allclose(product, (p - y).T, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(lecture.gradient_cross_entropy_by_scores(p, y), (p - y).T)


def test_jacobian_of_the_l2_penalty() -> None:
    W = np.random.default_rng(0).standard_normal((3, 4))
    assert_agrees(
        lecture.jacobian_l2_penalty_by_weights(W, 0.3),
        jacobian_by_central_differences(lambda v: lecture.l2_penalty(v, 0.3), lecture.vec(W)),
    )


def test_l2_penalty_is_lambda_times_the_sum_of_squares() -> None:
    assert lecture.l2_penalty(np.array([[1.0, 2.0], [3.0, -4.0]]), 0.5) == 15


# Softmax and cross-entropy as numbers.


def test_softmax_and_cross_entropy_of_known_scores() -> None:
    p = lecture.softmax(np.log([[1.0], [2.0], [5.0]]))
    np.testing.assert_allclose(p, [[0.125], [0.25], [0.625]], rtol=1e-14)
    assert lecture.cross_entropy(p, lecture.one_hot(1, 3)) == pytest.approx(np.log(4), rel=1e-14)


@given(shift=st.floats(-1e3, 1e3))
def test_softmax_does_not_change_when_all_scores_shift(shift: float) -> None:
    s = np.array([[0.5], [-1.0], [2.0]])
    np.testing.assert_allclose(lecture.softmax(s + shift), lecture.softmax(s), rtol=1e-11)


def test_cross_entropy_of_scores_stays_finite_where_the_probability_underflows() -> None:
    s, y = np.array([[1000.0], [0.0], [-1000.0]]), lecture.one_hot(2, 3)
    assert lecture.softmax(s)[2] == 0
    assert lecture.cross_entropy_of_scores(s, y) == 2000


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_refused(label: int) -> None:
    with pytest.raises(ValueError, match=f"label {label} is not one of the 3 classes"):
        lecture.one_hot(label, 3)


# The 2-layer network.


@pytest.mark.parametrize("l2", [0.0, 0.2])
def test_two_layer_backward_against_finite_differences(l2: float) -> None:
    x, y, (W1, W2), (b1, b2) = network((5, 7, 3), activation_named("relu"))
    parameters = {"W1": W1, "b1": b1, "W2": W2, "b2": b2}
    gradients = lecture.two_layer_backward(x, y, **parameters, l2=l2)
    for name, value in parameters.items():

        def J(changed: FloatArray, name: str = name) -> float:
            return lecture.two_layer_forward(x, y, **(parameters | {name: changed}), l2=l2).J

        expected = jacobian_by_central_differences(J, value)
        assert_agrees(gradients[name].reshape(1, -1), expected)


def test_two_layer_backward_has_the_lecture_s_shapes() -> None:
    x, y, (W1, W2), (b1, b2) = network((5, 7, 3), activation_named("relu"))
    shapes = {name: g.shape for name, g in lecture.two_layer_backward(x, y, W1, b1, W2, b2).items()}
    assert shapes == {
        "s": (1, 3), "W2": (3, 7), "b2": (1, 3), "h": (1, 7), "s1": (1, 7), "W1": (7, 5), "b1": (1, 7),
    }  # fmt: skip


def test_two_layer_gradients_at_the_inner_nodes() -> None:
    """dJ/dh and dJ/ds_1 are the derivatives of what follows those nodes."""
    x, y, (W1, W2), (b1, b2) = network((5, 7, 3), activation_named("relu"))
    values = lecture.two_layer_forward(x, y, W1, b1, W2, b2)
    gradients = lecture.two_layer_backward(x, y, W1, b1, W2, b2)

    def J_of_h(h: FloatArray) -> float:
        return lecture.cross_entropy(lecture.softmax(lecture.linear(h, W2, b2)), y)

    expected_h = jacobian_by_central_differences(J_of_h, values.h)
    expected_s1 = jacobian_by_central_differences(lambda s1: J_of_h(np.maximum(0, s1)), values.s1)
    assert_agrees(gradients["h"], expected_h)
    assert_agrees(gradients["s1"], expected_s1)


# The k-layer network.


@each_activation
@each_network
def test_aggregated_backward_against_finite_differences(widths: tuple[int, ...], activation: Activation) -> None:
    x, y, weights, biases = network(widths, activation)
    gradients = lecture.aggregated_backward(x, y, weights, biases, activation, l2=0.1)
    for i in range(1, len(widths)):

        def J_of_W(W: FloatArray, i: int = i) -> float:
            return lecture.cost(x, y, [*weights[: i - 1], W, *weights[i:]], biases, activation, l2=0.1)

        def J_of_b(b: FloatArray, i: int = i) -> float:
            return lecture.cost(x, y, weights, [*biases[: i - 1], b, *biases[i:]], activation, l2=0.1)

        expected = jacobian_by_central_differences(J_of_W, weights[i - 1])
        assert_agrees(gradients[f"W{i}"].reshape(1, -1), expected)
        assert gradients[f"W{i}"].shape == weights[i - 1].shape
        assert_agrees(gradients[f"b{i}"], jacobian_by_central_differences(J_of_b, biases[i - 1]))


def test_aggregated_backward_for_two_layers_is_the_two_layer_backward() -> None:
    relu = activation_named("relu")
    x, y, (W1, W2), (b1, b2) = network((5, 7, 3), relu)
    step_by_step = lecture.two_layer_backward(x, y, W1, b1, W2, b2, l2=0.1)
    aggregated = lecture.aggregated_backward(x, y, [W1, W2], [b1, b2], relu, l2=0.1)
    assert aggregated.keys() == {"W1", "b1", "W2", "b2"}
    for name, gradient in aggregated.items():
        assert_agrees(gradient, step_by_step[name], relative=1e-13)
    assert lecture.cost(x, y, [W1, W2], [b1, b2], relu, l2=0.1) == pytest.approx(
        lecture.two_layer_forward(x, y, W1, b1, W2, b2, l2=0.1).J, rel=1e-13
    )


def test_vectors_may_be_flat_or_columns() -> None:
    tanh = activation_named("tanh")
    x, y, weights, biases = network((3, 1, 4, 2), tanh)
    columns = lecture.aggregated_backward(x, y, weights, biases, tanh)
    flat = lecture.aggregated_backward(x[:, 0], y[:, 0], weights, [b[:, 0] for b in biases], tanh)
    for name in columns:
        np.testing.assert_array_equal(flat[name], columns[name])
