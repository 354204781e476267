"""``kernels/bernoulli.cu`` against the reference: the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.bernoulli import bernoulli_group
from gpunet.backends.cuda.kernel_library import KernelLibrary
from gpunet.random import Stream, random_words
from tests.helpers.cuda import from_bfloat16, on_device, poisoned, to_bfloat16

NUMPY = Backend()


def check(
    device: Any, probabilities: Any, seed: int = 7, layer: int = 2, step: int = 11, offset: int = 0
) -> np.ndarray[Any, Any]:
    """Compare the samples of the device with those of NumPy and return them."""
    backend = CudaBackend(device)
    steps = np.array([step], np.int64)
    out = poisoned(backend, probabilities.shape, probabilities.dtype, offset)
    backend.sample_bernoulli(on_device(backend, probabilities, offset), out, seed, layer, on_device(backend, steps))
    expected = np.full_like(probabilities, np.nan)
    NUMPY.sample_bernoulli(probabilities, expected, seed, layer, steps)
    found = np.array(backend.to_numpy(out))
    np.testing.assert_array_equal(found, expected)
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (1, 4), (5, 1), (31, 33), (40, 32), (1023, 5), (1025, 4)], ids=str)
@pytest.mark.parametrize("offset", [0, 1])
def test_same_bits_as_numpy(device: Any, shape: tuple[int, int], dtype: str, offset: int) -> None:
    check(device, np.random.default_rng(shape).uniform(0, 1, shape).astype(dtype), offset=offset)


@pytest.mark.parametrize(
    ("seed", "layer", "step"), [(0, 0, 0), (2**64 - 1, 1, 1), (2**32, 3, 2**32 + 5), (2**40 + 3, 2**32 - 1, 2**63 - 1)]
)
def test_counter_and_key(device: Any, seed: int, layer: int, step: int) -> None:
    check(device, np.full((17, 13), 0.5, np.float32), seed, layer, step)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_share_of_p_is_one(device: Any, dtype: str) -> None:
    for place, probability in enumerate((0.01, 0.3, 0.5, 0.97)):
        samples = check(device, np.full((203, 99), probability, dtype), step=place)
        deviation = np.sqrt(probability * (1 - probability) / samples.size)
        assert samples.mean() == pytest.approx(probability, abs=5 * deviation)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probabilities_next_to_a_word_and_at_the_ends(device: Any, dtype: str, offset: int) -> None:
    """p = w / 2^32 for the element's own word w is the first that does not give 1; the next number above does."""
    number = np.dtype(dtype).type
    words = random_words(Stream.SAMPLING, 0, 4096, 5, 1, 3)
    edge = (words / 2.0**32).astype(dtype)
    below, above = np.nextafter(edge, number(0)), np.nextafter(edge, number(1))
    for probabilities in (below, edge, above):
        samples = check(device, probabilities.reshape(64, 64), 5, 1, 3, offset).reshape(-1)
        np.testing.assert_array_equal(samples == 1, words < probabilities.astype(np.longdouble) * 2**32)

    smallest, largest = np.finfo(dtype).smallest_subnormal, np.nextafter(number(1), number(0))
    odd = np.array([0.0, -0.0, -1.0, smallest, largest, 1.0, 1.5, np.inf, -np.inf, np.nan], dtype)
    samples = check(device, np.repeat(odd, 44).reshape(20, 22), offset=offset).reshape(10, 44)
    np.testing.assert_array_equal(samples[[0, 1, 2, 8, 9]], 0)
    np.testing.assert_array_equal(samples[[5, 6, 7]], 1)


def test_the_largest_and_the_smallest_word(device: Any) -> None:
    """Elements whose words are so extreme that a rounded or a wrapped threshold shows."""
    words = np.concatenate([random_words(Stream.SAMPLING, first, 2**22, 0, 1, 0) for first in (0, 2**22)])
    for element in (int(words.argmin()), int(words.argmax())):
        first, last = element // 4 * 4, element + 1
        for dtype in ("float32", "float64"):
            number = np.dtype(dtype).type
            for probability in (np.nextafter(number(1), number(0)), number(1), number(0), number(2.0**-32)):
                backend = CudaBackend(device)
                values = np.full(last, probability, dtype).reshape(1, -1)
                out = poisoned(backend, values.shape, dtype)
                backend.sample_bernoulli(
                    on_device(backend, values), out, 0, 1, on_device(backend, np.zeros(1, np.int64))
                )
                expected = words[first:last] < float(probability) * 2.0**32
                np.testing.assert_array_equal(backend.to_numpy(out)[0, first:] == 1, expected)


def test_in_place(device: Any) -> None:
    backend = CudaBackend(device)
    probabilities = np.random.default_rng(0).uniform(0, 1, (21, 10)).astype(np.float32)
    values, step = on_device(backend, probabilities), on_device(backend, np.zeros(1, np.int64))
    backend.sample_bernoulli(values, values, 1, 1, step)
    expected = np.empty_like(probabilities)
    NUMPY.sample_bernoulli(probabilities, expected, 1, 1, np.zeros(1, np.int64))
    np.testing.assert_array_equal(backend.to_numpy(values), expected)


@pytest.mark.parametrize("storage", ["__half", "__nv_bfloat16"])
@pytest.mark.parametrize("aligned", ["false", "true"])
def test_half_precision(device: Any, storage: str, aligned: str) -> None:
    """Launched by hand, on bits: NumPy has no bfloat16."""
    backend = CudaBackend(device)
    count = 4 * 300 + 3
    probabilities = np.random.default_rng(0).uniform(0, 1, count).astype(np.float32)
    probabilities[:8] = 0, 1, 0, 1, 0, 1, 0, 1
    if storage == "__nv_bfloat16":
        bits, one = to_bfloat16(probabilities), 0x3F80
        rounded = from_bfloat16(bits)
    else:
        half = probabilities.astype(np.float16)
        bits, one, rounded = half.view(np.uint16), 0x3C00, half
    out = poisoned(backend, (count,), np.uint16)
    kernel = KernelLibrary(device).get("bernoulli", f"sample_bernoulli<{storage}, {aligned}>", bernoulli_group(storage))
    key = (np.uint32(9), np.uint32(0), np.uint32(1))
    step = on_device(backend, np.array([4], np.int64))
    device.launch(kernel, 2, 256, (on_device(backend, bits), out, np.int64(count), *key, step))
    ones = random_words(Stream.SAMPLING, 0, count, 9, 1, 4) < rounded.astype(float) * 2.0**32
    np.testing.assert_array_equal(backend.to_numpy(out), ones * one)
