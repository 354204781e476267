"""Softmax and cross-entropy of targets that are spread over the classes: ``soft_cross_entropy.cu``."""

from __future__ import annotations

from collections.abc import Iterator

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import THREADS, WARP_LANES, flat_grid
from gpunet.backends.cuda.instantiation import Variants, arithmetic_type, storage_type
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.cuda.weighted_mean import launch_loss, total_weight, write_total_weight
from gpunet.backends.reference.training import Tally


def soft_cross_entropy_group(storage: str) -> Group:
    """Return the kernels for one storage type: of labels, and of probabilities."""
    return *(f"soft_cross_entropy<{storage}, {targets}>" for targets in ("int", storage)), total_weight(storage)


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    return map(soft_cross_entropy_group, variants.storages)


def soft_cross_entropy(
    cuda: Launcher,
    outputs: Array,
    targets: Array,
    weights: Array | None,
    doutputs: Array,
    loss: Array,
    label_smoothing: float,
    class_weights: Array | None,
    bias: Array | None = None,
    dbias: Array | None = None,
    tally: Tally | None = None,
) -> None:
    """Launch :func:`gpunet.backends.reference.soft_cross_entropy.soft_cross_entropy`."""
    group = soft_cross_entropy_group(storage_type(outputs.dtype))
    write_total_weight(cuda, "soft_cross_entropy", group, weights, loss)
    kernel = cuda.kernels.get("soft_cross_entropy", group[0 if targets.ndim == 1 else 1], group)
    grid = flat_grid(outputs.shape[0] * WARP_LANES, cuda.device), THREADS
    more = arithmetic_type(outputs.dtype)(label_smoothing), class_weights
    launch_loss(cuda, kernel, grid, outputs, targets, weights, doutputs, loss, bias, dbias, tally, more=more)
