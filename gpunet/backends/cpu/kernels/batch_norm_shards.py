"""Batch normalisation in parts, for a batch whose rows are in shards; the rest of them is in :mod:`.batch_norm`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gpunet.backends.cpu.elementary import ELEMENTWISE, OPTIONS
from gpunet.backends.cpu.kernels.batch_norm import (
    SUMS,
    block_statistics,
    combine,
    gradient_before,
    gradient_through,
    keep_statistics,
    scale_and_shift,
)
from gpunet.backends.cpu.kernels.kernel import kernel
from gpunet.backends.cpu.kernels.rows import WIDE, part_of_row, read_row, write_row
from gpunet.backends.cpu.machine_code import WIDTH, array_at, local_array, local_row, size_of


def statistics_kernel(A: Any, stamp: str) -> Any:
    """Compile the mean of the rows of a shard, and the sum of their squared deviations from it.

    Arguments: phase, s, sums, statistics, rows, columns, rows of a block. Phase 0 writes the sums of a block of rows, 1
    combines them for ``WIDTH`` columns.
    """

    @kernel(**OPTIONS)
    def statistics(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (7,), np.int64)
        phase, rows, columns, per_block = given[0], given[4], given[5], given[6]
        if phase == 0:
            own = given[2] + stripe * SUMS * columns * size_of(A)
            first, last = stripe * per_block, min(rows, (stripe + 1) * per_block)
            for start in range(0, columns, WIDE // size_of(A)):
                width = min(WIDE // size_of(A), columns - start)
                block_statistics(given[1], own, columns, first, last, start, width, A)
        else:
            start = stripe * WIDTH
            width = min(WIDTH, columns - start)
            center, squares = local_array(np.float64), local_array(np.float64)
            combine(given[2], rows, columns, per_block, start, width, center, squares, A)
            write_row(center, given[3], columns, 0, start, width, A)
            write_row(squares, given[3], columns, 1, start, width, A)

    return statistics


@njit(**ELEMENTWISE, forceinline=True)
def merged(statistics: Any, counts: Any, j: Any) -> Any:
    """Return how many rows shards have, the mean of column j and the sum of its squared distances from it, in float64.

    Means are taken as distances from the first shard's, which has rows: so no digit of those is lost far from zero.
    """
    pivot, rows, shift = np.float64(statistics[0, 0, j]), 0, 0.0
    for shard in range(len(counts)):
        if counts[shard] > 0:
            rows += counts[shard]
            shift += counts[shard] * (np.float64(statistics[shard, 0, j]) - pivot)
    shift /= rows
    squares = 0.0
    for shard in range(len(counts)):
        if counts[shard] > 0:
            distance = np.float64(statistics[shard, 0, j]) - pivot - shift
            squares += np.float64(statistics[shard, 1, j]) + counts[shard] * distance * distance
    return rows, pivot + shift, squares


def merge_kernel(A: Any, stamp: str) -> Any:
    """Compile the merging of the statistics of shards.

    Arguments: statistics, counts, mean, inverse_std, running mean and variance, shards, columns, and, as float64,
    momentum and epsilon. A stripe is ``WIDTH`` columns.
    """

    @kernel(**ELEMENTWISE)
    def merge(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given, numbers = array_at(arguments, (10,), np.int64), array_at(arguments, (10,), np.float64)
        shards, columns, start = given[6], given[7], stripe * WIDTH
        statistics, counts = array_at(given[0], (shards, 2, columns), A), array_at(given[1], (shards,), np.int32)
        width, rows = min(WIDTH, columns - start), 0
        center, squares = local_array(np.float64), local_array(np.float64)
        for j in range(width):
            rows, center[j], squares[j] = merged(statistics, counts, start + j)
        keep_statistics(
            center,
            squares,
            rows,
            columns,
            start,
            width,
            given[2],
            given[3],
            given[4],
            given[5],
            numbers[8],
            numbers[9],
            A,
        )

    return merge


def input_gradient_kernel(source: str, of_input: bool, A: Any, stamp: str) -> Any:
    """Compile ds = gamma inverse_std (dz - dbeta / n - shat dgamma / n), dz = dy f'(z), of sums over all n rows.

    Arguments: dy, s, y, ds, gamma, beta, mean, inverse_std, dgamma, dbeta, rows, columns, rows of a block, n, and, as
    float64, the activation's parameter.
    """

    @kernel(**OPTIONS)
    def input_gradient(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given, parameter = array_at(arguments, (15,), np.int64), A(array_at(arguments, (15,), np.float64)[14])
        rows, columns, per_block, share = given[10], given[11], given[12], 1 / given[13]
        most = min(WIDE // size_of(A), columns)
        center, scale, shift = local_row(A, most), local_row(A, most), local_row(A, most)
        slope, offset, gradient = local_row(A, most), local_row(A, most), local_row(A, most)
        for start in range(0, columns, most):
            width = min(most, columns - start)
            read_row(center, given[6], columns, 0, start, width, A)
            read_row(scale, given[7], columns, 0, start, width, A)
            dgamma = part_of_row(given[8], columns, 0, start, width, A)
            dbeta = part_of_row(given[9], columns, 0, start, width, A)
            for j in range(width):
                slope[j] = np.float64(scale[j]) * np.float64(dgamma[j]) * share
                offset[j] = np.float64(dbeta[j]) * share
            scale_and_shift(scale, shift, given[4], given[5], columns, start, width, A)
            for i in range(stripe * per_block, min(rows, (stripe + 1) * per_block)):
                incoming = part_of_row(given[0], columns, i, start, width, A)
                x = part_of_row(given[1], columns, i, start, width, A)
                kept = part_of_row(given[2], columns, i, start, width, A)
                for j in range(width):
                    centred = x[j] - center[j]
                    dz = gradient_before(source, of_input, incoming[j], kept[j], centred, scale[j], shift[j], parameter)
                    gradient[j] = gradient_through(dz, centred, scale[j], slope[j], offset[j])
                write_row(gradient, given[3], columns, i, start, width, A)

    return input_gradient
