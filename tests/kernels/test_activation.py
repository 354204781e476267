"""``kernels/activation.cu`` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.activations import Activation, Identity, ReLU, Sigmoid
from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.activation import activation_group, column_tiles
from gpunet.backends.cuda.kernel_library import KernelLibrary
from tests.emulation import EmulatedDevice
from tests.helpers.cuda import ACTIVATIONS, SHAPES, from_bfloat16, on_device, poisoned, to_bfloat16, tolerance

NUMPY = Backend()


def matrices(rng: np.random.Generator, shape: tuple[int, int], dtype: str) -> tuple[Any, Any]:
    return rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)


def parameters(rng: np.random.Generator, columns: int, dtype: str) -> Any:
    """Bias vectors are of the type that kernels compute in."""
    return rng.standard_normal(columns).astype(np.float64 if dtype == "float64" else np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("shape", [(33, 1), (31, 32), (257, 10), (3, 1025)], ids=str)
def test_forward_and_backward(device: Any, shape: tuple[int, int], activation: Activation, dtype: str) -> None:
    check(device, shape, activation, dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(device: Any, shape: tuple[int, int]) -> None:
    check(device, shape, ReLU(), "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_unaligned(device: Any, dtype: str) -> None:
    check(device, (37, 64), Sigmoid(), dtype, offset=1)


def check(device: Any, shape: tuple[int, int], activation: Activation, dtype: str, offset: int = 0) -> None:
    rng = np.random.default_rng(shape)
    backend = CudaBackend(device)
    s, dy = matrices(rng, shape, dtype)
    bias = parameters(rng, shape[1], dtype)
    y, ds = (poisoned(backend, shape, dtype, offset) for _ in range(2))
    dbias = poisoned(backend, (shape[1],), bias.dtype)
    backend.bias_activation_forward(on_device(backend, s, offset), on_device(backend, bias), activation, y)
    kept, given = (on_device(backend, s, offset), s) if activation.derivative_of == "input" else (y, None)
    shift = on_device(backend, bias)
    backend.bias_activation_backward(on_device(backend, dy, offset), kept, activation, ds, dbias, bias=shift)

    # The reference goes on from the device's own y, rounded as it is stored.
    stored = backend.to_numpy(y)
    expected_y = np.empty(shape)
    NUMPY.bias_activation_forward(s.astype(float), bias.astype(float), activation, expected_y)
    np.testing.assert_allclose(stored, expected_y, **tolerance(dtype))
    expected_ds, expected_dbias = np.empty(shape), np.empty(shape[1])
    kept = (stored if given is None else given).astype(float)
    NUMPY.bias_activation_backward(
        dy.astype(float), kept, activation, expected_ds, expected_dbias, bias=bias.astype(float)
    )
    np.testing.assert_allclose(backend.to_numpy(ds), expected_ds, **tolerance(dtype))
    scale = np.abs(expected_ds).sum(axis=0).max()
    np.testing.assert_allclose(
        backend.to_numpy(dbias), expected_dbias, rtol=0, atol=tolerance(dtype)["rtol"] * scale + 1e-30
    )


def test_in_place_and_without_bias(device: Any) -> None:
    rng = np.random.default_rng(0)
    backend = CudaBackend(device)
    s, dy = matrices(rng, (45, 12), "float32")
    y = on_device(backend, s)
    backend.bias_activation_forward(y, None, ReLU(), y)
    np.testing.assert_array_equal(backend.to_numpy(y), np.maximum(s, 0))
    gradient = on_device(backend, dy)
    backend.bias_activation_backward(gradient, y, ReLU(), gradient, None)
    np.testing.assert_array_equal(backend.to_numpy(gradient), np.where(s > 0, dy, 0))
    backend.bias_activation_forward(y, None, Identity(), y)
    np.testing.assert_array_equal(backend.to_numpy(y), np.maximum(s, 0))


def test_identity_copies_between_buffers(device: Any) -> None:
    backend = CudaBackend(device)
    s = np.random.default_rng(0).standard_normal((9, 7))
    y = poisoned(backend, s.shape, s.dtype)
    backend.bias_activation_forward(on_device(backend, s), None, Identity(), y)
    np.testing.assert_array_equal(backend.to_numpy(y), s)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_nan_and_infinity_as_numpy(device: Any, activation: Activation) -> None:
    backend = CudaBackend(device)
    s = np.array([[np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 88.8]], np.float32)
    y, expected = poisoned(backend, s.shape, s.dtype), np.empty_like(s)
    backend.bias_activation_forward(on_device(backend, s), None, activation, y)
    NUMPY.bias_activation_forward(s, None, activation, expected)
    np.testing.assert_allclose(backend.to_numpy(y), expected, rtol=1e-6)


def test_bias_gradient_of_many_rows_is_accurate(device: Any) -> None:
    rows, columns = 65536, 4
    rng = np.random.default_rng(0)
    backend = CudaBackend(device)
    dy = rng.normal([0, 1, 100, -1000], 1, (rows, columns)).astype(np.float32)
    gradient = on_device(backend, dy)
    dbias = poisoned(backend, (columns,), np.float32)
    backend.bias_activation_backward(gradient, gradient, Identity(), gradient, dbias)
    exact = dy.astype(float).sum(axis=0)
    error = np.abs(backend.to_numpy(dbias) - exact)
    assert (error <= 1e-6 * np.abs(dy).astype(float).sum(axis=0)).all()


def test_bias_gradient_does_not_depend_on_timing() -> None:
    """Blocks and threads run in another order with each seed of the emulated device."""
    dy = np.random.default_rng(0).standard_normal((2000, 36)).astype(np.float32)
    results = []
    for seed in range(3):
        backend = CudaBackend(EmulatedDevice(seed=seed, multiprocessor_count=4))
        gradient = on_device(backend, dy)
        dbias = poisoned(backend, (36,), np.float32)
        for _ in range(2):  # the counters are left as they were found
            backend.bias_activation_backward(gradient, gradient, Identity(), gradient, dbias)
        results.append(backend.to_numpy(dbias))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("width", [1, 8])
def test_bfloat16(device: Any, width: int) -> None:
    """NumPy has no bfloat16, so this one is launched by hand, on bits."""
    rows, columns = 50, 24
    rng = np.random.default_rng(0)
    backend = CudaBackend(device)
    s, dy = (to_bfloat16(matrix) for matrix in matrices(rng, (rows, columns), "float32"))
    bias = rng.standard_normal(columns).astype(np.float32)
    y, ds = (poisoned(backend, (rows, columns), np.uint16) for _ in range(2))
    dbias, partial = poisoned(backend, (columns,), np.float32), poisoned(backend, (2, columns), np.float32)
    sigmoid = Sigmoid()
    group = activation_group("__nv_bfloat16", sigmoid)
    kernels = KernelLibrary(device)
    forward = kernels.get(
        "activation", f"bias_activation_forward<__nv_bfloat16, sigmoid_activation, {width}>", group, sigmoid
    )
    backward = kernels.get(
        "activation", f"bias_activation_backward<__nv_bfloat16, sigmoid_activation, {width}>", group, sigmoid
    )
    tiles = column_tiles(rows, columns, width, 32)
    shape = (np.int32(rows), np.int32(columns), np.float32(0))
    grid = (tiles.grid[0], 2)
    device.launch(forward, grid, tiles.block, (on_device(backend, s), on_device(backend, bias), y, *shape))
    counters = backend.zeros(64, np.uint32)
    arguments = (on_device(backend, dy), y, np.uint64(0), ds, dbias, partial, counters, *shape)
    device.launch(backward, grid, tiles.block, arguments)

    stored = from_bfloat16(backend.to_numpy(y)).astype(float)
    expected = 1 / (1 + np.exp(-(from_bfloat16(s).astype(float) + bias)))
    np.testing.assert_allclose(stored, expected, rtol=2**-8)
    gradient = from_bfloat16(backend.to_numpy(ds)).astype(float)
    np.testing.assert_allclose(gradient, from_bfloat16(dy) * stored * (1 - stored), rtol=2**-8, atol=1e-6)
    np.testing.assert_allclose(backend.to_numpy(dbias), gradient.sum(axis=0), rtol=1e-5, atol=1e-5)
