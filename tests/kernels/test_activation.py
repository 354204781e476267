"""``kernels/activation.cu`` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.activations import Identity
from gpunet.backends.cuda import CudaBackend
from gpunet.verification import activation
from gpunet.verification.storage import FLOAT32, STORAGES
from tests.emulation import EmulatedDevice
from tests.helpers.cuda import on_device, poisoned
from tests.helpers.verification import confirm, confirm_operations


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_as_specified(device: Any, storage: Any, direction: str) -> None:
    confirm(device, activation, direction, storage.name)


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
    device = EmulatedDevice(multiprocessor_count=4)
    confirm_operations(device, activation.backward(FLOAT32, (2000, 36), Identity()), repeats=4)
