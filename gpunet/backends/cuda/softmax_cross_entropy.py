"""Softmax and cross-entropy in one step: ``softmax_cross_entropy.cu``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import flat_grid
from gpunet.backends.cuda.instantiation import Variants, arithmetic_type, storage_type
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.cuda.weighted_mean import launch_loss, total_weight, write_total_weight
from gpunet.backends.reference.training import Tally

# (lanes per row, columns per lane) of softmax_cross_entropy_lanes.
SOFTMAX_SHAPES = ((8, 1), (16, 1), (32, 1), (32, 2), (32, 4), (32, 8), (32, 16), (32, 32))
LANES_THREADS = 128
BLOCK_THREADS = 512
# What softmax_cross_entropy_block has of static shared memory (4624 bytes in double), and to spare.
RESERVED_BYTES = 6144


def softmax_cross_entropy_group(storage: str) -> Group:
    """Return the kernels for one storage type."""
    lanes = (f"softmax_cross_entropy_lanes<{storage}, {lanes}, {values}>" for lanes, values in SOFTMAX_SHAPES)
    blocks = (f"softmax_cross_entropy_block<{storage}, {staged}>" for staged in ("false", "true"))
    return (*lanes, *blocks, total_weight(storage))


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    return map(softmax_cross_entropy_group, variants.storages)


def softmax_cross_entropy(
    cuda: Launcher,
    outputs: Array,
    targets: Array,
    weights: Array | None,
    doutputs: Array,
    loss: Array,
    bias: Array | None = None,
    dbias: Array | None = None,
    tally: Tally | None = None,
) -> None:
    """Launch :func:`gpunet.backends.reference.softmax_cross_entropy.softmax_cross_entropy`."""
    rows, columns = outputs.shape
    storage, number = storage_type(outputs.dtype), arithmetic_type(outputs.dtype)
    group = softmax_cross_entropy_group(storage)
    write_total_weight(cuda, "softmax_cross_entropy", group, weights, loss)
    shared_memory = 0
    shape = next((shape for shape in SOFTMAX_SHAPES if columns <= shape[0] * shape[1]), None)
    if shape is not None:
        expression = f"softmax_cross_entropy_lanes<{storage}, {shape[0]}, {shape[1]}>"
        threads, items = LANES_THREADS, rows * shape[0]
    else:
        row_bytes = columns * np.dtype(number).itemsize
        staged = row_bytes + RESERVED_BYTES <= cuda.device.shared_memory_per_block
        shared_memory = row_bytes if staged else 0
        expression = f"softmax_cross_entropy_block<{storage}, {str(staged).lower()}>"
        threads, items = BLOCK_THREADS, rows * BLOCK_THREADS
    kernel = cuda.kernels.get("softmax_cross_entropy", expression, group)
    grid = flat_grid(items, cuda.device, threads=threads), threads
    launch_loss(cuda, kernel, grid, outputs, targets, weights, doutputs, loss, bias, dbias, tally, shared_memory)
