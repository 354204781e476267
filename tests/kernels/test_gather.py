"""``kernels/gather.cu`` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.gather import row_copy
from gpunet.verification import gather
from tests.helpers.cuda import on_device, poisoned
from tests.helpers.verification import confirm


def test_as_specified(device: Any) -> None:
    confirm(device, gather)


@pytest.mark.parametrize(
    ("columns", "offset", "word"), [(4, 0, 16), (6, 0, 8), (5, 0, 4), (4, 1, 4), (4, 2, 8), (64, 4, 16)]
)
def test_widest_word_that_is_aligned(device: Any, columns: int, offset: int, word: int) -> None:
    backend = CudaBackend(device)
    source = on_device(backend, np.zeros((10, columns), np.float32), offset)
    assert row_copy(source, poisoned(backend, (3, columns), np.float32)).word_bytes == word
