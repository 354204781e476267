"""Batches, and what training keeps track of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, int64, void

from gpunet.backends.cpu.machine_code import array_at

SIGNATURE = void(int64, int64)


def gather_kernel(stamp: str) -> Any:
    """Compile out_i = source[index[first + i]], whatever the dtype.

    Arguments: source, index, out, first or 0, rows, bytes of a row, rows of a block.
    """

    @cfunc(SIGNATURE, cache=True)
    def gather(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (7,), np.int64)
        rows, size, per_block = given[4], given[5], given[6]
        start = 0
        if given[3] != 0:
            start = array_at(given[3], (1,), np.int64)[0]
        index = array_at(given[1] + 4 * start, (rows,), np.int32)
        for i in range(stripe * per_block, min(rows, (stripe + 1) * per_block)):
            here, there = given[0] + size * index[i], given[2] + size * i
            if size % 4 == 0:
                words, copies = array_at(here, (size // 4,), np.int32), array_at(there, (size // 4,), np.int32)
                for j in range(size // 4):
                    copies[j] = words[j]
            else:
                octets, others = array_at(here, (size,), np.uint8), array_at(there, (size,), np.uint8)
                for j in range(size):
                    others[j] = octets[j]

    return gather


def count_kernel(A: Any, stamp: str) -> Any:
    """Compile the counting of a step.

    Arguments: loss, losses, table, scalars, place, steps, rows, how many scalars there are.
    """

    @cfunc(SIGNATURE, cache=True)
    def count(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (8,), np.int64)
        loss, place, steps = (
            array_at(given[0], (2,), A),
            array_at(given[4], (3,), np.int64),
            array_at(given[5], (1,), np.int64),
        )
        number, columns = place[0], given[7]
        losses = array_at(given[1], (number + 1, 2), np.float64)
        table, scalars = array_at(given[2], (number + 1, columns), A), array_at(given[3], (columns,), A)
        if number > 0 and not np.isfinite(losses[number - 1, 0]):
            loss[0] = np.nan
        losses[number, 0], losses[number, 1] = loss[0], loss[1]
        for column in range(columns):
            scalars[column] = table[number, column]
        place[0] += 1
        place[1] += given[6]
        steps[0] += 1

    return count
