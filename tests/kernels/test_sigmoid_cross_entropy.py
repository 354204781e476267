"""``kernels/sigmoid_cross_entropy.cu`` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.kernel_library import KernelLibrary
from gpunet.backends.cuda.sigmoid_cross_entropy import sigmoid_cross_entropy_group
from tests.helpers.cuda import RELATIVE, SHAPES, Array, check_loss, from_bfloat16, on_device, poisoned, to_bfloat16

NUMPY = Backend()


def problem(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Return logits, some of them far out, and targets in [0, 1], most of them 0 or 1."""
    outputs, targets = 4 * rng.standard_normal(shape), rng.uniform(-1, 2, shape).clip(0, 1)
    outputs[rng.uniform(size=shape) < 0.05] *= 1000
    return outputs, targets


def check(device: Any, shape: tuple[int, int], dtype: str, weighted: bool, offset: int = 0) -> None:
    rng = np.random.default_rng(shape)
    outputs, targets = (part.astype(dtype) for part in problem(rng, shape))
    check_loss(device, "sigmoid_cross_entropy", outputs, targets, weighted, offset)


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
    outputs, targets = problem(np.random.default_rng(0), (12, 5))
    doutputs, loss = poisoned(backend, outputs.shape, "float64"), poisoned(backend, (2,), "float64")
    zeros = on_device(backend, np.zeros(12))
    backend.sigmoid_cross_entropy(on_device(backend, outputs), on_device(backend, targets), zeros, doutputs, loss)
    np.testing.assert_array_equal(backend.to_numpy(loss), [0, 0])
    np.testing.assert_array_equal(backend.to_numpy(doutputs), 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits(device: Any, dtype: str) -> None:
    """One element at a time: its loss and doutputs to relative precision, where 1 - sigmoid(o) would be 0."""
    number = np.dtype(dtype).type
    backend = CudaBackend(device)
    for output in (-1e4, -100.0, -50.0, -0.0, 0.0, 30.0, 80.0, 1e4):
        for target in (0.0, 0.25, 1.0):
            doutputs, loss = poisoned(backend, (1, 1), dtype), poisoned(backend, (2,), dtype)
            given = (on_device(backend, np.full((1, 1), value, dtype)) for value in (output, target))
            backend.sigmoid_cross_entropy(*given, None, doutputs, loss)
            e = np.exp(-abs(np.longdouble(output)))
            right = target if output >= 0 else 1 - target
            expected = (1 - right) * abs(output) + np.log1p(e)
            error = ((1 - right) - right * e) / (1 + e) * (1 if output >= 0 else -1)
            bound = {"rtol": RELATIVE[dtype], "atol": float(np.finfo(number).tiny)}
            np.testing.assert_allclose(backend.to_numpy(loss)[0], number(expected), **bound)
            np.testing.assert_allclose(backend.to_numpy(doutputs)[0, 0], number(error), **bound)


@pytest.mark.parametrize("place", [0, 37])
def test_nan_is_not_hidden(device: Any, place: int) -> None:
    backend = CudaBackend(device)
    outputs = np.zeros((20, 3))
    outputs.flat[place] = np.nan
    doutputs, loss = poisoned(backend, outputs.shape, "float64"), poisoned(backend, (2,), "float64")
    targets = on_device(backend, np.ones_like(outputs))
    backend.sigmoid_cross_entropy(on_device(backend, outputs), targets, None, doutputs, loss)
    assert np.isnan(backend.to_numpy(loss)[0])
    np.testing.assert_array_equal(np.isnan(backend.to_numpy(doutputs)), np.isnan(outputs))


def test_bfloat16(device: Any) -> None:
    """NumPy has no bfloat16, so this one is launched by hand, on bits."""
    backend = CudaBackend(device)
    outputs, targets = (to_bfloat16(part) for part in problem(np.random.default_rng(0), (40, 7)))
    doutputs, loss = poisoned(backend, (40, 7), np.uint16), poisoned(backend, (2,), np.float32)
    kernel = KernelLibrary(device).get(
        "sigmoid_cross_entropy",
        "sigmoid_cross_entropy<__nv_bfloat16>",
        sigmoid_cross_entropy_group("__nv_bfloat16"),
    )
    arguments = (on_device(backend, outputs), on_device(backend, targets), np.uint64(0), doutputs, loss)
    reduction = (poisoned(backend, (2,), np.float32), backend.zeros(1, np.uint32))
    device.launch(kernel, 2, 256, (*arguments, *reduction, np.int32(40), np.int32(7)))
    expected, value = np.empty((40, 7)), np.empty(2)
    exact = from_bfloat16(outputs).astype(float), from_bfloat16(targets).astype(float)
    NUMPY.sigmoid_cross_entropy(*exact, None, expected, value)
    np.testing.assert_allclose(backend.to_numpy(loss), value, rtol=RELATIVE["float32"])
    np.testing.assert_allclose(from_bfloat16(backend.to_numpy(doutputs)), expected, rtol=2**-8, atol=1e-37)
