"""What the losses share: ``weighted_mean.cuh``, and the launch of one whose elements do not depend on one another."""

from __future__ import annotations

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import THREADS, flat_grid
from gpunet.backends.cuda.instantiation import arithmetic_name, arithmetic_type, storage_type
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher

TOTAL_WEIGHT_THREADS = 1024


def total_weight(storage: str) -> str:
    """Return the kernel that sums the rows' weights, for losses of one storage type."""
    return f"total_weight<{arithmetic_name(storage)}>"


def write_total_weight(cuda: Launcher, module: str, group: Group, weights: Array | None, loss: Array) -> None:
    """Write the sum of the weights where the loss looks for it; without weights it counts its rows."""
    if weights is not None:
        kernel = cuda.kernels.get(module, next(name for name in group if name.startswith("total_weight")), group)
        cuda.launch(kernel, 1, TOTAL_WEIGHT_THREADS, (weights, loss, np.int32(weights.size)))


def elementwise_group(name: str, storage: str) -> Group:
    """Return the kernels of such a loss, whose module and kernel have one name, for one storage type."""
    return f"{name}<{storage}>", total_weight(storage)


def elementwise_loss(
    cuda: Launcher, name: str, outputs: Array, targets: Array, weights: Array | None, doutputs: Array, loss: Array
) -> None:
    """Launch such a loss."""
    rows, columns = outputs.shape
    storage, number = storage_type(outputs.dtype), arithmetic_type(outputs.dtype)
    group = elementwise_group(name, storage)
    write_total_weight(cuda, name, group, weights, loss)
    blocks = flat_grid(outputs.size, cuda.device)
    partial, counters = cuda.scratch("partial", (blocks,), number), cuda.zeroed_counters(1)
    arguments = (outputs, targets, weights, doutputs, loss, partial, counters, np.int32(rows), np.int32(columns))
    cuda.launch(cuda.kernels.get(name, f"{name}<{storage}>", group), blocks, THREADS, arguments)
