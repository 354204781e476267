"""``kernels/squared_error.cu`` against the reference."""

from __future__ import annotations

from typing import Any

import pytest

from gpunet.verification import losses
from gpunet.verification.storage import STORAGES
from tests.helpers.verification import confirm


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_as_specified(device: Any, storage: Any) -> None:
    confirm(device, losses, "squared error", storage.name)
