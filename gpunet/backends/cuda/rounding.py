"""Copies in half precision: ``rounding.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import THREADS, WIDEST_ACCESS, ceiling, flat_grid, is_aligned
from gpunet.backends.cuda.instantiation import ITEM_SIZES, Variants, storage_type, widest_vector
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher


def rounding_group(storage: str) -> Group:
    """Return the kernels for one storage type."""
    return tuple(f"round_rows<{storage}, {width}>" for width in (1, widest_vector(storage)))


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    return (rounding_group(storage) for storage in variants.storages if ITEM_SIZES[storage] == 2)


def round_rows(cuda: Launcher, source: Array, out: Array, factor: Array | None = None) -> None:
    """Launch :func:`gpunet.backends.reference.rounding.round_rows`."""
    (rows, columns), stride = source.shape, out.shape[1]
    kernel, width = _kernel(cuda, out, stride)
    sizes = (np.int32(rows), np.int32(columns), np.int32(stride))
    blocks = flat_grid(ceiling(out.size, width), cuda.device, cuda.tuning.streaming_waves)
    cuda.launch(kernel, blocks, THREADS, (source, out, factor, None, *sizes))


def round_matrices(cuda: Launcher, source: Array, out: Array, table: Array, multiple: int) -> None:
    """Launch :func:`gpunet.backends.reference.rounding.round_matrices`."""
    matrices = table.shape[0]
    kernel, width = _kernel(cuda, out, multiple)
    blocks = flat_grid(ceiling(out.size, width * matrices), cuda.device, cuda.tuning.streaming_waves)
    cuda.launch(kernel, (blocks, matrices), THREADS, (source, out, None, table, *[np.int32(0)] * 3))


def _kernel(cuda: Launcher, out: Array, multiple: int) -> tuple[Any, int]:
    """Return the kernel for rows that begin at multiples of so many elements, and how many it writes at a time."""
    storage = storage_type(out.dtype)
    widest = widest_vector(storage)
    width = widest if multiple % widest == 0 and is_aligned(WIDEST_ACCESS, out) else 1
    return cuda.kernels.get("rounding", f"round_rows<{storage}, {width}>", rounding_group(storage)), width
