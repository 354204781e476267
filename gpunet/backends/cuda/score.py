"""How many labels are predicted right: ``score.cu``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import THREADS, WARP_LANES, flat_grid
from gpunet.backends.cuda.instantiation import Variants, storage_type
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher


def score_group(storage: str) -> Group:
    """Return the kernels for one storage type."""
    return tuple(f"{name}<{storage}>" for name in ("score_classes", "score_soft_classes", "score_switches"))


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    return map(score_group, variants.storages)


def score_classes(cuda: Launcher, outputs: Array, labels: Array, weights: Array | None, out: Array) -> None:
    """Launch :func:`gpunet.backends.reference.score.score_classes`."""
    _launch(cuda, "score_classes", outputs, labels, weights, out, outputs.shape[0] * WARP_LANES)


def score_soft_classes(cuda: Launcher, outputs: Array, targets: Array, weights: Array | None, out: Array) -> None:
    """Launch :func:`gpunet.backends.reference.score.score_soft_classes`."""
    _launch(cuda, "score_soft_classes", outputs, targets, weights, out, outputs.shape[0] * WARP_LANES)


def score_switches(cuda: Launcher, outputs: Array, targets: Array, weights: Array | None, out: Array) -> None:
    """Launch :func:`gpunet.backends.reference.score.score_switches`."""
    _launch(cuda, "score_switches", outputs, targets, weights, out, outputs.size)


def _launch(
    cuda: Launcher, name: str, outputs: Array, targets: Array, weights: Array | None, out: Array, threads: int
) -> None:
    storage = storage_type(outputs.dtype)
    rows, columns = outputs.shape
    blocks = flat_grid(threads, cuda.device)
    partial, counters = cuda.scratch("partial", (blocks,), np.float64), cuda.zeroed_counters(1)
    arguments = (outputs, targets, weights, out, partial, counters, np.int32(rows), np.int32(columns))
    cuda.launch(cuda.kernels.get("score", f"{name}<{storage}>", score_group(storage)), blocks, THREADS, arguments)
