"""``kernels/squared_error.cu`` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.kernel_library import KernelLibrary
from gpunet.backends.cuda.squared_error import squared_error_group
from tests.helpers.cuda import SHAPES, check_loss, from_bfloat16, on_device, poisoned, to_bfloat16


def check(device: Any, shape: tuple[int, int], dtype: str, weighted: bool, offset: int = 0) -> None:
    rng = np.random.default_rng(shape)
    outputs, targets = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    check_loss(device, "squared_error", outputs, targets, weighted, offset)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(device: Any, shape: tuple[int, int], weighted: bool) -> None:
    check(device, shape, "float32", weighted)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_dtypes(device: Any, dtype: str) -> None:
    check(device, (37, 5), dtype, weighted=True)


def test_unaligned(device: Any) -> None:
    check(device, (37, 5), "float32", weighted=True, offset=1)


def test_all_weights_zero(device: Any) -> None:
    backend = CudaBackend(device)
    outputs = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
    doutputs, loss = poisoned(backend, outputs.shape, "float32"), poisoned(backend, (2,), "float32")
    zeros = on_device(backend, np.zeros(12, np.float32))
    backend.squared_error(on_device(backend, outputs), on_device(backend, -outputs), zeros, doutputs, loss)
    np.testing.assert_array_equal(backend.to_numpy(loss), [0, 0])
    np.testing.assert_array_equal(backend.to_numpy(doutputs), 0)


def test_bfloat16(device: Any) -> None:
    """NumPy has no bfloat16, so this one is launched by hand, on bits."""
    rng = np.random.default_rng(0)
    backend = CudaBackend(device)
    outputs, targets = (to_bfloat16(rng.standard_normal((40, 7)).astype(np.float32)) for _ in range(2))
    doutputs, loss = poisoned(backend, (40, 7), np.uint16), poisoned(backend, (2,), np.float32)
    kernel = KernelLibrary(device).get(
        "squared_error", "squared_error<__nv_bfloat16>", squared_error_group("__nv_bfloat16")
    )
    arguments = (on_device(backend, outputs), on_device(backend, targets), np.uint64(0), doutputs, loss)
    reduction = (poisoned(backend, (2,), np.float32), backend.zeros(1, np.uint32))
    device.launch(kernel, 2, 256, (*arguments, *reduction, np.int32(40), np.int32(7)))
    errors = from_bfloat16(outputs).astype(float) - from_bfloat16(targets)
    np.testing.assert_allclose(backend.to_numpy(loss), [(errors**2).sum() / 80, 40], rtol=1e-6)
    np.testing.assert_allclose(from_bfloat16(backend.to_numpy(doutputs)), errors / 40, rtol=2**-8)
