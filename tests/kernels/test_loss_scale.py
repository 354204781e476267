"""``kernels/loss_scale.cu`` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.backends.cuda import CudaBackend
from gpunet.verification import loss_scale
from tests.emulation import EmulatedDevice
from tests.helpers.cuda import on_device, poisoned
from tests.helpers.verification import confirm, confirm_operations


def test_as_specified(device: Any) -> None:
    confirm(device, loss_scale)


def test_it_does_not_depend_on_timing() -> None:
    device = EmulatedDevice(multiprocessor_count=4)
    confirm_operations(device, loss_scale.unscale_gradients(20_000, 19_000), repeats=4)


def test_growth_ends(device: Any) -> None:
    """Gradients that are all 0 never overflow; the scale does not become infinite for that."""
    backend = CudaBackend(device)
    gradients, loss = on_device(backend, np.zeros(5, np.float32)), on_device(backend, np.ones(2, np.float32))
    scale, guard = on_device(backend, np.array([2.0**22, 0, 0, 0], np.float32)), poisoned(backend, (2,), np.float32)
    for expected in (2.0**23, 2.0**24, 2.0**24):
        backend.unscale_gradients(gradients, loss, scale, guard, 1)
        np.testing.assert_array_equal(backend.to_numpy(scale), [expected, 0, 0, 0])
