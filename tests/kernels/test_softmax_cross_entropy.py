"""``kernels/softmax_cross_entropy.cu`` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.kernel_library import KernelLibrary
from gpunet.backends.cuda.softmax_cross_entropy import softmax_cross_entropy_group
from tests.emulation import EmulatedDevice
from tests.helpers.cuda import RELATIVE, from_bfloat16, on_device, poisoned, to_bfloat16

NUMPY = Backend()
SHAPES = [(1, 2), (130, 10), (33, 8), (7, 9), (5, 16), (5, 17), (40, 31), (40, 32), (40, 33), (9, 64), (9, 65)]
LONG = [(3, 129), (3, 257), (3, 513), (2, 1023), (5, 1024), (5, 1025), (2, 1500)]


def expected(logits: Any, labels: Any, weights: Any) -> tuple[Any, Any]:
    """Return gradient and loss in float64."""
    gradient, loss = np.empty(logits.shape), np.empty(2)
    weights = None if weights is None else weights.astype(float)
    NUMPY.softmax_cross_entropy(logits.astype(float), labels, weights, gradient, loss)
    return gradient, loss


def check(device: Any, logits: Any, labels: Any, weights: Any, offset: int = 0) -> None:
    backend = CudaBackend(device)
    dtype = logits.dtype
    number = np.float64 if dtype == np.float64 else np.float32
    doutputs, loss = poisoned(backend, logits.shape, dtype, offset), poisoned(backend, (2,), number)
    device_weights = None if weights is None else on_device(backend, weights.astype(number))
    given = on_device(backend, logits, offset), on_device(backend, labels), device_weights
    gradient, value = expected(logits, labels, weights)
    for _ in range(2):  # the second time finds the counter as the first left it
        backend.softmax_cross_entropy(*given, doutputs, loss)
        relative = RELATIVE[dtype.name]
        np.testing.assert_allclose(backend.to_numpy(loss), value, rtol=max(RELATIVE[np.dtype(number).name], 1e-13))
        np.testing.assert_allclose(
            backend.to_numpy(doutputs), gradient, rtol=relative, atol=relative * np.abs(gradient).max()
        )


def problem(shape: tuple[int, int], dtype: str = "float32") -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(shape)
    logits = (3 * rng.standard_normal(shape)).astype(dtype)
    return logits, rng.integers(0, shape[1], shape[0], np.int32), rng.uniform(0, 2, shape[0])


@pytest.mark.parametrize("shape", [*SHAPES, *LONG], ids=str)
def test_shapes(device: Any, shape: tuple[int, int]) -> None:
    logits, labels, weights = problem(shape)
    check(device, logits, labels, None)
    check(device, logits, labels, weights)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize("shape", [(130, 10), (40, 33), (3, 600), (5, 1025)], ids=str)
def test_dtypes(device: Any, shape: tuple[int, int], dtype: str) -> None:
    logits, labels, weights = problem(shape, dtype)
    check(device, logits, labels, weights)


def test_unaligned(device: Any) -> None:
    logits, labels, weights = problem((9, 40))
    check(device, logits, labels, weights, offset=1)


def test_row_too_long_for_shared_memory(device: Any) -> None:
    logits, labels, weights = problem((2, 70_000))
    check(device, logits, labels, weights)


@pytest.mark.parametrize("columns", [9_000, 12_000, 50_000])
def test_rows_that_need_more_shared_memory_than_every_block_has(device: Any, columns: int) -> None:
    logits, labels, weights = problem((2, columns))
    check(device, logits, labels, weights)


def test_more_rows_than_the_grid_holds(device: Any) -> None:
    logits, labels, weights = problem((1100, 3))
    check(device, logits, labels, weights)


def test_large_logits_do_not_overflow(device: Any) -> None:
    logits = np.array([[1e4, 0, -1e4], [-3e38, 3e38, 0], [88, 89, 90]], np.float32)
    check(device, logits, np.array([0, 1, 0], np.int32), None)


def test_all_weights_zero(device: Any) -> None:
    backend = CudaBackend(device)
    logits, labels, _ = problem((12, 5))
    doutputs, loss = poisoned(backend, logits.shape, "float32"), poisoned(backend, (2,), "float32")
    zeros = on_device(backend, np.zeros(12, np.float32))
    backend.softmax_cross_entropy(on_device(backend, logits), on_device(backend, labels), zeros, doutputs, loss)
    np.testing.assert_array_equal(backend.to_numpy(loss), [0, 0])
    np.testing.assert_array_equal(backend.to_numpy(doutputs), 0)


def test_nan_reaches_the_loss(device: Any) -> None:
    backend = CudaBackend(device)
    logits, labels, _ = problem((12, 5))
    logits[7, 3] = np.nan
    doutputs, loss = poisoned(backend, logits.shape, "float32"), backend.zeros(2, np.float32)
    backend.softmax_cross_entropy(on_device(backend, logits), on_device(backend, labels), None, doutputs, loss)
    assert np.isnan(backend.to_numpy(loss)[0])


def test_loss_does_not_depend_on_timing() -> None:
    logits, labels, weights = problem((700, 10))
    results = []
    for seed in range(3):
        backend = CudaBackend(EmulatedDevice(seed=seed, multiprocessor_count=4))
        doutputs, loss = poisoned(backend, logits.shape, "float32"), poisoned(backend, (2,), "float32")
        given = (logits, labels, weights.astype(np.float32))
        backend.softmax_cross_entropy(*(on_device(backend, array) for array in given), doutputs, loss)
        results.append(backend.to_numpy(loss))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_bfloat16(device: Any) -> None:
    """NumPy has no bfloat16, so this one is launched by hand, on bits."""
    backend = CudaBackend(device)
    logits, labels, _ = problem((20, 10))
    bits = to_bfloat16(logits)
    doutputs, loss = poisoned(backend, logits.shape, np.uint16), poisoned(backend, (2,), np.float32)
    group = softmax_cross_entropy_group("__nv_bfloat16")
    kernel = KernelLibrary(device).get(
        "softmax_cross_entropy", "softmax_cross_entropy_lanes<__nv_bfloat16, 16, 1>", group
    )
    arguments = (on_device(backend, bits), on_device(backend, labels), np.uint64(0), doutputs, loss)
    reduction = (poisoned(backend, (3,), np.float32), backend.zeros(1, np.uint32))
    device.launch(kernel, 3, 128, (*arguments, *reduction, np.int32(20), np.int32(10)))
    gradient, value = expected(from_bfloat16(bits), labels, None)
    np.testing.assert_allclose(backend.to_numpy(loss), value, rtol=1e-6)
    np.testing.assert_allclose(from_bfloat16(backend.to_numpy(doutputs)), gradient, rtol=2**-8, atol=1e-6)
