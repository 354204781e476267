"""``kernels/dropout.cu`` against the reference: the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.dropout import dropout_group
from gpunet.backends.cuda.kernel_library import KernelLibrary
from gpunet.random import Stream, dropout_threshold, random_words
from tests.helpers.cuda import from_bfloat16, on_device, poisoned, to_bfloat16, tolerance

NUMPY = Backend()


def masks(
    backend: CudaBackend, x: Any, rate: float, seed: int, layer: int, step: int, offset: int = 0
) -> tuple[Any, ...]:
    """Return output and mask of the device and of NumPy."""
    out, mask = poisoned(backend, x.shape, x.dtype, offset), poisoned(backend, x.shape, np.uint8, offset)
    steps = np.array([step], np.int64)
    backend.dropout_forward(on_device(backend, x, offset), out, mask, rate, seed, layer, on_device(backend, steps))
    expected, expected_mask = np.empty_like(x), np.empty(x.shape, np.uint8)
    NUMPY.dropout_forward(x, expected, expected_mask, rate, seed, layer, steps)
    return backend.to_numpy(out), backend.to_numpy(mask), expected, expected_mask


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (1, 4), (5, 1), (31, 33), (40, 32), (1023, 5), (1025, 4)], ids=str)
@pytest.mark.parametrize("offset", [0, 1])
def test_same_bits_as_numpy(device: Any, shape: tuple[int, int], dtype: str, offset: int) -> None:
    backend = CudaBackend(device)
    x = np.random.default_rng(shape).standard_normal(shape).astype(dtype)
    out, mask, expected, expected_mask = masks(backend, x, 0.3, 7, 2, 11, offset)
    np.testing.assert_array_equal(mask, expected_mask)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("rate", "seed", "layer", "step"),
    [(0.0, 0, 1, 0), (0.5, 2**64 - 1, 1, 1), (0.999, 2**32, 3, 2**32 + 5), (0.1, 2**40 + 3, 2**31, 2**40)],
)
def test_counter_and_key(device: Any, rate: float, seed: int, layer: int, step: int) -> None:
    backend = CudaBackend(device)
    out, mask, expected, expected_mask = masks(backend, np.ones((17, 13), np.float32), rate, seed, layer, step)
    np.testing.assert_array_equal(mask, expected_mask)
    np.testing.assert_array_equal(out, expected)


def test_mask_is_the_documented_words(device: Any) -> None:
    backend = CudaBackend(device)
    _, mask, _, _ = masks(backend, np.ones((100, 10), np.float32), 0.25, 5, 1, 3)
    words = random_words(Stream.DROPOUT, 0, 1000, 5, 1, 3)
    np.testing.assert_array_equal(mask.reshape(-1), words >= dropout_threshold(0.25))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(("shape", "offset"), [((33, 7), 0), ((16, 16), 0), ((16, 16), 1)])
def test_backward(device: Any, shape: tuple[int, int], offset: int, dtype: str) -> None:
    backend = CudaBackend(device)
    rng = np.random.default_rng(0)
    dy, mask = rng.standard_normal(shape).astype(dtype), rng.integers(0, 2, shape, np.uint8)
    dx = poisoned(backend, shape, dtype, offset)
    backend.dropout_backward(on_device(backend, dy, offset), on_device(backend, mask, offset), 0.4, dx)
    np.testing.assert_allclose(backend.to_numpy(dx), dy.astype(float) * mask / 0.6, **tolerance(dtype))


def test_in_place(device: Any) -> None:
    backend = CudaBackend(device)
    x = np.random.default_rng(0).standard_normal((21, 10)).astype(np.float32)
    values, mask = on_device(backend, x), poisoned(backend, x.shape, np.uint8)
    backend.dropout_forward(values, values, mask, 0.5, 1, 1, on_device(backend, np.zeros(1, np.int64)))
    kept = backend.to_numpy(mask)
    np.testing.assert_array_equal(backend.to_numpy(values), 2 * x * kept)
    gradient = on_device(backend, x)
    backend.dropout_backward(gradient, mask, 0.5, gradient)
    np.testing.assert_array_equal(backend.to_numpy(gradient), 2 * x * kept)


@pytest.mark.parametrize("storage", ["__half", "__nv_bfloat16"])
@pytest.mark.parametrize("aligned", ["false", "true"])
def test_half_precision_forward(device: Any, storage: str, aligned: str) -> None:
    """Launched by hand, on bits: NumPy has no bfloat16."""
    backend = CudaBackend(device)
    count = 4 * 300 + 3
    x = np.random.default_rng(0).standard_normal(count).astype(np.float32)
    bits = to_bfloat16(x) if storage == "__nv_bfloat16" else x.astype(np.float16).view(np.uint16)
    out, mask = poisoned(backend, (count,), np.uint16), poisoned(backend, (count,), np.uint8)
    kernel = KernelLibrary(device).get("dropout", f"dropout_forward<{storage}, {aligned}>", dropout_group(storage))
    numbers = (np.int64(count), np.uint32(dropout_threshold(0.5)), np.float32(2), np.uint32(9), np.uint32(0))
    step = on_device(backend, np.array([4], np.int64))
    device.launch(kernel, 2, 256, (on_device(backend, bits), out, mask, *numbers, np.uint32(1), step))
    kept = random_words(Stream.DROPOUT, 0, count, 9, 1, 4) >= dropout_threshold(0.5)
    np.testing.assert_array_equal(backend.to_numpy(mask), kept)
    found, given = backend.to_numpy(out), bits
    if storage == "__nv_bfloat16":
        np.testing.assert_array_equal(from_bfloat16(found), 2 * from_bfloat16(given) * kept)
    else:
        np.testing.assert_array_equal(found.view(np.float16), 2 * given.view(np.float16) * kept)
