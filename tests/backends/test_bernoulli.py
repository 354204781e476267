"""Samples of binary units from counter-based random bits."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from gpunet.backends import NumpyBackend
from gpunet.backends.numpy import CHUNK
from gpunet.random import Stream, random_words


def sample(probabilities, seed=3, layer=1, step=0):
    out = np.full_like(probabilities, np.nan)
    NumpyBackend().sample_bernoulli(probabilities, out, seed, layer, np.array([step], np.int64))
    return out


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_one_where_the_word_is_below_p(dtype):
    probabilities = np.random.default_rng(0).uniform(0, 1, (301, 107)).astype(dtype)  # not a multiple of 4
    assert probabilities.size > CHUNK
    out = sample(probabilities, 2**63 + 5, 3, 2**33 + 7)
    assert out.dtype == probabilities.dtype
    words = random_words(Stream.SAMPLING, 0, probabilities.size, 2**63 + 5, 3, 2**33 + 7)
    shares = (Fraction(int(word), 2**32) for word in words)
    expected = [share < Fraction(float(p)) for share, p in zip(shares, probabilities.flat, strict=True)]
    np.testing.assert_array_equal(out.reshape(-1), np.array(expected, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("probability", [0.001, 0.25, 0.5, 0.9])
def test_the_share_of_ones_is_p_and_neighbours_are_independent(dtype, probability):
    samples = sample(np.full((500, 401), probability, dtype))
    assert set(np.unique(samples)) <= {0, 1}
    deviation = np.sqrt(probability * (1 - probability) / samples.size)
    assert samples.mean(dtype=float) == pytest.approx(probability, abs=5 * deviation)
    centred = samples.astype(float) - probability
    for neighbours in ((centred[:, 1:] * centred[:, :-1]), (centred[1:] * centred[:-1])):
        noise = probability * (1 - probability) / np.sqrt(neighbours.size)
        assert abs(neighbours.mean()) < 5 * noise


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_certain_units(dtype):
    assert not sample(np.zeros((1000, 1000), dtype)).any()
    assert sample(np.ones((1000, 1000), dtype)).all()
    assert not sample(np.full((3, 5), np.nan, dtype)).any()


def test_the_smallest_probability_needs_the_word_zero():
    """Rounding p * 2^32 down would never give 1, rounding a p below 2^-32 up to 1 word gives it at word 0 alone."""
    words = random_words(Stream.SAMPLING, 0, 2**20, 3, 1, 0)
    probabilities = (words / 2.0**32).reshape(1024, 1024)
    assert not sample(probabilities).any()  # w < w is false
    assert sample(np.nextafter(probabilities, 1)).all()


def test_seed_layer_and_step_matter():
    probabilities = np.full((50, 40), 0.5)
    first = sample(probabilities)
    np.testing.assert_array_equal(first, sample(probabilities))
    for change in ({"seed": 4}, {"layer": 2}, {"step": 1}, {"step": 2**40}):
        assert 0.4 < (first != sample(probabilities, **change)).mean() < 0.6


def test_in_place():
    probabilities = np.random.default_rng(0).uniform(0, 1, (13, 11))
    expected = sample(probabilities)
    NumpyBackend().sample_bernoulli(probabilities, probabilities, 3, 1, np.zeros(1, np.int64))
    np.testing.assert_array_equal(probabilities, expected)


@pytest.mark.parametrize("step", [0, 5, 2**31, 2**32, 2**63 - 1])
def test_dropout_and_sampling_share_no_words(step):
    """Equal seed, layer and step, and any other step: the streams differ in a bit that no step sets."""
    dropout = random_words(Stream.DROPOUT, 0, 4000, 1, 2, step)
    sampling = random_words(Stream.SAMPLING, 0, 4000, 1, 2, step)
    assert (dropout != sampling).mean() > 0.99
    assert len(np.intersect1d(dropout, sampling)) < 4  # two random sets of 4000 words share 0.004 on average

    x, mask = np.ones((40, 100)), np.empty((40, 100), np.uint8)
    NumpyBackend().dropout_forward(x, x.copy(), mask, 0.5, 1, 2, np.array([step]))
    agreement = (mask == sample(np.full((40, 100), 0.5), 1, 2, step)).mean()
    assert agreement == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(4000))
