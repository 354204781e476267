"""Bias and activation: ``activation.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet.activations import Activation, Identity
from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import THREADS, WARP_LANES, ceiling, flat_vector_width, power_of_two
from gpunet.backends.cuda.instantiation import (
    ACTIVATION_CODES,
    Variants,
    activation_code,
    arithmetic_type,
    storage_type,
    widest_vector,
)
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher

ROWS_IN_FLIGHT = 4  # of activation.cu


def activation_group(storage: str, code: int) -> Group:
    """Return the kernels for one activation."""
    return tuple(
        f"bias_activation_{direction}<{storage}, {code}, {width}>"
        for direction in ("forward", "backward")
        for width in (1, widest_vector(storage))
    )


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    return (
        activation_group(storage, ACTIVATION_CODES[name])
        for storage in variants.storages
        for name in variants.activations
    )


@dataclass(frozen=True)
class ColumnTiles:
    """A grid over a matrix for kernels that go down its columns.

    Attributes
    ----------
    grid : tuple of two ints
        Tiles of columns, parts of the rows.
    block : tuple of two ints
        Threads along a row, rows.
    """

    grid: tuple[int, int]
    block: tuple[int, int]


def column_tiles(rows: int, columns: int, width: int, multiprocessors: int) -> ColumnTiles:
    """Plan for a (rows, columns) matrix of which a thread takes ``width`` neighbouring columns.

    A row of a block is at most a warp wide: 512 neighbouring bytes at the widest. Rows are split until the device is
    full, but not so far that a thread is left with less than one round of rows.
    """
    packs = columns // width
    along = min(power_of_two(packs), WARP_LANES)
    down = THREADS // along
    tiles = ceiling(packs, along)
    wanted = ceiling(multiprocessors * 8, tiles)
    parts = max(1, min(wanted, ceiling(rows, down * ROWS_IN_FLIGHT)))
    return ColumnTiles((tiles, parts), (along, down))


def bias_activation_forward(cuda: Launcher, s: Array, bias: Array | None, activation: Activation, out: Array) -> None:
    """Launch :func:`gpunet.backends.reference.activation.bias_activation_forward`."""
    if bias is None and out is s and isinstance(activation, Identity):
        return
    kernel, tiles = _plan(cuda, "bias_activation_forward", activation, s, out)
    rows, columns = s.shape
    number = arithmetic_type(s.dtype)
    arguments = (s, bias, out, np.int32(rows), np.int32(columns), number(activation.parameter))
    cuda.launch(kernel, tiles.grid, tiles.block, arguments)


def bias_activation_backward(
    cuda: Launcher, dy: Array, y: Array, activation: Activation, ds: Array, dbias: Array | None
) -> None:
    """Launch :func:`gpunet.backends.reference.activation.bias_activation_backward`."""
    kernel, tiles = _plan(cuda, "bias_activation_backward", activation, y, dy, ds)
    rows, columns = y.shape
    number = arithmetic_type(y.dtype)
    partial = counters = None
    if dbias is not None and tiles.grid[1] > 1:
        partial = cuda.scratch("partial", (tiles.grid[1], columns), number)
        counters = cuda.zeroed_counters(tiles.grid[0])
    sizes = (np.int32(rows), np.int32(columns))
    arguments = (dy, y, ds, dbias, partial, counters, *sizes, number(activation.parameter))
    cuda.launch(kernel, tiles.grid, tiles.block, arguments)


def _plan(cuda: Launcher, name: str, activation: Activation, matrix: Array, *others: Array) -> tuple[Any, ColumnTiles]:
    """Return the kernel for matrices of one shape and the grid to run it on."""
    rows, columns = matrix.shape
    widest = flat_vector_width(matrix, *others)
    width = widest if columns % widest == 0 else 1  # else a row does not hold a whole number of accesses
    storage, code = storage_type(matrix.dtype), activation_code(activation)
    kernel = cuda.kernels.get("activation", f"{name}<{storage}, {code}, {width}>", activation_group(storage, code))
    return kernel, column_tiles(rows, columns, width, cuda.device.multiprocessor_count)
