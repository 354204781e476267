"""``kernels/gather.cu`` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.gather import row_copy
from tests.helpers.cuda import on_device, poisoned


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "float16"])
@pytest.mark.parametrize("columns", [None, 1, 2, 3, 4, 31, 32, 33, 784, 1023, 1025])
def test_rows_by_index(device: Any, columns: int | None, dtype: str) -> None:
    check(device, columns, dtype, rows=45)


@pytest.mark.parametrize("rows", [1, 255, 256, 257, 1025])
def test_rows(device: Any, rows: int) -> None:
    check(device, None, "int32", rows)
    check(device, 5, "float32", rows)


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_unaligned(device: Any, offset: int) -> None:
    check(device, 64, "float32", 20, offset)


def check(device: Any, columns: int | None, dtype: str, rows: int, offset: int = 0) -> None:
    rng = np.random.default_rng(rows)
    backend = CudaBackend(device)
    tail = () if columns is None else (columns,)
    source = rng.integers(-1000, 1000, (97, *tail)).astype(dtype)
    index = rng.integers(0, 97, rows, np.int32)
    out = poisoned(backend, (rows, *tail), dtype)
    backend.gather_rows(on_device(backend, source, offset), on_device(backend, index), out)
    np.testing.assert_array_equal(backend.to_numpy(out), source[index])


@pytest.mark.parametrize(
    ("columns", "offset", "word"), [(4, 0, 16), (6, 0, 8), (5, 0, 4), (4, 1, 4), (4, 2, 8), (64, 4, 16)]
)
def test_widest_word_that_is_aligned(device: Any, columns: int, offset: int, word: int) -> None:
    backend = CudaBackend(device)
    source = on_device(backend, np.zeros((10, columns), np.float32), offset)
    assert row_copy(source, poisoned(backend, (3, columns), np.float32)).word_bytes == word
