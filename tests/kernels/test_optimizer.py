"""``kernels/optimizer.cu`` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from tests.emulation import EmulatedDevice
from tests.helpers.cuda import on_device, poisoned, tolerance

NUMPY = Backend()
# (parameters, weights among them): nothing left over from vectors of 16 bytes, something, weights ending inside one.
SIZES = [(1, 0), (1, 1), (3, 2), (32, 32), (64, 32), (1023, 500), (1025, 1025), (4096, 4001), (40_000, 17)]


def vectors(rng: np.random.Generator, size: int, dtype: str, count: int) -> list[Any]:
    return [rng.standard_normal(size).astype(dtype) for _ in range(count)]


def compare(backend: CudaBackend, found: list[Any], expected: list[Any], dtype: str) -> None:
    for device_array, array in zip(found, expected, strict=True):
        np.testing.assert_allclose(backend.to_numpy(device_array), array, **tolerance(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("size", "weights"), SIZES)
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd(device: Any, size: int, weights: int, momentum: float, nesterov: bool, dtype: str) -> None:
    check_sgd(device, size, weights, momentum, nesterov, dtype)


def test_sgd_unaligned(device: Any) -> None:
    check_sgd(device, 1025, 600, 0.9, False, "float32", offset=1)


def check_sgd(
    device: Any, size: int, weights: int, momentum: float, nesterov: bool, dtype: str, offset: int = 0
) -> None:
    rng = np.random.default_rng(size)
    backend = CudaBackend(device)
    host = vectors(rng, size, dtype, 3 if momentum else 2)
    there = [on_device(backend, vector, offset) for vector in host]
    exact = [vector.astype(float) for vector in host]
    scalars, clip, loss = (np.array(values, dtype) for values in ([0.05], [0.5], [1.0, 2.0]))
    given = [on_device(backend, array) for array in (scalars, clip, loss)]
    settings: dict[str, Any] = {"l2": 1e-2, "momentum": momentum, "nesterov": nesterov}
    for _ in range(2):
        backend.sgd_step(*(there if momentum else [*there, None]), weights, *given, **settings)
        NUMPY.sgd_step(*(exact if momentum else [*exact, None]), weights, scalars, clip, loss, **settings)
    compare(backend, there, exact, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("size", "weights"), SIZES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam(device: Any, size: int, weights: int, weight_decay: float, dtype: str) -> None:
    check_adam(device, size, weights, weight_decay, dtype)


def test_adam_unaligned(device: Any) -> None:
    check_adam(device, 1025, 600, 0.1, "float32", offset=1)


def check_adam(device: Any, size: int, weights: int, weight_decay: float, dtype: str, offset: int = 0) -> None:
    rng = np.random.default_rng(size)
    backend = CudaBackend(device)
    host = vectors(rng, size, dtype, 3)
    host.append(np.abs(host[2]))  # the second moment is not negative
    there = [on_device(backend, vector, offset) for vector in host]
    exact = [vector.astype(float) for vector in host]
    loss = np.array([1.0, 2.0], dtype)
    settings: dict[str, Any] = {
        "l2": 1e-2,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
        "weight_decay": weight_decay,
    }
    for step in (1, 2):
        scalars = np.array([0.05, 1 / (1 - 0.9**step), 1 / (1 - 0.999**step)], dtype)
        backend.adam_step(*there, weights, on_device(backend, scalars), None, on_device(backend, loss), **settings)
        NUMPY.adam_step(*exact, weights, scalars.astype(float), None, loss, **settings)
    compare(backend, there, exact, dtype)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nothing_changes_where_the_loss_is_not_finite(device: Any, value: float) -> None:
    backend = CudaBackend(device)
    host = vectors(np.random.default_rng(0), 100, "float32", 4)
    there = [on_device(backend, vector) for vector in host]
    scalars, loss = on_device(backend, np.ones(3, np.float32)), on_device(backend, np.array([value, 1], np.float32))
    backend.sgd_step(*there[:3], 50, scalars, None, loss, l2=0.1, momentum=0.9, nesterov=False)
    settings = {"l2": 0.1, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "weight_decay": 0.1}
    backend.adam_step(*there, 50, scalars, None, loss, **settings)
    for found, given in zip(there, host, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(found), given)


def factor(backend: CudaBackend, parameters: Any, gradients: Any, weights: int, norm: float, offset: int = 0) -> float:
    out = poisoned(backend, (1,), parameters.dtype)
    given = (on_device(backend, vector, offset) for vector in (parameters, gradients))
    backend.clip_factor(*given, weights, 1e-2, norm, out)
    return float(backend.to_numpy(out)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("size", "weights"), SIZES)
@pytest.mark.parametrize("offset", [0, 1])
def test_clip_factor(device: Any, size: int, weights: int, offset: int, dtype: str) -> None:
    parameters, gradients = vectors(np.random.default_rng(size), size, dtype, 2)
    expected = np.empty(1)
    NUMPY.clip_factor(parameters.astype(float), gradients.astype(float), weights, 1e-2, 0.1, expected)
    found = factor(CudaBackend(device), parameters, gradients, weights, 0.1, offset)
    np.testing.assert_allclose(found, expected[0], rtol=1e-6)


def test_clip_factor_is_one_below_the_norm_and_zero_for_nan(device: Any) -> None:
    backend = CudaBackend(device)
    parameters, gradients = vectors(np.random.default_rng(0), 300, "float32", 2)
    assert factor(backend, parameters, gradients, 100, 1e6) == 1.0
    assert factor(backend, parameters, np.zeros_like(gradients), 0, 1e-6) == 1.0
    gradients[17] = np.nan
    assert factor(backend, parameters, gradients, 100, 1.0) == 0


def test_clip_factor_of_large_gradients_does_not_overflow(device: Any) -> None:
    backend = CudaBackend(device)
    gradients = np.full(100, 1e30, np.float32)
    np.testing.assert_allclose(factor(backend, np.zeros_like(gradients), gradients, 0, 1.0), 1e-31, rtol=1e-6)


def test_clip_factor_does_not_depend_on_timing() -> None:
    parameters, gradients = vectors(np.random.default_rng(0), 20_000, "float32", 2)
    factors = {
        factor(CudaBackend(EmulatedDevice(seed=seed, multiprocessor_count=4)), parameters, gradients, 9000, 1.0)
        for seed in range(3)
    }
    assert len(factors) == 1
