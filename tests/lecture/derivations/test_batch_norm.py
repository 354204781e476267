"""The lecture's batch norm: Jacobians, terms and whole gradients against finite differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpunet.lecture.derivations import batch_norm as lecture
from gpunet.lecture.derivations.activations import FloatArray, activation_named
from gpunet.lecture.derivations.batch_gradient import cross_entropy, squared_error
from tests.helpers.jacobians import assert_agrees, jacobian_by_central_differences

SHAPES = [(2, 1), (3, 4), (7, 5), (16, 3)]
EPSILON = 1e-3
each_shape = pytest.mark.parametrize(("n", "m"), SHAPES)


def scores_of(n: int, m: int, seed: int = 0) -> FloatArray:
    """A batch of scores with a mean and a scale of its own in every dimension."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 3, m) * rng.standard_normal((n, m)) + rng.uniform(-4, 4, m)


def normalised_score(s_i: FloatArray, mu_b: FloatArray, v_b: FloatArray) -> FloatArray:
    """The node shat_i as a function of its three inputs, element by element."""
    return (s_i - mu_b) / np.sqrt(v_b + EPSILON)


def cost_of_normalised(S_hat: FloatArray, C: FloatArray) -> float:
    """A cost that is not linear in S_hat, so that dJ/dS_hat differs from example to example."""
    return float(np.sum(C * np.sin(S_hat)))


def gradient_of_cost(S_hat: FloatArray, C: FloatArray) -> FloatArray:
    return C * np.cos(S_hat)


# Forward.


@each_shape
def test_normalised_batch_has_mean_zero_and_variance_nearly_one(n: int, m: int) -> None:
    S = scores_of(n, m)
    S_hat, mu_b, v_b = lecture.normalise(S, epsilon=EPSILON)
    np.testing.assert_allclose(mu_b, S.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(v_b, S.var(axis=0, ddof=0), rtol=1e-12)
    np.testing.assert_allclose(S_hat.mean(axis=0), 0, atol=1e-13)
    np.testing.assert_allclose(S_hat.var(axis=0), v_b / (v_b + EPSILON), rtol=1e-12)
    np.testing.assert_allclose(S_hat, normalised_score(S, mu_b, v_b), rtol=1e-12)


def test_two_examples_by_hand() -> None:
    """n = 2 as in the lecture's figure: mean 3, variance 4, so V_b^(-1/2) = 1/2."""
    S_hat, mu_b, v_b = lecture.normalise(np.array([[1.0], [5.0]]), epsilon=0.0)
    assert mu_b.item() == 3
    assert v_b.item() == 4
    np.testing.assert_array_equal(S_hat, [[-1.0], [1.0]])


def test_equal_scores_normalise_to_zero() -> None:
    np.testing.assert_array_equal(lecture.normalise(np.full((4, 2), 3.0)).S_hat, np.zeros((4, 2)))


def test_scale_and_shift_can_undo_the_normalisation() -> None:
    S = scores_of(7, 5)
    S_hat, mu_b, v_b = lecture.normalise(S, EPSILON)
    np.testing.assert_allclose(lecture.scale_and_shift(S_hat, np.sqrt(v_b + EPSILON), mu_b), S, rtol=1e-13)


# At test time.


def test_running_statistics_take_a_tenth_of_the_new_mean_and_unbiased_variance() -> None:
    S = scores_of(7, 3)
    mean, variance = lecture.updated_running_statistics(np.full(3, 2.0), np.full(3, 5.0), S)
    np.testing.assert_allclose(mean, 0.9 * 2 + 0.1 * S.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(variance, 0.9 * 5 + 0.1 * S.var(axis=0, ddof=1), rtol=1e-13)


def test_running_statistics_need_two_examples() -> None:
    with pytest.raises(ValueError, match="batch of 1"):
        lecture.updated_running_statistics(np.zeros(3), np.ones(3), np.ones((1, 3)))


def test_test_time_normalisation_treats_every_example_alone() -> None:
    S, mean, variance = scores_of(5, 3), np.array([1.0, -2.0, 0.5]), np.array([0.4, 2.0, 9.0])
    together = lecture.normalise_at_test_time(S, mean, variance, EPSILON)
    np.testing.assert_allclose(together, normalised_score(S, mean, variance), rtol=1e-13)
    for i in range(5):
        alone = lecture.normalise_at_test_time(S[i : i + 1], mean, variance, EPSILON)
        np.testing.assert_array_equal(alone, together[i : i + 1])


def test_test_time_and_training_agree_when_the_running_statistics_are_the_batch_s() -> None:
    S = scores_of(6, 4)
    S_hat, mu_b, v_b = lecture.normalise(S, EPSILON)
    np.testing.assert_array_equal(lecture.normalise_at_test_time(S, mu_b, v_b, EPSILON), S_hat)


# Local Jacobians: each with the node's other inputs held fixed.


@each_shape
def test_jacobians_of_the_normalised_score(n: int, m: int) -> None:
    S = scores_of(n, m)
    _, mu_b, v_b = lecture.normalise(S, EPSILON)
    for s_i in S:

        def by_variance(v_b: FloatArray, s_i: FloatArray = s_i) -> FloatArray:
            return normalised_score(s_i, mu_b, v_b)

        def by_mean(mu_b: FloatArray, s_i: FloatArray = s_i) -> FloatArray:
            return normalised_score(s_i, mu_b, v_b)

        assert_agrees(
            lecture.jacobian_normalised_by_score(v_b, EPSILON),
            jacobian_by_central_differences(lambda s_i: normalised_score(s_i, mu_b, v_b), s_i),
        )
        assert_agrees(
            lecture.jacobian_normalised_by_variance(s_i, mu_b, v_b, EPSILON),
            jacobian_by_central_differences(by_variance, v_b, step=1e-6),
        )
        assert_agrees(lecture.jacobian_normalised_by_mean(v_b, EPSILON), jacobian_by_central_differences(by_mean, mu_b))


@each_shape
def test_jacobians_of_the_batch_variance_and_mean(n: int, m: int) -> None:
    S = scores_of(n, m)
    mu_b = lecture.batch_mean(S)
    for i in range(n):

        def variance_with_score(s_i: FloatArray, i: int = i) -> FloatArray:
            return lecture.batch_variance(np.concatenate([S[:i], s_i[np.newaxis], S[i + 1 :]]), mu_b)

        def mean_with_score(s_i: FloatArray, i: int = i) -> FloatArray:
            return lecture.batch_mean(np.concatenate([S[:i], s_i[np.newaxis], S[i + 1 :]]))

        assert_agrees(
            lecture.jacobian_variance_by_score(S[i], mu_b, n),
            jacobian_by_central_differences(variance_with_score, S[i]),
        )
        assert_agrees(lecture.jacobian_mean_by_score(n, m), jacobian_by_central_differences(mean_with_score, S[i]))


@each_shape
def test_variance_does_not_change_with_the_mean(n: int, m: int) -> None:
    """dv_b/dmu_b is zero at the batch mean, though not elsewhere."""
    S = scores_of(n, m)
    mu_b = lecture.batch_mean(S)
    np.testing.assert_allclose(lecture.jacobian_variance_by_mean(S, mu_b), np.zeros((m, m)), atol=1e-14)
    assert_agrees(
        lecture.jacobian_variance_by_mean(S, mu_b + 1),
        jacobian_by_central_differences(lambda mu: lecture.batch_variance(S, mu), mu_b + 1),
    )


# The gradients of J, term by term.


@each_shape
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_gradients_with_respect_to_variance_and_mean(n: int, m: int, offset: float) -> None:
    """dJ/dv_b with mu_b fixed; dJ/dmu_b directly and through v_b, which matters only away from the mean."""
    S = scores_of(n, m)
    C = np.random.default_rng(1).standard_normal((n, m))
    mu_b = lecture.batch_mean(S) + offset
    v_b = lecture.batch_variance(S, mu_b)
    dJ_dS_hat = gradient_of_cost(normalised_score(S, mu_b, v_b), C)
    dJ_dv_b = lecture.gradient_of_variance(dJ_dS_hat, S, mu_b, v_b, EPSILON)
    dJ_dmu_b = lecture.gradient_of_mean(dJ_dS_hat, dJ_dv_b, S, mu_b, v_b, EPSILON)

    def J_of_variance(v_b: FloatArray) -> float:
        return cost_of_normalised(normalised_score(S, mu_b, v_b), C)

    def J_of_mean(mu_b: FloatArray) -> float:
        return cost_of_normalised(normalised_score(S, mu_b, lecture.batch_variance(S, mu_b)), C)

    assert_agrees(dJ_dv_b, jacobian_by_central_differences(J_of_variance, v_b, step=1e-6))
    assert_agrees(dJ_dmu_b, jacobian_by_central_differences(J_of_mean, mu_b))


@each_shape
def test_gradient_of_scores_against_finite_differences(n: int, m: int) -> None:
    S = scores_of(n, m)
    C = np.random.default_rng(1).standard_normal((n, m))
    dJ_dS_hat = gradient_of_cost(lecture.normalise(S, EPSILON).S_hat, C)
    expected = jacobian_by_central_differences(lambda S: cost_of_normalised(lecture.normalise(S, EPSILON).S_hat, C), S)
    dJ_dS = lecture.gradient_of_scores(dJ_dS_hat, S, EPSILON)
    assert dJ_dS.shape == S.shape
    # With n = 2 most of the gradient cancels: only the part that epsilon leaves is left.
    relative = 1e-7 * np.abs(dJ_dS_hat).max() / np.abs(expected).max()
    assert_agrees(dJ_dS.reshape(1, -1), expected, relative=max(relative, 1e-7))


@given(
    n=st.integers(1, 12),
    m=st.integers(1, 6),
    epsilon=st.sampled_from([1e-5, 1e-3, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_term_by_term_equals_the_closed_form(n: int, m: int, epsilon: float, seed: int) -> None:
    """ds = gamma / sqrt(v + epsilon) (dy - mean(dy) - s_hat mean(dy s_hat))."""
    S = scores_of(n, m, seed)
    rng = np.random.default_rng(seed + 1)
    dY, gamma = rng.standard_normal((n, m)), rng.standard_normal(m)
    mean, variance = S.mean(axis=0), S.var(axis=0)
    S_hat = (S - mean) / np.sqrt(variance + epsilon)
    projected = dY - dY.mean(axis=0) - S_hat * (dY * S_hat).mean(axis=0)
    expected = gamma / np.sqrt(variance + epsilon) * projected

    dS_hat, dgamma, dbeta = lecture.gradients_of_scale_and_shift(dY, S_hat, gamma)
    scale = 1 + np.abs(dS_hat / np.sqrt(variance + epsilon)).max()
    for gradient in (lecture.gradient_of_scores, lecture.gradient_of_scores_closed_form):
        np.testing.assert_allclose(gradient(dS_hat, S, epsilon), expected, rtol=0, atol=1e-11 * scale)
    np.testing.assert_allclose(dgamma, (dY * S_hat).sum(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(dbeta, dY.sum(axis=0), rtol=0, atol=1e-12)


@each_shape
def test_gradients_of_scale_and_shift_against_finite_differences(n: int, m: int) -> None:
    rng = np.random.default_rng(2)
    S_hat, gamma, beta, C = (
        rng.standard_normal((n, m)),
        rng.standard_normal(m),
        rng.standard_normal(m),
        scores_of(n, m),
    )
    dY = gradient_of_cost(lecture.scale_and_shift(S_hat, gamma, beta), C)
    dS_hat, dgamma, dbeta = lecture.gradients_of_scale_and_shift(dY, S_hat, gamma)

    def J(S_hat: FloatArray = S_hat, gamma: FloatArray = gamma, beta: FloatArray = beta) -> float:
        return cost_of_normalised(lecture.scale_and_shift(S_hat, gamma, beta), C)

    assert_agrees(dS_hat.reshape(1, -1), jacobian_by_central_differences(lambda S_hat: J(S_hat=S_hat), S_hat))
    assert_agrees(dgamma[np.newaxis], jacobian_by_central_differences(lambda gamma: J(gamma=gamma), gamma))
    assert_agrees(dbeta[np.newaxis], jacobian_by_central_differences(lambda beta: J(beta=beta), beta))


@each_shape
def test_moving_or_stretching_the_whole_batch_leaves_j_unchanged(n: int, m: int) -> None:
    """Batch norm ignores a shift of all scores, and without epsilon also a scale about the mean."""
    S = scores_of(n, m)
    dS = lecture.gradient_of_scores(np.random.default_rng(3).standard_normal((n, m)), S, epsilon=0.0)
    np.testing.assert_allclose(dS.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose((dS * S).sum(axis=0), 0, atol=1e-11)


# The k-layer network with batch norm.


class NetworkAndBatch(NamedTuple):
    """A batch and a network with batch norm, in the order of `batch_norm_network_gradients`."""

    X: FloatArray
    labels: NDArray[np.integer]
    weights: list[FloatArray]
    gammas: list[FloatArray]
    betas: list[FloatArray]
    last_bias: FloatArray

    @property
    def parameters(self) -> dict[str, FloatArray]:
        """Every array the cost is differentiated by, under its name in the gradients."""
        hidden = range(1, len(self.weights))
        return (
            {f"W{i}": W for i, W in enumerate(self.weights, start=1)}
            | {f"gamma{i}": self.gammas[i - 1] for i in hidden}
            | {f"beta{i}": self.betas[i - 1] for i in hidden}
            | {f"b{len(self.weights)}": self.last_bias, "X": self.X}
        )

    def with_parameters(self, values: dict[str, FloatArray]) -> NetworkAndBatch:
        k = len(self.weights)
        return NetworkAndBatch(
            values["X"],
            self.labels,
            [values[f"W{i}"] for i in range(1, k + 1)],
            [values[f"gamma{i}"] for i in range(1, k)],
            [values[f"beta{i}"] for i in range(1, k)],
            values[f"b{k}"],
        )


def problem(widths: tuple[int, ...], n: int, seed: int = 0) -> NetworkAndBatch:
    rng = np.random.default_rng(seed)
    return NetworkAndBatch(
        X=rng.standard_normal((n, widths[0])),
        labels=rng.integers(widths[-1], size=n),
        weights=[rng.standard_normal((m, d)) for d, m in itertools.pairwise(widths)],
        gammas=[rng.uniform(0.5, 2, m) for m in widths[1:-1]],
        betas=[rng.uniform(-1, 1, m) for m in widths[1:-1]],
        last_bias=rng.standard_normal(widths[-1]),
    )


def smallest_shifted_score(p: NetworkAndBatch) -> float:
    """How near a ReLU network with batch norm comes to a kink, computed without the code under test."""
    smallest, X = np.inf, p.X
    for W, gamma, beta in zip(p.weights[:-1], p.gammas, p.betas, strict=True):
        S = X @ W.T
        Y = gamma * (S - S.mean(axis=0)) / np.sqrt(S.var(axis=0) + EPSILON) + beta
        smallest, X = min(smallest, np.abs(Y).min()), np.maximum(0, Y)
    return float(smallest)


def gradients_of(p: NetworkAndBatch, activation: str, **options: Any) -> tuple[float, dict[str, FloatArray]]:
    return lecture.batch_norm_network_gradients(
        *p, l2=0.05, activation=activation_named(activation), epsilon=EPSILON, **options
    )


def expected_gradient(p: NetworkAndBatch, name: str, activation: str, **options: Any) -> FloatArray:
    def J(changed: FloatArray) -> float:
        return gradients_of(p.with_parameters(p.parameters | {name: changed}), activation, **options)[0]

    value = p.parameters[name]
    return jacobian_by_central_differences(J, value).reshape(value.shape)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "identity"])
@pytest.mark.parametrize("widths", [(4, 3), (5, 4, 3), (3, 1, 4, 2), (2, 3, 1, 3, 2), (3, 3, 3, 3, 3)], ids=str)
@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
def test_network_gradients_against_finite_differences(
    activation: str, widths: tuple[int, ...], loss: Callable[..., Any]
) -> None:
    p = problem(widths, 5)
    options = {"sample_weights": np.array([0.5, 2.0, 1.0, 0.0, 3.0]), "loss": loss}
    _, gradients = gradients_of(p, activation, **options)
    assert gradients.keys() == p.parameters.keys()
    for name, gradient in gradients.items():
        assert_agrees(gradient, expected_gradient(p, name, activation, **options), relative=2e-7)


@pytest.mark.parametrize("widths", [(5, 4, 3), (3, 2, 4, 2), (3, 3, 3, 3, 3)], ids=str)
def test_relu_network_gradients_against_finite_differences(widths: tuple[int, ...]) -> None:
    candidates = (problem(widths, 5, seed) for seed in range(1000))
    p = next(candidate for candidate in candidates if smallest_shifted_score(candidate) > 1e-2)
    for name, gradient in gradients_of(p, "relu")[1].items():
        assert_agrees(gradient, expected_gradient(p, name, "relu"), relative=2e-7)


def test_cost_is_the_mean_loss_plus_l2_on_the_weights_only() -> None:
    p = problem((5, 4, 3), 6)
    S = p.X @ p.weights[0].T
    Y = p.gammas[0] * (S - S.mean(axis=0)) / np.sqrt(S.var(axis=0) + EPSILON) + p.betas[0]
    scores = np.tanh(Y) @ p.weights[1].T + p.last_bias
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    loss = -np.log(probabilities[np.arange(6), p.labels]).mean()
    penalty = 0.05 * sum((W**2).sum() for W in p.weights)
    assert gradients_of(p, "tanh")[0] == pytest.approx(loss + penalty, rel=1e-13)


def test_without_scale_and_shift_the_rest_is_as_with_gamma_one_and_beta_zero() -> None:
    p = problem((5, 4, 3, 2), 6)
    p = p._replace(gammas=[np.ones(4), np.ones(3)], betas=[np.zeros(4), np.zeros(3)])
    cost, gradients = gradients_of(p, "tanh")
    plain_cost, plain = lecture.batch_norm_network_gradients(
        p.X, p.labels, p.weights, None, None, p.last_bias, 0.05, activation_named("tanh"), EPSILON
    )
    assert plain.keys() == {"W1", "W2", "W3", "b3", "X"}
    assert plain_cost == cost
    for name, gradient in plain.items():
        np.testing.assert_array_equal(gradient, gradients[name])


def test_a_bias_before_batch_norm_would_change_nothing() -> None:
    """The reason it is left out: the gradient that would reach it, the sum of dJ/ds_i, is zero."""
    p = problem((5, 4, 3), 6)
    with_constant_input = p._replace(
        X=np.column_stack([p.X, np.ones(6)]),
        weights=[np.column_stack([p.weights[0], [3.0, -1.0, 0.5, 2.0]]), p.weights[1]],
    )
    without = lecture.batch_norm_network_gradients(*p, l2=0.0, activation=activation_named("tanh"))
    with_bias = lecture.batch_norm_network_gradients(*with_constant_input, l2=0.0, activation=activation_named("tanh"))
    assert with_bias[0] == pytest.approx(without[0], rel=1e-13)
    np.testing.assert_allclose(with_bias[1]["W1"][:, :-1], without[1]["W1"], rtol=0, atol=1e-13)
    np.testing.assert_allclose(with_bias[1]["W1"][:, -1], 0, atol=1e-14)


@pytest.mark.parametrize("change", [{"gammas": None}, {"betas": None}, {"gammas": []}, {"betas": [np.zeros(4)] * 2}])
def test_scales_and_shifts_that_do_not_match_the_hidden_layers_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="1 hidden layers"):
        gradients_of(problem((5, 4, 3), 6)._replace(**change), "tanh")


@settings(deadline=None)
@given(
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=5).map(tuple),
    n=st.integers(1, 7),
    seed=st.integers(0, 10_000),
)
def test_any_shape_gives_gradients_of_the_parameters_shapes(widths: tuple[int, ...], n: int, seed: int) -> None:
    p = problem(widths, n, seed)
    _, gradients = gradients_of(p, "leaky_relu")
    assert {name: g.shape for name, g in gradients.items()} == {n: value.shape for n, value in p.parameters.items()}
