"""``kernels/optimizer.cu`` against the reference."""

from __future__ import annotations

from typing import Any

import pytest

from gpunet.verification import optimizer
from gpunet.verification.storage import FLOAT32, FLOAT64
from tests.emulation import EmulatedDevice
from tests.helpers.verification import confirm, confirm_operations


@pytest.mark.parametrize("storage", [FLOAT32, FLOAT64], ids=str)
def test_as_specified(device: Any, storage: Any) -> None:
    confirm(device, optimizer, storage.name)


def test_clip_factor_does_not_depend_on_timing() -> None:
    device = EmulatedDevice(multiprocessor_count=4)
    confirm_operations(device, optimizer.clip_factor(FLOAT32, 20_000, 9000, norm=1.0), repeats=4)
