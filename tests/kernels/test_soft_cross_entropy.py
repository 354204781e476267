"""``kernels/soft_cross_entropy.cu`` against the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpunet.verification import losses
from gpunet.verification.storage import FLOAT32, STORAGES
from tests.emulation import EmulatedDevice
from tests.helpers.verification import confirm, confirm_operations


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_as_specified(device: Any, storage: Any) -> None:
    confirm(device, losses, "soft cross entropy", storage.name)


@pytest.mark.parametrize("rows", [2, 3])  # probabilities, labels
def test_large_logits_do_not_overflow_and_nan_reaches_the_loss(device: Any, rows: int) -> None:
    for values in ([[1e4, 0, -1e4], [-1e30, 1e30, 0], [88, 89, 90]], [[0, 0, 0], [0, np.nan, 1], [1, 2, 3]]):
        operation = losses.soft_cross_entropy(FLOAT32, (rows, 3))
        logits = np.array(values[:rows], np.float32)
        confirm_operations(device, replace(operation, given={**operation.given, "outputs": logits}))


def test_loss_does_not_depend_on_timing() -> None:
    device = EmulatedDevice(multiprocessor_count=4)
    confirm_operations(device, losses.soft_cross_entropy(FLOAT32, (701, 10), losses.GIVEN), repeats=4)
