"""``kernels/sigmoid_cross_entropy.cu`` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.backends.cuda import CudaBackend
from gpunet.verification import losses
from gpunet.verification.storage import STORAGES
from tests.helpers.cuda import on_device, poisoned
from tests.helpers.verification import confirm


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_as_specified(device: Any, storage: Any) -> None:
    confirm(device, losses, "sigmoid cross entropy", storage.name)


@pytest.mark.parametrize("place", [0, 37])
def test_nan_is_not_hidden(device: Any, place: int) -> None:
    backend = CudaBackend(device)
    outputs = np.zeros((20, 3))
    outputs.flat[place] = np.nan
    doutputs, loss = poisoned(backend, outputs.shape, "float64"), poisoned(backend, (2,), "float64")
    targets = on_device(backend, np.ones_like(outputs))
    backend.sigmoid_cross_entropy(on_device(backend, outputs), targets, None, doutputs, loss)
    assert np.isnan(backend.to_numpy(loss)[0])
    np.testing.assert_array_equal(np.isnan(backend.to_numpy(doutputs)), np.isnan(outputs))
