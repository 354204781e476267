"""Softmax cross-entropy (L4) and its weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunet.backends import NumpyBackend
from gpunet.layers import SoftmaxCrossEntropy
from gpunet.lecture.derivations.single_example import (
    column,
    jacobian_cross_entropy_by_probabilities,
    jacobian_softmax_by_scores,
    one_hot,
    softmax,
)


def run(logits, labels, weights=None):
    gradient, loss = np.full_like(logits, np.nan), np.full(2, np.nan, logits.dtype)
    labels = np.asarray(labels, np.int32)
    NumpyBackend().softmax_cross_entropy(logits, labels, weights, gradient, loss)
    return gradient, loss


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 600), classes=st.integers(2, 30), weighted=st.booleans())
def test_loss_and_gradient_are_the_product_of_the_lectures_jacobians(rows, classes, weighted):
    generator = np.random.default_rng(rows * 100 + classes)
    logits = 3 * generator.standard_normal((rows, classes))
    labels = generator.integers(0, classes, rows)
    weights = generator.uniform(0.1, 2, rows) if weighted else None
    gradient, loss = run(logits, labels, weights)
    w = np.ones(rows) if weights is None else weights
    losses = []
    for row in range(rows):
        p, y = softmax(column(logits[row])), one_hot(int(labels[row]), classes)
        losses.append(-np.log((y * p).sum()))
        expected = jacobian_cross_entropy_by_probabilities(p, y) @ jacobian_softmax_by_scores(p)
        np.testing.assert_allclose(gradient[row], expected[0] * w[row] / w.sum(), rtol=1e-8, atol=1e-15)
    assert loss[0] == pytest.approx((np.array(losses) * w).sum() / w.sum(), rel=1e-10)
    assert loss[1] == pytest.approx(w.sum(), rel=1e-12)


def test_the_row_maximum_is_taken_out():
    for shift in (0, 1e4, -1e4, 3e38):
        logits = np.array([[0, 1, 2]], np.float32) if shift < 1e38 else np.array([[0, -np.inf, 3e38]], np.float32)
        gradient, loss = run(logits + np.float32(shift if shift < 1e38 else 0), [2])
        assert np.isfinite(gradient).all()
        assert np.isfinite(loss).all()
    assert run(np.array([[0, 1, 2]], np.float32), [2])[1][0] == pytest.approx(0.4076059, rel=1e-6)


def test_probabilities_of_a_row_do_not_depend_on_the_others():
    logits = np.array([[0, 1, 2], [-5000, -4999, -4998], [5000, 5001, 5002]], np.float32)
    expected = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    np.testing.assert_allclose(SoftmaxCrossEntropy.probabilities(logits), [expected] * 3, rtol=1e-6)


def test_small_losses_keep_their_digits():
    gradient, loss = run(np.array([[0.0, 30.0]]), [1])
    assert loss[0] == pytest.approx(np.log1p(np.exp(-30)), rel=1e-3)
    np.testing.assert_allclose(gradient.sum(), 0, atol=1e-16)


def test_rows_of_weight_zero_count_for_nothing():
    logits, labels = np.random.default_rng(0).standard_normal((6, 4)), [0, 1, 2, 3, 0, 1]
    weights = np.array([1, 0, 2, 0, 1, 0.0])
    gradient, loss = run(logits, labels, weights)
    kept = weights > 0
    partial, expected = run(logits[kept], np.array(labels)[kept], weights[kept])
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient[kept], partial, rtol=1e-12)
    assert not gradient[~kept].any()


def test_a_batch_of_weight_zero_gives_zero():
    gradient, loss = run(np.ones((3, 2)), [0, 1, 0], np.zeros(3))
    assert not gradient.any()
    assert not loss.any()


def test_nan_is_not_hidden():
    _, loss = run(np.array([[np.nan, 1.0]]), [0])
    assert np.isnan(loss[0])
