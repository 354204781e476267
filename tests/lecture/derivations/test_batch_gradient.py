"""The lecture's batch gradient: loop over examples, vectorised and finite differences agree."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpunet.lecture.derivations import single_example
from gpunet.lecture.derivations.activations import Activation, FloatArray, activation_named
from gpunet.lecture.derivations.batch_gradient import (
    Loss,
    cross_entropy,
    example_weights,
    loop_over_examples,
    squared_error,
    target_rows,
    two_layer_loop_over_examples,
    vectorised,
)
from tests.helpers.jacobians import assert_agrees, jacobian_by_central_differences

ACTIVATION_NAMES = ["sigmoid", "tanh", "relu", "leaky_relu", "elu", "identity"]
LAYER_WIDTHS = [(5, 3), (5, 7, 3), (3, 1, 4, 2), (1, 2, 1, 3, 2), (3, 3, 3, 3, 3)]
each_loss = pytest.mark.parametrize("loss", [cross_entropy, squared_error])


class NetworkAndBatch(NamedTuple):
    """A batch and a network."""

    X: FloatArray
    labels: NDArray[np.integer]
    weights: list[FloatArray]
    biases: list[FloatArray]


def problem(widths: tuple[int, ...], n: int, seed: int = 0) -> NetworkAndBatch:
    rng = np.random.default_rng(seed)
    layers = list(itertools.pairwise(widths))
    return NetworkAndBatch(
        X=rng.standard_normal((n, widths[0])),
        labels=rng.integers(widths[-1], size=n),
        weights=[rng.standard_normal((m, d)) for d, m in layers],
        biases=[rng.standard_normal(m) for _, m in layers],
    )


def problem_away_from_kinks(widths: tuple[int, ...], n: int, activation: Activation) -> NetworkAndBatch:
    """A problem in which no hidden score is near 0, where ReLU and its relatives have no derivative."""
    for seed in range(1000):
        candidate = problem(widths, n, seed)
        scores = [
            s
            for x in candidate.X
            for s in single_example.forward_pass(x, candidate.weights, candidate.biases, activation)[1]
        ]
        if all(np.abs(s).min() > 1e-3 for s in scores):
            return candidate
    raise AssertionError("every seed gave a score near zero")


def assert_same_result(
    computed: tuple[float, dict[str, FloatArray]], expected: tuple[float, dict[str, FloatArray]]
) -> None:
    """Equal cost and gradients up to rounding."""
    assert computed[0] == pytest.approx(expected[0], rel=1e-12, abs=1e-14)
    assert computed[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert_agrees(computed[1][name], gradient, relative=1e-12)


@pytest.mark.parametrize("implementation", [loop_over_examples, vectorised])
@pytest.mark.parametrize("name", ACTIVATION_NAMES)
@pytest.mark.parametrize("widths", LAYER_WIDTHS, ids=str)
@each_loss
def test_gradients_against_finite_differences(
    implementation: Callable[..., Any], name: str, widths: tuple[int, ...], loss: Loss
) -> None:
    activation = activation_named(name)
    X, labels, weights, biases = problem_away_from_kinks(widths, 3, activation)
    options: dict[str, Any] = {"loss": loss, "sample_weights": np.array([0.5, 3.0, 1.2])}
    _, gradients = implementation(X, labels, weights, biases, 0.05, activation, **options)
    assert len(gradients) == 2 * len(weights)
    for i in range(1, len(widths)):

        def J_of_W(W: FloatArray, i: int = i) -> float:
            changed = [*weights[: i - 1], W, *weights[i:]]
            return vectorised(X, labels, changed, biases, 0.05, activation, **options)[0]

        def J_of_b(b: FloatArray, i: int = i) -> float:
            changed = [*biases[: i - 1], b, *biases[i:]]
            return vectorised(X, labels, weights, changed, 0.05, activation, **options)[0]

        expected_W = jacobian_by_central_differences(J_of_W, weights[i - 1])
        expected_b = jacobian_by_central_differences(J_of_b, biases[i - 1])
        assert gradients[f"W{i}"].shape == weights[i - 1].shape
        assert gradients[f"b{i}"].shape == biases[i - 1].shape
        assert_agrees(gradients[f"W{i}"].reshape(1, -1), expected_W, relative=1e-7)
        assert_agrees(gradients[f"b{i}"].reshape(1, -1), expected_b, relative=1e-7)


@settings(deadline=None)
@given(
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=5).map(tuple),
    n=st.integers(1, 8),
    name=st.sampled_from(ACTIVATION_NAMES),
    loss=st.sampled_from([cross_entropy, squared_error]),
    weighted=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_loop_over_examples_equals_vectorised(
    widths: tuple[int, ...], n: int, name: str, loss: Loss, weighted: bool, seed: int
) -> None:
    X, labels, weights, biases = problem(widths, n, seed)
    sample_weights = np.random.default_rng(seed + 1).uniform(0.1, 3, n) if weighted else None
    arguments = (X, labels, weights, biases, 0.1, activation_named(name))
    assert_same_result(
        vectorised(*arguments, loss=loss, sample_weights=sample_weights),
        loop_over_examples(*arguments, loss=loss, sample_weights=sample_weights),
    )


@pytest.mark.parametrize("n", [1, 2, 7])
def test_two_layer_loop_is_the_k_layer_loop_with_relu(n: int) -> None:
    X, labels, (W1, W2), (b1, b2) = problem((5, 7, 3), n)
    two_layer = two_layer_loop_over_examples(X, labels, W1, b1, W2, b2, 0.1)
    relu = activation_named("relu")
    cost, k_layer = loop_over_examples(X, labels, [W1, W2], [b1, b2], 0.1, relu)
    assert_same_result((cost, two_layer), (cost, k_layer))


@pytest.mark.parametrize("widths", LAYER_WIDTHS, ids=str)
def test_batch_gradient_is_the_mean_of_the_single_example_gradients(widths: tuple[int, ...]) -> None:
    """The L2 term is the same for every example, so it is also the mean of itself."""
    tanh = activation_named("tanh")
    X, labels, weights, biases = problem(widths, 5)
    columns = [single_example.one_hot(int(label), widths[-1]) for label in labels]
    examples = list(zip(X, columns, strict=True))
    cost, gradients = vectorised(X, labels, weights, biases, 0.1, tanh)
    costs = [single_example.cost(x, y, weights, biases, tanh, 0.1) for x, y in examples]
    single = [single_example.aggregated_backward(x, y, weights, biases, tanh, 0.1) for x, y in examples]
    assert cost == pytest.approx(np.mean(costs), rel=1e-13)
    for name, gradient in gradients.items():
        mean = np.mean([g[name] for g in single], axis=0)
        assert_agrees(gradient, mean.reshape(gradient.shape), relative=1e-13)


# Sample weights.


@pytest.mark.parametrize("implementation", [loop_over_examples, vectorised])
def test_whole_sample_weights_repeat_examples(implementation: Callable[..., Any]) -> None:
    X, labels, weights, biases = problem((4, 5, 3), 4)
    counts = np.array([2, 0, 1, 3])
    rest = (weights, biases, 0.1, activation_named("sigmoid"))
    weighted = implementation(X, labels, *rest, sample_weights=counts.astype(np.float64))
    repeated = implementation(np.repeat(X, counts, axis=0), np.repeat(labels, counts), *rest)
    assert_same_result(weighted, repeated)


def test_the_scale_of_sample_weights_does_not_matter() -> None:
    X, labels, weights, biases = problem((4, 5, 3), 4)
    arguments = (X, labels, weights, biases, 0.1, activation_named("sigmoid"))
    plain = vectorised(*arguments)
    assert_same_result(vectorised(*arguments, sample_weights=np.full(4, 7.0)), plain)


@pytest.mark.parametrize(
    "sample_weights", [[1.0, 1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, np.nan, 1.0], [1.0, np.inf, 1.0]]
)
def test_unfit_sample_weights_are_refused(sample_weights: list[float]) -> None:
    with pytest.raises(ValueError, match="3 non-negative sample weights"):
        example_weights(np.array(sample_weights), 3)


# Losses and targets.


@each_loss
def test_row_gradient_of_a_loss_against_finite_differences(loss: Loss) -> None:
    rng = np.random.default_rng(0)
    scores, targets = rng.standard_normal((4, 5)), target_rows(rng.integers(5, size=4), 5)
    expected = jacobian_by_central_differences(lambda s: float(loss(s, targets)[0].sum()), scores)
    assert_agrees(loss(scores, targets)[1], expected.reshape(scores.shape), relative=1e-8)


def test_cross_entropy_is_that_of_the_single_example_row_by_row() -> None:
    rng = np.random.default_rng(0)
    scores, labels = 4 * rng.standard_normal((6, 3)), rng.integers(3, size=6)
    losses, row_gradients = cross_entropy(scores, target_rows(labels, 3))
    for i in range(6):
        s, y = scores[i][:, np.newaxis], single_example.one_hot(int(labels[i]), 3)
        p = single_example.softmax(s)
        jacobian_form = single_example.jacobian_cross_entropy_by_probabilities(
            p, y
        ) @ single_example.jacobian_softmax_by_scores(p)
        assert losses[i] == pytest.approx(single_example.cross_entropy(p, y), rel=1e-12)
        np.testing.assert_allclose(row_gradients[i : i + 1], jacobian_form, rtol=0, atol=1e-14)


def test_cross_entropy_stays_finite_for_extreme_scores() -> None:
    with np.errstate(all="raise", under="ignore"):
        losses, row_gradients = cross_entropy(np.array([[1e4, -1e4]]), np.array([[0.0, 1.0]]))
    np.testing.assert_array_equal(losses, [2e4])
    np.testing.assert_array_equal(row_gradients, [[1.0, -1.0]])


def test_squared_error_of_known_outputs() -> None:
    losses, row_gradients = squared_error(np.array([[1.0, 5.0], [0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 1.0]]))
    np.testing.assert_array_equal(losses, [2.5, 0.5])
    np.testing.assert_array_equal(row_gradients, [[-2.0, 1.0], [0.0, -1.0]])


@pytest.mark.parametrize("implementation", [loop_over_examples, vectorised])
def test_targets_may_be_real_numbers(implementation: Callable[..., Any]) -> None:
    """One linear layer with squared error is least squares: at its solution the gradient vanishes."""
    rng = np.random.default_rng(0)
    X, T = rng.standard_normal((20, 3)), rng.standard_normal((20, 2))
    solution = np.linalg.lstsq(np.column_stack([X, np.ones(20)]), T, rcond=None)[0]
    W, b = solution[:3].T, solution[3]
    cost, gradients = implementation(X, T, [W], [b], 0.0, activation_named("identity"), loss=squared_error)
    assert cost == pytest.approx(0.5 * np.mean(np.sum((X @ W.T + b - T) ** 2, axis=1)), rel=1e-12)
    np.testing.assert_allclose(gradients["W1"], 0, atol=1e-14)
    np.testing.assert_allclose(gradients["b1"], 0, atol=1e-14)


def test_integer_labels_become_one_hot_rows() -> None:
    np.testing.assert_array_equal(target_rows(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize(
    "labels",
    [np.array([0, 3]), np.array([-1, 0]), np.array([0.0, 1.0]), np.zeros((2, 2)), np.zeros((1, 2, 3))],
)
def test_unfit_labels_are_refused(labels: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="labels"):
        target_rows(labels, 3)
