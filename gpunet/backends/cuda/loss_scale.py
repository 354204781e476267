"""Dynamic loss scaling: ``loss_scale.cu``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import THREADS, ceiling, flat_grid, flat_vector_width
from gpunet.backends.cuda.instantiation import Variants, widest_vector
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher


def loss_scale_group() -> Group:
    """Return the kernels."""
    return tuple(f"unscale_gradients<{width}>" for width in (1, widest_vector("float")))


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    yield loss_scale_group()


def unscale_gradients(
    cuda: Launcher, gradients: Array, loss: Array, scale: Array, guard: Array, interval: int, batches: int = 1
) -> None:
    """Launch :func:`gpunet.backends.reference.loss_scale.unscale_gradients`."""
    width = flat_vector_width(gradients)
    blocks = flat_grid(ceiling(gradients.size, width), cuda.device)
    partial, counters = cuda.scratch("partial", (blocks,), np.float32), cuda.zeroed_counters(1)
    kernel = cuda.kernels.get("loss_scale", f"unscale_gradients<{width}>", loss_scale_group())
    numbers = np.int32(interval), np.int32(batches)
    arguments = (gradients, np.int64(gradients.size), loss, scale, guard, *numbers, partial, counters)
    cuda.launch(kernel, blocks, THREADS, arguments)
