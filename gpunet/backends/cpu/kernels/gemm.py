"""A tile of a matrix product, by one call of the BLAS library."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, int64, void

from gpunet.backends.cpu.machine_code import array_at, call_dgemm, call_dgemm_64, call_sgemm, call_sgemm_64

# Of CBLAS.
_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED = 101, 111, 112
WORDS = 14


@cfunc(void(int64, int64), cache=True)
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
    if size == 4:
        if long:
            call_sgemm_64(gemm, tile)
        else:
            call_sgemm(gemm, tile)
    elif long:
        call_dgemm_64(gemm, tile)
    else:
        call_dgemm(gemm, tile)
