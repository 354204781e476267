"""Batches from a data set: ``gather.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import THREADS, WARP_LANES, ceiling, is_aligned, power_of_two
from gpunet.backends.cuda.instantiation import Variants
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher

# The words that gather_rows moves, by their bytes.
GATHER_WORDS = {16: "uint4", 8: "uint2", 4: "unsigned int", 2: "unsigned short"}


def gather_group() -> Group:
    """Return the kernels."""
    return tuple(f"gather_rows<{word}>" for word in GATHER_WORDS.values())


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    yield gather_group()


@dataclass(frozen=True)
class RowCopy:
    """How ``gather_rows`` moves rows: words of so many bytes, so many of them per row."""

    word_bytes: int
    words: int
    grid: int
    block: tuple[int, int]


def row_copy(source: Array, out: Array) -> RowCopy:
    """Plan a copy of rows of ``source`` to the rows of ``out``."""
    row_bytes = out.nbytes // out.shape[0]
    word = next(size for size in GATHER_WORDS if row_bytes % size == 0 and is_aligned(size, source, out))
    words = row_bytes // word
    # At most four words per thread, while a warp still touches neighbouring words.
    along = max(min(power_of_two(words), WARP_LANES), min(power_of_two(ceiling(words, 4)), THREADS))
    down = THREADS // along
    return RowCopy(word, words, ceiling(out.shape[0], down), (along, down))


def gather_rows(cuda: Launcher, source: Array, index: Array, out: Array, first: Array | None = None) -> None:
    """Launch :func:`gpunet.backends.reference.gather.gather_rows`."""
    plan = row_copy(source, out)
    kernel = cuda.kernels.get("gather", f"gather_rows<{GATHER_WORDS[plan.word_bytes]}>", gather_group())
    arguments = (source, index, first, out, np.int32(out.shape[0]), np.int32(plan.words))
    cuda.launch(kernel, plan.grid, plan.block, arguments)
