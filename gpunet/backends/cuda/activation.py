"""Bias and activation: ``activation.cu``; and how kernels are compiled with an activation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet.activations import CHECKED_POINTS, Activation, Identity, OwnActivation
from gpunet.backends.arrays import Array
from gpunet.backends.cuda.grids import THREADS, WARP_LANES, ceiling, flat_vector_width, power_of_two, resident_blocks
from gpunet.backends.cuda.instantiation import Variants, arithmetic_type, storage_type, widest_vector
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.devices.device import KernelCompileError
from gpunet.errors import InvalidValueError

ROWS_IN_FLIGHT = 4  # of activation.cu
# How far a text may be from the NumPy function: some hundred units, for texts with other formulas or constants.
_AGREES = {np.float32: 1e-4, np.float64: 1e-6}


def activation_group(storage: str, activation: Activation) -> Group:
    """Return the kernels for one activation."""
    return tuple(
        f"bias_activation_{direction}<{storage}, {activation.cuda_name}, {width}>"
        for direction in ("forward", "backward")
        for width in (1, widest_vector(storage))
    )


def groups(variants: Variants) -> Iterator[Group]:
    """Yield every group of kernels that are compiled together."""
    return (
        activation_group(storage, activation) for storage in variants.storages for activation in variants.activations
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


def column_tiles(rows: int, columns: int, width: int, most_blocks: int) -> ColumnTiles:
    """Plan for a (rows, columns) matrix of which a thread takes ``width`` neighbouring columns.

    A row of a block is at most a warp wide: 512 neighbouring bytes at the widest. Rows are split until the device is
    full with ``most_blocks``, but not so far that a thread is left with less than one round of rows. The second
    dimension of a grid ends at 65,535 on every device, which is more than any has at once.
    """
    packs = columns // width
    along = min(power_of_two(packs), WARP_LANES)
    down = THREADS // along
    tiles = ceiling(packs, along)
    wanted = ceiling(most_blocks, tiles)
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
    cuda: Launcher,
    dy: Array,
    kept: Array,
    activation: Activation,
    ds: Array,
    dbias: Array | None,
    bias: Array | None = None,
) -> None:
    """Launch :func:`gpunet.backends.reference.activation.bias_activation_backward`."""
    kernel, tiles = _plan(cuda, "bias_activation_backward", activation, kept, dy, ds)
    rows, columns = kept.shape
    number = arithmetic_type(kept.dtype)
    partial = counters = None
    if dbias is not None and tiles.grid[1] > 1:
        partial = cuda.scratch("partial", (tiles.grid[1], columns), number)
        counters = cuda.zeroed_counters(tiles.grid[0])
    sizes = (np.int32(rows), np.int32(columns))
    arguments = (dy, kept, bias, ds, dbias, partial, counters, *sizes, number(activation.parameter))
    cuda.launch(kernel, tiles.grid, tiles.block, arguments)


def _plan(cuda: Launcher, name: str, activation: Activation, matrix: Array, *others: Array) -> tuple[Any, ColumnTiles]:
    """Return the kernel for matrices of one shape and the grid to run it on."""
    rows, columns = matrix.shape
    widest = flat_vector_width(matrix, *others)
    width = widest if columns % widest == 0 else 1  # else a row does not hold a whole number of accesses
    storage = storage_type(matrix.dtype)
    expression, group = f"{name}<{storage}, {activation.cuda_name}, {width}>", activation_group(storage, activation)
    kernel = kernel_with(cuda, activation, "activation", expression, group, matrix)
    return kernel, column_tiles(rows, columns, width, resident_blocks(cuda.device))


def kernel_with(
    cuda: Launcher, activation: Activation, module: str, expression: str, group: Group, matrix: Array
) -> Any:
    """Return a kernel that has an activation among its template arguments, for matrices like ``matrix``.

    The texts of an activation of the user's own are compared with its NumPy functions before their first use.

    Raises
    ------
    NoKernelError
        The activation has no CUDA text.
    InvalidValueError
        The text of an activation of the user's own does not compile, and the error has the compiler's message; or it
        computes something else than the NumPy function.
    """
    try:
        kernel = cuda.kernels.get(module, expression, group, activation)
    except KernelCompileError as error:
        if isinstance(activation, OwnActivation):
            raise
        raise InvalidValueError(f"cuda_forward, cuda_derivative: those of {activation.name!r}: {error}") from error
    key = activation, arithmetic_type(matrix.dtype)
    if not isinstance(activation, OwnActivation) and key not in cuda.compared:
        cuda.compared.add(key)  # first: the comparison launches kernels with it
        try:
            _compare(cuda, *key)
        except BaseException:
            cuda.compared.remove(key)
            raise
    return kernel


def _compare(cuda: Launcher, activation: Activation, number: type[np.floating[Any]]) -> None:
    """Run f and f' on the device, and raise if they are not those of NumPy."""
    points = CHECKED_POINTS.astype(number).reshape(-1, 1)
    device = cuda.device
    s, ones = device.asarray(points), device.asarray(np.ones_like(points))
    y, derivative = device.empty(points.shape, points.dtype), device.empty(points.shape, points.dtype)
    bias_activation_forward(cuda, s, None, activation, y)
    bias_activation_backward(cuda, ones, s if activation.derivative_of == "input" else y, activation, derivative, None)
    for argument, found, expected in (
        ("cuda_forward", device.to_numpy(y), activation.forward(points)),
        ("cuda_derivative", device.to_numpy(derivative), activation.derivative_at(points)),
    ):
        wrong = ~(np.abs(found - expected) <= _AGREES[number] * np.maximum(1, np.abs(expected)))
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise InvalidValueError(
                f"{argument}: of {activation.name!r} it is {found.flat[first]:.6g} at s = {points.flat[first]:g}, "
                f"where the NumPy function is {expected.flat[first]:.6g}. Expected the same function."
            )
