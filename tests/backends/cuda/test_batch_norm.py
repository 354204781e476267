"""Batch norm as the backend launches it, on the emulated device and on the GPU; large shapes on the GPU alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.activations import ELU, Activation, Identity, ReLU, Tanh
from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from tests.helpers.cuda import on_device, poisoned

SMALL = [(2, 1), (3, 33), (31, 32), (64, 64), (257, 10), (1025, 100), (300, 7)]
# Resident with clusters and without, much shared memory, striped; rows that are and are not whole vectors.
LARGE = [(256, 256), (1024, 1024), (4096, 500), (8192, 2048), (16384, 512), (65536, 500), (65536, 64), (4097, 4095)]
LARGE_MARK = pytest.mark.large
# The last takes more shared memory than a block has without asking, and fits every device with one block per tile.
FORCED = [(31, 32), (257, 10), (1025, 100), pytest.param((1500, 512), marks=LARGE_MARK)]
SHAPES = [*SMALL, *(pytest.param(shape, marks=LARGE_MARK) for shape in LARGE)]
TOLERANCE = {"float32": 3e-5, "float64": 1e-11, "float16": 4e-3}


def problem(shape: tuple[int, int], dtype: str) -> dict[str, Any]:
    """Return random arrays: matrices of ``dtype``, statistics and parameters of the arithmetic type."""
    generator = np.random.default_rng(shape[0] * 7 + shape[1])
    number = "float64" if dtype == "float64" else "float32"
    return {
        "s": (2 * generator.standard_normal(shape) + 1).astype(dtype),
        "dy": generator.standard_normal(shape).astype(dtype),
        "gamma": generator.uniform(0.5, 1.5, shape[1]).astype(number),
        "beta": generator.standard_normal(shape[1]).astype(number),
        "number": number,
    }


def run(backend: Backend, data: dict[str, Any], activation: Activation, convert: Any, empty: Any) -> dict[str, Any]:
    """Run forward, backward and inference and return everything that they write."""
    rows, columns = data["s"].shape
    dtype, number = data["s"].dtype, data["number"]
    s, dy, gamma, beta = (convert(data[name]) for name in ("s", "dy", "gamma", "beta"))
    running = convert(np.zeros(columns, number)), convert(np.ones(columns, number))
    mean, inverse_std, dgamma, dbeta = (empty((columns,), number) for _ in range(4))
    y, ds, inferred = (empty((rows, columns), dtype) for _ in range(3))
    backend.batch_norm_activation_forward(s, gamma, beta, activation, y, mean, inverse_std, *running, 0.1, 1e-5)
    backend.batch_norm_activation_backward(dy, s, y, gamma, beta, activation, mean, inverse_std, ds, dgamma, dbeta)
    backend.batch_norm_activation_inference(s, gamma, beta, activation, inferred, *running, 1e-5)
    names = ["y", "mean", "inverse_std", "dgamma", "dbeta", "ds", "inferred", "running_mean", "running_variance"]
    values = (y, mean, inverse_std, dgamma, dbeta, ds, inferred, *running)
    return {name: backend.to_numpy(value).astype(np.float64) for name, value in zip(names, values, strict=True)}


def check(
    device: Any,
    shape: tuple[int, int],
    activation: Activation,
    dtype: str,
    offset: int = 0,
    choice: tuple[str | None, int | None] = (None, None),
) -> None:
    """Compare everything that is written with the specification in float64, from the same rounded inputs."""
    data = problem(shape, dtype)
    backend = CudaBackend(device)
    backend.launcher.batch_norm_choice = choice
    ours = run(
        backend,
        data,
        activation,
        lambda values: on_device(backend, values, offset),
        lambda shape, dtype: poisoned(backend, shape, dtype, offset),
    )
    exact = {name: value.astype(np.float64) for name, value in data.items() if name != "number"} | {"number": "float64"}
    expected = run(Backend(), exact, activation, np.copy, np.empty)
    for name, value in expected.items():
        scale = max(np.abs(value).max(), np.sqrt(shape[0]) if name in ("dgamma", "dbeta") else 1e-3)
        if name == "ds":  # two rows normalise to +-1 exactly: all of the gradient cancels
            scale = max(scale, np.abs(exact["dy"]).max() * np.abs(expected["inverse_std"]).max())
        tolerance = TOLERANCE[dtype] * (10 if name == "ds" and shape[0] < 4 else 1)
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("activation", [Identity(), Tanh()], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_everything_that_is_written(device: Any, shape: tuple[int, int], activation: Activation, dtype: str) -> None:
    """With smooth activations, so that no element is on the other side of a kink."""
    check(device, shape, activation, dtype)


@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("shape", FORCED, ids=str)
@pytest.mark.parametrize(("algorithm", "cluster"), [("striped", 1), *(("resident", size) for size in (1, 2, 4, 8))])
def test_every_algorithm(device: Any, shape: tuple[int, int], algorithm: str, cluster: int, offset: int) -> None:
    """Each one forced, where the device has clusters of that size and the tile fits."""
    if cluster > device.max_cluster_size:
        pytest.skip(f"{device.name} has clusters of up to {device.max_cluster_size}")
    check(device, shape, Tanh(), "float32", offset, (algorithm, cluster))


@pytest.mark.parametrize("value", [100.3, 33333.3])
@pytest.mark.parametrize(("algorithm", "cluster"), [(None, None), ("striped", 1), ("resident", 1)])
def test_constant_columns_have_no_variance(
    device: Any, algorithm: str | None, cluster: int | None, value: float
) -> None:
    shape = (1100, 9)
    backend = CudaBackend(device)
    backend.launcher.batch_norm_choice = algorithm, cluster
    data = problem(shape, "float32") | {"s": np.full(shape, value, np.float32)}
    found = run(
        backend, data, Tanh(), lambda v: on_device(backend, v), lambda shape, dtype: poisoned(backend, shape, dtype)
    )
    rounding = float(np.finfo(np.float32).eps) * value
    np.testing.assert_allclose(found["mean"], np.float32(value), rtol=0, atol=rounding)
    np.testing.assert_allclose(found["running_variance"], 0.9, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["inverse_std"], 1 / np.sqrt(1e-5), rtol=1e-5 + rounding**2 / 1e-5)


@pytest.mark.parametrize("activation", [ReLU(), ELU(0.7)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_backward_pass_is_on_the_side_of_zero_that_the_forward_pass_took(
    device: Any, shape: tuple[int, int], activation: Activation
) -> None:
    """With dy = 1 and ReLU, dbeta counts the positive outputs, to the last one."""
    data = problem(shape, "float32")
    data["dy"] = np.ones(shape, np.float32)
    backend = CudaBackend(device)
    ours = run(
        backend, data, activation, lambda v: on_device(backend, v), lambda shape, dtype: poisoned(backend, shape, dtype)
    )
    slopes = activation.derivative(ours["y"])
    np.testing.assert_allclose(ours["dbeta"], slopes.sum(axis=0), rtol=1e-5)
    if isinstance(activation, ReLU):
        np.testing.assert_array_equal(ours["dbeta"], (ours["y"] > 0).sum(axis=0))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_same_bits_each_time(device: Any, shape: tuple[int, int]) -> None:
    data = problem(shape, "float32")
    backend = CudaBackend(device)
    results = [
        run(backend, data, ReLU(), lambda v: on_device(backend, v), lambda shape, dtype: backend.empty(shape, dtype))
        for _ in range(3)
    ]
    for name, value in results[0].items():
        for other in results[1:]:
            np.testing.assert_array_equal(value, other[name], err_msg=name)
