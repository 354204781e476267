"""``kernels/quantile.cu`` against the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpunet.verification import losses
from gpunet.verification.storage import FLOAT32, STORAGES
from tests.helpers.verification import confirm, confirm_operations


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_as_specified(device: Any, storage: Any) -> None:
    confirm(device, losses, "quantile", storage.name)


def test_nan_and_infinity_reach_loss_and_gradient(device: Any) -> None:
    for value in (np.nan, np.inf, -np.inf):
        operation = losses.quantile(FLOAT32, (12, 5))
        outputs = operation.given["outputs"].copy()
        outputs[7, 3] = value
        confirm_operations(device, replace(operation, given={**operation.given, "outputs": outputs}))
