"""``kernels/rounding.cu`` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.backends.cuda import CudaBackend
from gpunet.backends.half import narrow
from gpunet.verification import rounding
from gpunet.verification.storage import BFLOAT16, FLOAT16
from tests.helpers.cuda import on_device, poisoned
from tests.helpers.verification import confirm


@pytest.mark.parametrize("storage", [FLOAT16, BFLOAT16], ids=str)
def test_as_specified(device: Any, storage: Any) -> None:
    confirm(device, rounding, storage.name)


@pytest.mark.parametrize("storage", [FLOAT16, BFLOAT16], ids=str)
def test_ties_go_to_even_and_what_is_special_stays(device: Any, storage: Any) -> None:
    """To the bit, as NumPy and the CPU's emulation round: halfway between two, the largest, subnormal, not finite."""
    steps = 2 * storage.rounding * np.arange(8)
    values = np.concatenate(
        [1 + steps, 1 + steps + storage.rounding, [65519, 65520, 3.3e38, 1e-7, 3e-8, 0.0, -0.0, np.inf, -np.inf]]
    )
    source = np.concatenate([values, -values]).astype(np.float32).reshape(2, -1)
    backend = CudaBackend(device)
    out = poisoned(backend, (2, 32), storage.dtype)
    backend.round_rows(on_device(backend, source), out)
    found = backend.to_numpy(out)
    np.testing.assert_array_equal(found[:, : source.shape[1]], narrow(np, source, storage.dtype))
    np.testing.assert_array_equal(found[:, source.shape[1] :], 0)
