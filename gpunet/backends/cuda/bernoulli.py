"""Samples of binary units: ``bernoulli.cu``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import THREADS, WIDEST_ACCESS, is_aligned
from gpunet.backends.cuda.instantiation import Variants, storage_type
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.cuda.random_words import key, quad_grid


def bernoulli_group(storage: str) -> Group:
    """Return the kernels for one storage type."""
    return tuple(f"sample_bernoulli<{storage}, {aligned}>" for aligned in ("false", "true"))


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    return map(bernoulli_group, variants.storages)


def sample_bernoulli(cuda: Launcher, probabilities: Array, out: Array, seed: int, layer: int, step: Array) -> None:
    """Launch :func:`gpunet.backends.reference.bernoulli.sample_bernoulli`."""
    aligned = str(is_aligned(WIDEST_ACCESS, probabilities, out)).lower()
    storage = storage_type(out.dtype)
    kernel = cuda.kernels.get("bernoulli", f"sample_bernoulli<{storage}, {aligned}>", bernoulli_group(storage))
    arguments = (probabilities, out, np.int64(out.size), *key(seed, layer), step)
    cuda.launch(kernel, quad_grid(cuda, out), THREADS, arguments)
