"""Dropout: ``dropout.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import THREADS, WIDEST_ACCESS, is_aligned
from gpunet.backends.cuda.instantiation import Variants, arithmetic_type, storage_type
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.cuda.random_words import key, quad_grid
from gpunet.random import dropout_threshold


def dropout_group(storage: str) -> Group:
    """Return the kernels for one storage type."""
    return tuple(
        f"dropout_{direction}<{storage}, {aligned}>"
        for direction in ("forward", "backward")
        for aligned in ("false", "true")
    )


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    return map(dropout_group, variants.storages)


def dropout_forward(
    cuda: Launcher,
    x: Array,
    out: Array,
    mask: Array,
    rate: float,
    seed: int,
    layer: int,
    step: Array,
    *,
    first: int = 0,
) -> None:
    """Launch :func:`gpunet.backends.reference.dropout.dropout_forward`."""
    kernel = _kernel(cuda, "dropout_forward", x, out, mask)
    scale = arithmetic_type(x.dtype)(1 / (1 - rate))
    numbers = (*_sizes(x, mask), np.uint32(dropout_threshold(rate)), scale)
    given = (x, out, mask, *numbers, *key(seed, layer), step, np.int64(first // 4))
    cuda.launch(kernel, quad_grid(cuda, mask), THREADS, given)


def dropout_backward(cuda: Launcher, dy: Array, mask: Array, rate: float, dx: Array) -> None:
    """Launch :func:`gpunet.backends.reference.dropout.dropout_backward`."""
    kernel = _kernel(cuda, "dropout_backward", dy, dx, mask)
    scale = arithmetic_type(dy.dtype)(1 / (1 - rate))
    cuda.launch(kernel, quad_grid(cuda, mask), THREADS, (dy, mask, dx, *_sizes(dy, mask), scale))


def _sizes(matrix: Array, mask: Array) -> tuple[np.int64, np.int32, np.int32]:
    """Return the elements of the mask, its columns, and those that a row has in memory."""
    return np.int64(mask.size), np.int32(mask.shape[1]), np.int32(matrix.shape[1])


def _kernel(cuda: Launcher, name: str, source: Array, out: Array, mask: Array) -> Any:
    aligned = is_aligned(WIDEST_ACCESS, source, out) and is_aligned(4, mask)
    if source.shape != mask.shape:  # four neighbours that share a counter are to be neighbours in memory too
        aligned = aligned and mask.shape[1] % 4 == source.shape[1] % 4 == 0
    storage = storage_type(source.dtype)
    return cuda.kernels.get("dropout", f"{name}<{storage}, {str(aligned).lower()}>", dropout_group(storage))
