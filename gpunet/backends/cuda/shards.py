"""Sums over a batch in shards: ``shards.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import THREADS, ceiling, flat_grid, flat_vector_width
from gpunet.backends.cuda.instantiation import PARAMETER_TYPES, Variants, storage_type, widest_vector
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher


def shards_group(storage: str) -> Group:
    """Return the kernels for one storage type; vectors that are summed have the type of parameters."""
    names = ("weigh_shard", "sum_shards", "divide_sums") if storage in PARAMETER_TYPES else ("weigh_shard",)
    return tuple(f"{name}<{storage}, {width}>" for name in names for width in (1, widest_vector(storage)))


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    return map(shards_group, variants.storages)


def weigh_shard(cuda: Launcher, doutputs: Array, dbias: Array | None, loss: Array, sums: Array, *, rows: int) -> None:
    """Launch :func:`gpunet.backends.reference.shards.weigh_shard`."""
    columns = np.int32(0 if dbias is None else dbias.size)
    arguments = (doutputs, np.int64(doutputs.size), dbias, columns, loss, sums, np.int32(rows))
    _sweep(cuda, "weigh_shard", (doutputs,), arguments)


def sum_shards(cuda: Launcher, parts: Array, levels: Array, out: Array) -> None:
    """Launch :func:`gpunet.backends.reference.shards.sum_shards`."""
    count, size = parts.shape
    arguments = (parts, levels, out, np.int32(count), np.int64(size))
    _sweep(cuda, "sum_shards", (out, parts, parts[min(1, count - 1)]), arguments)


def divide_sums(cuda: Launcher, gradients: Array, sums: Array, loss: Array, *, rows: int) -> None:
    """Launch :func:`gpunet.backends.reference.shards.divide_sums`."""
    arguments = (gradients, np.int64(gradients.size), sums, loss, np.int32(rows))
    _sweep(cuda, "divide_sums", (gradients,), arguments)


def _sweep(cuda: Launcher, name: str, vectors: tuple[Array, ...], arguments: tuple[Any, ...]) -> None:
    """Launch a kernel over the elements of the first of these vectors; all of them are accessed N at a time."""
    width = flat_vector_width(*vectors)
    storage = storage_type(vectors[0].dtype)
    kernel = cuda.kernels.get("shards", f"{name}<{storage}, {width}>", shards_group(storage))
    blocks = flat_grid(ceiling(vectors[0].size, width), cuda.device, cuda.tuning.streaming_waves)
    cuda.launch(kernel, blocks, THREADS, arguments)
