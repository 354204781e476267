"""What the losses share: ``weighted_mean.cuh``, and the launch of one whose elements do not depend on one another."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.activations import Identity
from gpunet.backends.arrays import Array
from gpunet.backends.cuda.activation import bias_activation_backward
from gpunet.backends.cuda.grids import THREADS, flat_grid
from gpunet.backends.cuda.instantiation import arithmetic_name, arithmetic_type, storage_type
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.cuda.training import step_count
from gpunet.backends.reference.training import Tally

TOTAL_WEIGHT_THREADS = 1024
# Elements of a gradient whose rows the last block of a loss adds by itself: in about the time of another launch.
MOST_FOR_ONE_BLOCK = 2**14


def total_weight(storage: str) -> str:
    """Return the kernel that sums the rows' weights, for losses of one storage type."""
    return f"total_weight<{arithmetic_name(storage)}>"


def write_total_weight(cuda: Launcher, module: str, group: Group, weights: Array | None, loss: Array) -> None:
    """Write the sum of the weights where the loss looks for it; without weights it counts its rows."""
    if weights is not None:
        kernel = cuda.kernels.get(module, next(name for name in group if name.startswith("total_weight")), group)
        cuda.launch(kernel, 1, TOTAL_WEIGHT_THREADS, (weights, loss, np.int32(weights.size)))


def launch_loss(
    cuda: Launcher,
    kernel: Any,
    grid: tuple[int, int],
    outputs: Array,
    targets: Array,
    weights: Array | None,
    doutputs: Array,
    loss: Array,
    bias: Array | None,
    dbias: Array | None,
    tally: Tally | None,
    shared_memory: int = 0,
    more: tuple[Any, ...] = (),
) -> None:
    """Launch a loss on ``grid``, blocks and their threads; the gradient of the bias of a large batch follows.

    ``more`` is what its kernel takes after the arguments of all losses.
    """
    blocks, threads = grid
    rows, columns = outputs.shape
    partial = cuda.scratch("partial", (blocks,), arithmetic_type(outputs.dtype))
    by_itself = dbias if outputs.size <= MOST_FOR_ONE_BLOCK else None
    gradients = (doutputs, by_itself, loss, partial, cuda.zeroed_counters(1))
    arguments = (
        outputs,
        bias,
        targets,
        weights,
        *gradients,
        np.int32(rows),
        np.int32(columns),
        *step_count(tally),
        *more,
    )
    cuda.launch(kernel, blocks, threads, arguments, shared_memory=shared_memory)
    if by_itself is not dbias:
        bias_activation_backward(cuda, doutputs, doutputs, Identity(), doutputs, dbias)


def elementwise_group(name: str, storage: str) -> Group:
    """Return the kernels of such a loss, whose module and kernel have one name, for one storage type."""
    return f"{name}<{storage}>", total_weight(storage)


def elementwise_loss(
    cuda: Launcher,
    name: str,
    outputs: Array,
    targets: Array,
    weights: Array | None,
    doutputs: Array,
    loss: Array,
    bias: Array | None,
    dbias: Array | None,
    tally: Tally | None,
    more: tuple[Any, ...] = (),
) -> None:
    """Launch such a loss."""
    storage = storage_type(outputs.dtype)
    group = elementwise_group(name, storage)
    write_total_weight(cuda, name, group, weights, loss)
    kernel = cuda.kernels.get(name, f"{name}<{storage}>", group)
    grid = flat_grid(outputs.size, cuda.device), THREADS
    launch_loss(cuda, kernel, grid, outputs, targets, weights, doutputs, loss, bias, dbias, tally, more=more)
