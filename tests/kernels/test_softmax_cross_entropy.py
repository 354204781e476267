"""``kernels/softmax_cross_entropy.cu`` against the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpunet.verification import losses
from gpunet.verification.operation import Operation
from gpunet.verification.storage import FLOAT32, STORAGES
from tests.emulation import EmulatedDevice
from tests.helpers.verification import confirm, confirm_operations


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_as_specified(device: Any, storage: Any) -> None:
    confirm(device, losses, "softmax cross entropy", storage.name)


def with_logits(logits: Any, labels: list[int]) -> Operation:
    operation = losses.softmax_cross_entropy(FLOAT32, logits.shape)
    return replace(operation, given={"outputs": logits, "targets": np.array(labels, np.int32)})


def test_large_logits_do_not_overflow(device: Any) -> None:
    logits = np.array([[1e4, 0, -1e4], [-3e38, 3e38, 0], [88, 89, 90]], np.float32)
    confirm_operations(device, with_logits(logits, [0, 1, 0]))


def test_nan_reaches_the_loss(device: Any) -> None:
    logits = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
    logits[7, 3] = np.nan
    confirm_operations(device, with_logits(logits, [0] * 12))


def test_loss_does_not_depend_on_timing() -> None:
    device = EmulatedDevice(multiprocessor_count=4)
    confirm_operations(device, losses.softmax_cross_entropy(FLOAT32, (700, 10), losses.GIVEN), repeats=4)
