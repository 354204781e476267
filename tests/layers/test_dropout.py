"""Dropout and its counter-based random bits."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet.backends import NumpyBackend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.numpy import CHUNK
from gpunet.random import Purpose, Stream, dropout_threshold, host_generator, philox4x32, random_words
from tests.emulation import EmulatedDevice


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # Known answers of Random123, kat_vectors, philox4x32 10.
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    words = philox4x32(np.array(counter, np.uint64).reshape(4, 1), key)
    assert tuple(int(word) for word in words[:, 0]) == expected


def test_words_depend_on_the_element_alone():
    """Any cut of the elements gives the same words: chunks, threads and devices may divide them as they like."""
    whole = random_words(Stream.DROPOUT, 0, 1001, seed=2**63 + 5, layer=3, step=2**33 + 7)
    pieces = [
        random_words(Stream.DROPOUT, first, min(100, 1001 - first), 2**63 + 5, 3, 2**33 + 7)
        for first in range(0, 1001, 100)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(pieces))


@pytest.mark.parametrize("change", ["seed", "layer", "step"])
def test_every_part_of_the_key_matters(change):
    arguments = {"seed": 1, "layer": 2, "step": 3}
    other = arguments | {change: 99}
    assert (
        random_words(Stream.DROPOUT, 0, 1000, **arguments) != random_words(Stream.DROPOUT, 0, 1000, **other)
    ).mean() > 0.99


def test_every_bit_of_the_step_matters():
    words = [
        random_words(Stream.DROPOUT, 0, 64, seed=1, layer=1, step=step) for step in (0, 1, 2**16, 2**31, 2**32, 2**40)
    ]
    for place, one in enumerate(words):
        for other in words[:place]:
            assert not np.array_equal(one, other)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_scale_and_backward(rate):
    x = np.ones((300, 101), np.float32)  # more than one chunk, not a multiple of 4
    assert x.size > CHUNK
    out, mask = np.full_like(x, np.nan), np.empty(x.shape, np.uint8)
    backend, step = NumpyBackend(), np.array([5])
    backend.dropout_forward(x, out, mask, rate, 7, 1, step)
    kept = mask.astype(bool)
    assert kept.mean() == pytest.approx(1 - rate, abs=5 * np.sqrt(rate * (1 - rate) / x.size))
    np.testing.assert_allclose(out[kept], np.float32(1 / (1 - rate)), rtol=1e-7)
    assert not out[~kept].any()
    dy = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    dx = np.full_like(dy, np.nan)
    backend.dropout_backward(dy, mask, rate, dx)
    np.testing.assert_array_equal(dx, dy * np.float32(1 / (1 - rate)) * kept)


def test_masks_change_with_the_step_and_are_off_in_inference():
    network = gpunet.Network([6, 50, 3], dropout=0.5, device="cpu")
    X = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    first = network.forward(X, training=True).copy()
    again = network.forward(X, training=True).copy()
    network.set_step(1)
    other = network.forward(X, training=True).copy()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    network.set_step(2**32)
    assert not np.array_equal(first, network.forward(X, training=True))
    np.testing.assert_array_equal(network.logits(X), network.logits(X))


class OnNumpy(NumpyBackend):
    """NumPy, with a copy of every mask."""

    def __init__(self):
        super().__init__()
        self.masks = []

    def dropout_forward(self, x, out, mask, *arguments):
        super().dropout_forward(x, out, mask, *arguments)
        self.masks.append(self.to_numpy(mask))


class OnCuda(CudaBackend):
    """The same of the kernels."""

    def __init__(self):
        super().__init__(EmulatedDevice(multiprocessor_count=2))
        self.masks = []

    def dropout_forward(self, x, out, mask, *arguments):
        super().dropout_forward(x, out, mask, *arguments)
        self.masks.append(self.to_numpy(mask))


@pytest.mark.parametrize("make", [OnNumpy, OnCuda])
def test_layers_of_equal_width_have_masks_of_their_own(make):
    """Each is the words of its own layer's number."""
    backend = make()
    network = gpunet.Network([6, 50, 50, 50, 3], dropout=0.5, seed=4, device=backend)
    network.forward(backend.asarray(np.ones((8, 6), np.float32)), training=True)
    words = [random_words(Stream.DROPOUT, 0, 400, 4, layer, 0).reshape(8, 50) for layer in (1, 2, 3)]
    np.testing.assert_array_equal(backend.masks, np.array(words) >= dropout_threshold(0.5))


def test_host_streams_are_independent():
    draws = {
        (seed, purpose, index): host_generator(seed, purpose, index).integers(0, 2**63)
        for seed in (0, 1)
        for purpose in Purpose
        for index in (0, 1, 2)
    }
    assert len(set(draws.values())) == len(draws)


def test_every_rate_that_words_tell_apart_has_a_threshold_of_its_own():
    unit = 2.0**-32
    assert [dropout_threshold(rate) for rate in (0.0, unit, 3 * unit, 0.5, 1 - unit)] == [0, 1, 3, 2**31, 2**32 - 1]
    assert dropout_threshold(np.nextafter(1.0, 0.0)) == 2**32 - 1


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_rates_out_of_range(rate):
    with pytest.raises(gpunet.InvalidValueError, match="dropout"):
        gpunet.Network([2, 3, 2], dropout=rate, device="cpu")
