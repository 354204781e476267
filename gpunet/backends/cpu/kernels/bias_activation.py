"""Bias and activation, by blocks of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gpunet.backends.cpu.elementary import INLINED, OPTIONS
from gpunet.backends.cpu.kernels.activation import activate
from gpunet.backends.cpu.kernels.kernel import kernel
from gpunet.backends.cpu.kernels.rows import WIDE, copy_of_row, part_of_row, write_row, zeros
from gpunet.backends.cpu.machine_code import array_at, local_row, size_of


def forward_kernel(source: str, A: Any, stamp: str) -> Any:
    """Compile out = f(s + b).

    Arguments: s, bias or 0, out, rows, columns, rows of a block, and, as float64, the activation's parameter.
    """

    @kernel(**OPTIONS)
    def forward(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given, parameter = array_at(arguments, (7,), np.int64), A(array_at(arguments, (7,), np.float64)[6])
        rows, columns, per_block = given[3], given[4], given[5]
        s, out = array_at(given[0], (rows, columns), A), array_at(given[2], (rows, columns), A)
        bias = array_at(given[1], (columns,), A)
        for i in range(stripe * per_block, min(rows, (stripe + 1) * per_block)):
            if given[1] == 0:
                for j in range(columns):
                    out[i, j] = activate(source, s[i, j], parameter)
            else:
                for j in range(columns):
                    out[i, j] = activate(source, s[i, j] + bias[j], parameter)

    return forward


@njit(**INLINED)
def block_gradients(
    source: Any,
    has_bias: Any,
    dy: Any,
    kept: Any,
    ds: Any,
    bias: Any,
    sums: Any,
    columns: Any,
    first: Any,
    last: Any,
    left: Any,
    width: Any,
    parameter: Any,
    A: Any,
) -> Any:
    """Write ds of a block and its sums over rows."""
    shift = copy_of_row(bias, columns, 0, left, width, A) if has_bias else zeros(width, A)
    total, gradient = zeros(width, A), local_row(A, width)
    for i in range(first, last):
        incoming, z = part_of_row(dy, columns, i, left, width, A), part_of_row(kept, columns, i, left, width, A)
        for j in range(width):
            gradient[j] = incoming[j] * activate(source, z[j] + shift[j] if has_bias else z[j], parameter)
            total[j] += gradient[j]
        write_row(gradient, ds, columns, i, left, width, A)
    write_row(total, sums, columns, 0, left, width, A)


def backward_kernel(source: str, of_input: bool, A: Any, stamp: str) -> Any:
    """Compile ds = dy f'(s + b), db_j = sum_i ds_ij.

    Arguments: phase, dy, kept, ds, bias or 0, dbias or 0, sums, rows, columns, rows of a block, and, as float64, the
    activation's parameter. Phase 0 does a block of rows and writes its sums; 1 adds them up.
    """

    @kernel(**OPTIONS)
    def backward(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given, parameter = array_at(arguments, (11,), np.int64), A(array_at(arguments, (11,), np.float64)[10])
        rows, columns, per_block = given[7], given[8], given[9]
        shape = (rows, columns)
        dy, kept, ds = array_at(given[1], shape, A), array_at(given[2], shape, A), array_at(given[3], shape, A)
        bias, dbias = array_at(given[4], (columns,), A), array_at(given[5], (columns,), A)
        blocks = (rows + per_block - 1) // per_block
        sums = array_at(given[6], (blocks, columns), A)
        if given[0] == 1:
            for j in range(columns):
                total = 0.0
                for block in range(blocks):
                    total += np.float64(sums[block, j])
                dbias[j] = total
            return
        has_bias = of_input and given[4] != 0
        first, last = stripe * per_block, min(rows, (stripe + 1) * per_block)
        if given[5] == 0:
            for i in range(first, last):
                for j in range(columns):
                    z = kept[i, j]
                    if has_bias:
                        z += bias[j]
                    ds[i, j] = dy[i, j] * activate(source, z, parameter)
            return
        for start in range(0, columns, WIDE // size_of(A)):
            width = min(WIDE // size_of(A), columns - start)
            own = given[6] + stripe * columns * size_of(A)
            block_gradients(
                source,
                has_bias,
                given[1],
                given[2],
                given[3],
                given[4],
                own,
                columns,
                first,
                last,
                start,
                width,
                parameter,
                A,
            )

    return backward
