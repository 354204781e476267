"""Rows of matrices, and local arrays that are as long: nothing else points to those, so that loops are vectorised."""

from __future__ import annotations

from typing import Any

from numba import njit

from gpunet.backends.cpu.machine_code import array_at, local_row, size_of

# Bytes of a row that are gone through at once: of most matrices whole rows, since memory comes faster in its order.
# What is kept for each column takes as many again for each of up to six arrays, on the thread's stack.
WIDE = 8192


@njit(inline="always")
def part_of_row(matrix: Any, columns: Any, i: Any, left: Any, width: Any, A: Any) -> Any:
    """Return some elements of a row of the matrix at an address, as an array whose indices are known to be positive."""
    return array_at(matrix + size_of(A) * (i * columns + left), (width,), A)


@njit(inline="always")
def four_rows(matrix: Any, columns: Any, i: Any, left: Any, width: Any, A: Any) -> Any:
    """Return some elements of four rows: what a loop over them sums up is loaded and stored once for all four."""
    return (
        part_of_row(matrix, columns, i, left, width, A),
        part_of_row(matrix, columns, i + 1, left, width, A),
        part_of_row(matrix, columns, i + 2, left, width, A),
        part_of_row(matrix, columns, i + 3, left, width, A),
    )


@njit(inline="always")
def read_row(local: Any, matrix: Any, columns: Any, i: Any, left: Any, width: Any, A: Any) -> Any:
    """Copy some elements of a row to a local array."""
    row = part_of_row(matrix, columns, i, left, width, A)
    for j in range(width):
        local[j] = row[j]


@njit(inline="always")
def copy_of_row(matrix: Any, columns: Any, i: Any, left: Any, width: Any, A: Any) -> Any:
    """Return a local copy of some elements of a row; not for loops, see :func:`local_row`."""
    local = local_row(A, width)
    read_row(local, matrix, columns, i, left, width, A)
    return local


@njit(inline="always")
def zeros(width: Any, A: Any) -> Any:
    """Return a local array of zeros; not for loops, see :func:`local_row`."""
    local = local_row(A, width)
    for j in range(width):
        local[j] = A(0)
    return local


@njit(inline="always")
def write_row(local: Any, matrix: Any, columns: Any, i: Any, left: Any, width: Any, A: Any) -> Any:
    """Copy a local array to a row."""
    row = part_of_row(matrix, columns, i, left, width, A)
    for j in range(width):
        row[j] = local[j]
