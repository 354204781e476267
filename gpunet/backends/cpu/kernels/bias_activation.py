"""Bias and activation, by blocks of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.backends.cpu.elementary import OPTIONS
from gpunet.backends.cpu.kernels.activation import activate
from gpunet.backends.cpu.kernels.kernel import kernel
from gpunet.backends.cpu.machine_code import array_at


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
        has_sums = given[5] != 0
        if has_sums:
            for j in range(columns):
                sums[stripe, j] = 0
        for i in range(stripe * per_block, min(rows, (stripe + 1) * per_block)):
            for j in range(columns):
                z = kept[i, j]
                if has_bias:
                    z += bias[j]
                ds[i, j] = dy[i, j] * activate(source, z, parameter)
            if has_sums:
                for j in range(columns):
                    sums[stripe, j] += ds[i, j]

    return backward
