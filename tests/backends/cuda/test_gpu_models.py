"""Launch plans for GPUs that differ, as the driver describes them to CuPy."""

from __future__ import annotations

from typing import Any

import pytest

from gpunet.activations import ReLU
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.activation import column_tiles
from gpunet.backends.cuda.batch_norm import DeviceLimits
from gpunet.backends.cuda.grids import flat_grid, resident_blocks
from gpunet.backends.cuda.tuning import ESTIMATES
from gpunet.backends.devices.cupy import CupyDevice
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy
from tests.helpers.gpu_models import GPU_MODELS

MANY = 2**40
# Blocks of 256 threads that a multiprocessor has room for.
BLOCKS = {"T4": 4, "A100": 8, "RTX 4090": 6, "H100": 8, "RTX 5090": 6}


@pytest.fixture(params=GPU_MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def device(model: str, monkeypatch: pytest.MonkeyPatch) -> CupyDevice:
    fake_cupy.install(monkeypatch, fake_cupy.FakeCupy(EmulatedDevice(), properties=GPU_MODELS[model]))
    return CupyDevice(0)


def test_the_driver_is_asked(device: CupyDevice, model: str) -> None:
    expected = GPU_MODELS[model]
    assert device.compute_capability == (expected["major"], expected["minor"])
    assert device.threads_per_multiprocessor == expected["maxThreadsPerMultiProcessor"]
    limits = DeviceLimits.of(device)
    assert limits.multiprocessors == expected["multiProcessorCount"]
    assert limits.shared_memory_per_block == expected["sharedMemPerBlockOptin"]
    assert limits.shared_memory_per_multiprocessor == expected["sharedMemPerMultiprocessor"]
    assert limits.l2_bytes == expected["l2CacheSize"]
    assert limits.max_cluster == (8 if model in ("H100", "RTX 5090") else 1)


def test_one_wave_is_what_the_device_has_room_for(device: CupyDevice, model: str) -> None:
    multiprocessors = GPU_MODELS[model]["multiProcessorCount"]
    assert resident_blocks(device) == multiprocessors * BLOCKS[model]
    assert flat_grid(MANY, device) == multiprocessors * BLOCKS[model]
    assert flat_grid(MANY, device, waves=4) == 4 * multiprocessors * BLOCKS[model]
    assert flat_grid(MANY, device, threads=512) == multiprocessors * (BLOCKS[model] // 2)
    assert flat_grid(257, device) == 2
    assert flat_grid(0, device) == 1


def test_columns_are_split_until_the_device_is_full(device: CupyDevice, model: str) -> None:
    tiles = column_tiles(2**31 - 1, 128, 4, resident_blocks(device))
    assert tiles.grid == (1, GPU_MODELS[model]["multiProcessorCount"] * BLOCKS[model])


def test_clusters_are_what_the_driver_says_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = fake_cupy.FakeCupy(EmulatedDevice(), properties=GPU_MODELS["H100"])
    fake_cupy.install(monkeypatch, cupy)
    cupy.has_clusters = False
    assert CupyDevice(0).max_cluster_size == 1


def test_the_backend_asks_its_device(device: CupyDevice, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an element-wise kernel, a reduction and one that goes down columns: no number of theirs is assumed."""
    grids: list[Any] = []
    monkeypatch.setattr(CupyDevice, "launch", lambda self, kernel, grid, *rest, **options: grids.append(grid))
    monkeypatch.setattr(CupyDevice, "load", lambda self, source, options, kernels, name: dict.fromkeys(kernels))
    backend, full = CudaBackend(device), resident_blocks(device)
    x = backend.empty((1_100_000, 4), "float32")
    vector = x.reshape(-1)
    loss, scalars = backend.empty(2, "float32"), backend.empty(4, "float32")
    backend.squared_error(x, x, None, x, loss)
    backend.sgd_step(vector, vector, None, 0, scalars, None, loss, l2=0.0, momentum=0.0, nesterov=False)
    backend.bias_activation_forward(x, None, ReLU(), x)
    assert grids == [full, ESTIMATES.streaming_waves * full, (1, full)]
