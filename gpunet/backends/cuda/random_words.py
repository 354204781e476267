"""What the kernels with random bits share: ``random_words.cuh``."""

from __future__ import annotations

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import ceiling, flat_grid
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.devices.device import Argument


def quad_grid(cuda: Launcher, array: Array) -> int:
    """Return the blocks for one thread per four elements."""
    return flat_grid(ceiling(array.size, 4), cuda.device, cuda.tuning.streaming_waves)


def key(seed: int, layer: int) -> tuple[Argument, ...]:
    """Return seed (two words) and layer as the kernels take them."""
    return np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32), np.uint32(layer)
