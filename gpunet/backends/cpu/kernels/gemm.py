"""Parts of a matrix product, each by one call of the BLAS library."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gpunet.backends.cpu.elementary import OPTIONS
from gpunet.backends.cpu.kernels.kernel import kernel
from gpunet.backends.cpu.machine_code import (
    WIDTH,
    add,
    array_at,
    call_dgemm,
    call_dgemm_64,
    call_sgemm,
    call_sgemm_64,
    local_array,
    size_of,
    store,
)

# Of CBLAS.
_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED = 101, 111, 112
WORDS = 14


@njit(inline="always")
def _call(gemm: Any, long: Any, size: Any, product: Any) -> Any:
    if size == 4:
        if long:
            call_sgemm_64(gemm, product)
        else:
            call_sgemm(gemm, product)
    elif long:
        call_dgemm_64(gemm, product)
    else:
        call_dgemm(gemm, product)


@kernel()
def gemm_tile(arguments: Any, stripe: Any) -> Any:
    """out[tile] = op(a)[rows] op(b)[columns], added to where asked for.

    Arguments: gemm, integers of 64 bits, bytes per element, a, b, out, m, n, k, transpose_a, transpose_b, accumulate,
    rows and columns of a tile. Tiles are counted along the columns first.
    """
    given = array_at(arguments, (WORDS,), np.int64)
    gemm, long, size, a, b, out = given[0], given[1], given[2], given[3], given[4], given[5]
    m, n, k, transpose_a, transpose_b = given[6], given[7], given[8], given[9], given[10]
    accumulate, rows, columns = given[11], given[12], given[13]
    per_row = (n + columns - 1) // columns
    first_row, first_column = stripe // per_row * rows, stripe % per_row * columns
    rows, columns = min(rows, m - first_row), min(columns, n - first_column)
    row_of_a, column_of_b = m if transpose_a else k, k if transpose_b else n
    a += size * first_row * (1 if transpose_a else k)
    b += size * first_column * (k if transpose_b else 1)
    out += size * (first_row * n + first_column)
    how_a = _TRANSPOSED if transpose_a else _AS_IT_IS
    how_b = _TRANSPOSED if transpose_b else _AS_IT_IS
    one, beta = 1.0, float(accumulate)
    tile = (_ROW_MAJOR, how_a, how_b, rows, columns, k, one, a, row_of_a, b, column_of_b, beta, out, n)
    _call(gemm, long, size, tile)


def gemm_over_rows_kernel(A: Any, stamp: str) -> Any:
    """Compile out = a^T b for matrices of many rows, by sums over blocks of them.

    Arguments: gemm, integers of 64 bits, a, b, out, sums, how many blocks are done, m, n, k, accumulate, rows of a
    block. Whoever does the last block adds up the sums, in their order.
    """

    @kernel(**OPTIONS)
    def gemm_over_rows(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (12,), np.int64)
        m, n, k, per_block, size = given[7], given[8], given[9], given[11], size_of(A)
        first, blocks, one, zero = stripe * per_block, (k + per_block - 1) // per_block, 1.0, 0.0
        a, b, own = given[2] + size * first * m, given[3] + size * first * n, given[5] + size * stripe * m * n
        rows = min(per_block, k - first)
        product = (_ROW_MAJOR, _TRANSPOSED, _AS_IT_IS, m, n, rows, one, a, m, b, n, zero, own, n)
        _call(given[0], given[1], size, product)
        if add(given[6], 1) + 1 < blocks:
            return
        store(given[6], 0)
        for start in range(0, m * n, WIDTH):
            width = min(WIDTH, m * n - start)
            out, total = array_at(given[4] + size * start, (width,), A), local_array(A)
            for j in range(width):
                total[j] = out[j] if given[10] else A(0)
            for block in range(blocks):
                part = array_at(given[5] + size * (block * m * n + start), (width,), A)
                for j in range(width):
                    total[j] += part[j]
            for j in range(width):
                out[j] = total[j]

    return gemm_over_rows
