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
from gpunet.backends.devices.device import Argument

# Bytes of the words that gather_batch moves.
WORDS = (16, 8, 4, 2)


def gather_group() -> Group:
    """Return the kernel."""
    return ("gather_batch",)


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    yield gather_group()


@dataclass(frozen=True)
class RowCopy:
    """How ``gather_batch`` moves the rows of an array.

    Attributes
    ----------
    word_bytes, words : int
        Words of so many bytes, so many of them per row.
    lanes : int
        Threads along a row.
    blocks : int
    """

    word_bytes: int
    words: int
    lanes: int
    blocks: int


def row_copy(source: Array, out: Array) -> RowCopy:
    """Plan a copy of rows of ``source`` to the rows of ``out``."""
    row_bytes = out.nbytes // out.shape[0]
    word = next(size for size in WORDS if row_bytes % size == 0 and is_aligned(size, source, out))
    words = row_bytes // word
    # At most four words per thread, while a warp still touches neighbouring words.
    lanes = max(min(power_of_two(words), WARP_LANES), min(power_of_two(ceiling(words, 4)), THREADS))
    return RowCopy(word, words, lanes, ceiling(out.shape[0], THREADS // lanes))


def gather_batch(
    cuda: Launcher,
    index: Array,
    features: Array | None,
    batch_features: Array,
    targets: Array | None = None,
    batch_targets: Array | None = None,
    weights: Array | None = None,
    batch_weights: Array | None = None,
    first: Array | None = None,
) -> None:
    """Launch :func:`gpunet.backends.reference.gather.gather_batch`."""
    arguments: list[Argument | None] = [index, first, np.int32(len(batch_features))]
    blocks = 0
    for source, out in ((features, batch_features), (targets, batch_targets), (weights, batch_weights)):
        plan = RowCopy(0, 0, 1, 0) if source is None or out is None else row_copy(source, out)
        arguments += [source, out, *map(np.int32, (plan.word_bytes, plan.words, plan.lanes, plan.blocks))]
        blocks += plan.blocks
    if blocks:
        cuda.launch(cuda.kernels.get("gather", "gather_batch", gather_group()), blocks, THREADS, arguments)
