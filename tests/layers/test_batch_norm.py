"""Batch norm's numbers: statistics far from zero, long sums, running averages, inference (L22-L23)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunet
from gpunet.activations import Identity, ReLU, SiLU
from gpunet.backends import Backend, NumpyBackend

EPSILON = 1e-5


def run_forward(s, gamma=None, beta=None, activation=None, momentum=0.1, epsilon=EPSILON):
    """Run the forward pass on fresh buffers and return everything that it writes."""
    columns = s.shape[1]
    result = {
        "out": np.full_like(s, np.nan),
        "mean": np.full(columns, np.nan, s.dtype),
        "inverse_std": np.full(columns, np.nan, s.dtype),
        "running_mean": np.zeros(columns, s.dtype),
        "running_variance": np.ones(columns, s.dtype),
    }
    NumpyBackend().batch_norm_activation_forward(
        s, gamma, beta, activation or Identity(), momentum=momentum, epsilon=epsilon, **result
    )
    return result


@pytest.mark.parametrize("ratio", [0, 1, 10, 1e2, 1e3, 1e4])
@pytest.mark.parametrize("rows", [2, 3, 255, 256, 257, 4096])
def test_variance_far_from_zero(ratio, rows):
    """float32 variance within 1e-4 of float64 for mean / std up to 1e4, and never NaN."""
    generator = np.random.default_rng(rows)
    s = (generator.standard_normal((rows, 5)) + ratio).astype(np.float32)
    result = run_forward(s, momentum=1.0, epsilon=1e-30)
    expected = s.astype(np.float64).var(axis=0)
    np.testing.assert_allclose(result["inverse_std"].astype(np.float64) ** -2, expected, rtol=1e-4)
    np.testing.assert_allclose(result["running_variance"], expected * rows / (rows - 1), rtol=1e-4)
    assert np.isfinite(result["out"]).all()


def test_what_rounding_leaves_of_a_large_mean_is_taken_out():
    """Mean 1e4, where a float32 mean alone is several units off: nothing of that is left in the results."""
    rows = 255
    s = (np.random.default_rng(rows).standard_normal((rows, 8)) + 1e4).astype(np.float32)
    result = run_forward(s, momentum=1.0, epsilon=1e-30)
    exact = s.astype(np.float64)
    mean, variance = exact.mean(axis=0), exact.var(axis=0)
    np.testing.assert_allclose(result["out"], (exact - mean) / np.sqrt(variance), rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(result["mean"], mean, rtol=0, atol=0.6 * np.spacing(np.float32(1e4)))
    np.testing.assert_allclose(result["running_mean"], result["mean"], rtol=0)
    np.testing.assert_allclose(result["running_variance"], variance * rows / (rows - 1), rtol=2e-6)
    np.testing.assert_allclose(result["inverse_std"], 1 / np.sqrt(variance), rtol=1e-6)


@pytest.mark.parametrize("derivative_of", [ReLU(), SiLU()], ids=str)
def test_the_gradient_without_scale_and_shift_is_the_references(derivative_of):
    """The sums over the batch are needed then too, and nobody gives memory for them."""
    generator = np.random.default_rng(0)
    s, dy = (generator.standard_normal((300, 7)) + 0.5 for _ in range(2))
    result = run_forward(s, activation=derivative_of)
    found, expected = np.empty_like(s), np.empty_like(s)
    given = (dy, s, result["out"], None, None, derivative_of, result["mean"], result["inverse_std"])
    NumpyBackend().batch_norm_activation_backward(*given, found, None, None)
    Backend().batch_norm_activation_backward(*given, expected, None, None)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_constant_columns_give_zero_not_nan():
    for value in (0.0, 1.0, 1e4, 123456.78):
        result = run_forward(np.full((37, 3), value, np.float32))
        np.testing.assert_allclose(result["out"], 0, atol=1e-2)
        assert np.isfinite(result["out"]).all()


def test_sums_over_65536_rows_stay_accurate():
    """A plain float32 sum of 65,536 rows near 1 is off by about 1e-4; sums in blocks are not."""
    rows = 65_536
    s = np.random.default_rng(0).uniform(0.5, 1.5, (rows, 3)).astype(np.float32)
    backend, sums = NumpyBackend(), np.empty(3, np.float32)
    expected = s.astype(np.float64).sum(axis=0)
    backend._column_sums(s, sums)
    np.testing.assert_allclose(sums, expected, rtol=5e-7)

    dy = np.random.default_rng(1).uniform(0.5, 1.5, (rows, 3)).astype(np.float32)
    backend.bias_activation_backward(dy, s, Identity(), ds=np.empty_like(s), dbias=sums)
    np.testing.assert_allclose(sums, dy.astype(np.float64).sum(axis=0), rtol=5e-7)

    result = run_forward(s)
    np.testing.assert_allclose(result["mean"], expected / rows, rtol=5e-7)
    np.testing.assert_allclose(result["inverse_std"] ** -2.0, s.astype(np.float64).var(axis=0) + EPSILON, rtol=2e-6)


def test_float32_gradients_over_65536_rows_are_those_of_float64():
    generator = np.random.default_rng(2)
    shape = (65_536, 2)
    s64, dy64 = generator.standard_normal(shape) + 3, generator.standard_normal(shape)
    results = {}
    for dtype in (np.float32, np.float64):
        s, dy = s64.astype(dtype), dy64.astype(dtype)
        forward = run_forward(s, activation=ReLU())
        ds, dgamma, dbeta = np.empty_like(s), np.empty(2, dtype), np.empty(2, dtype)
        NumpyBackend().batch_norm_activation_backward(
            dy, s, forward["out"], None, None, ReLU(), forward["mean"], forward["inverse_std"], ds, dgamma, dbeta
        )
        results[dtype] = (dgamma, dbeta, ds)
    for ours, exact in zip(results[np.float32], results[np.float64], strict=True):
        # An element whose pre-activation rounds to the other side of zero changes its row by its own gradient.
        assert np.median(np.abs(ours - exact)) < 1e-6 * np.abs(exact).max()
    np.testing.assert_allclose(results[np.float32][0], results[np.float64][0], rtol=1e-4)


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(2, 600), columns=st.integers(1, 40), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 2**32 - 1))
def test_forward_is_the_textbook_formula(rows, columns, scale, seed):
    generator = np.random.default_rng(seed)
    s = generator.standard_normal((rows, columns)) * scale
    gamma, beta = generator.standard_normal((2, columns))
    result = run_forward(s, gamma, beta, ReLU())
    expected = np.maximum(gamma * (s - s.mean(axis=0)) / np.sqrt(s.var(axis=0) + EPSILON) + beta, 0)
    np.testing.assert_allclose(result["out"], expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(result["running_mean"], 0.1 * s.mean(axis=0), rtol=1e-9, atol=1e-12 * scale)
    np.testing.assert_allclose(result["running_variance"], 0.9 + 0.1 * s.var(axis=0, ddof=1), rtol=1e-9)


def test_running_averages_converge_to_the_data_and_serve_inference():
    network = gpunet.Network([3, 4, 2], dtype="float64", device="cpu", seed=1)
    X = np.random.default_rng(0).standard_normal((64, 3)) * [1, 5, 0.2] + [0, 2, -1]
    for _ in range(400):
        network.forward(X, training=True)
    scores = X @ network.parameters["W1"].T
    np.testing.assert_allclose(network.state["running_mean1"], scores.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(network.state["running_variance1"], scores.var(axis=0, ddof=1), rtol=1e-9)

    # Inference does not look at the batch: each row alone gives what all rows give.
    together = network.logits(X)
    alone = np.vstack([network.logits(row[np.newaxis]) for row in X])
    np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-12)
    assert np.abs(together - network.forward(X, training=True)).max() > 1e-4


def test_inference_leaves_the_running_averages_alone():
    network = gpunet.Network([3, 4, 2], device="cpu")
    before = network.get_state()
    network.logits(np.ones((5, 3)))
    network.loss_and_gradients(np.eye(3), [0, 1, 0])
    for name, value in network.get_state().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("epsilon", [1e-3, 0.5])
def test_inference_uses_the_networks_epsilon(epsilon):
    network = gpunet.Network(
        [3, 4, 2], batch_norm_epsilon=epsilon, activation="identity", dtype="float64", device="cpu"
    )
    X = np.random.default_rng(0).standard_normal((6, 3))
    p = network.get_parameters()
    expected = (X @ p["W1"].T) / np.sqrt(1 + epsilon) @ p["W2"].T
    np.testing.assert_allclose(network.logits(X), expected, rtol=1e-12)


def test_without_scale_and_shift_there_is_nothing_to_learn():
    network = gpunet.Network([3, 4, 2], scale_shift=False, device="cpu")
    assert list(network.parameters) == ["W1", "W2", "b2"]


def test_a_momentum_of_zero_keeps_and_of_one_replaces():
    s = np.random.default_rng(0).standard_normal((20, 3))
    kept, replaced = run_forward(s, momentum=0.0), run_forward(s, momentum=1.0)
    np.testing.assert_array_equal(kept["running_mean"], 0)
    np.testing.assert_array_equal(kept["running_variance"], 1)
    np.testing.assert_allclose(replaced["running_mean"], s.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(replaced["running_variance"], s.var(axis=0, ddof=1), rtol=1e-12)
