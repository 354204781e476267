"""Sums over the rows of a batch that is in shards."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gpunet.backends.cpu.elementary import ELEMENTWISE, INLINED
from gpunet.backends.cpu.kernels.kernel import kernel
from gpunet.backends.cpu.kernels.rows import part_of_row, read_row, write_row
from gpunet.backends.cpu.machine_code import WIDTH, array_at, local_array, size_of


@njit(**INLINED)
def multiply(vector: Any, first: Any, last: Any, factor: Any, A: Any) -> Any:
    """Multiply some elements of the vector at an address, in place."""
    if factor != A(1):
        elements = array_at(vector + size_of(A) * first, (last - first,), A)
        for j in range(last - first):
            elements[j] *= factor


def weigh_kernel(A: Any, stamp: str) -> Any:
    """Compile the weighing of the gradient of a shard.

    Arguments: doutputs, dbias or 0, loss, sums, elements of doutputs and of a chunk, columns, rows of the whole batch.
    A stripe does a chunk; the first one also does the rest.
    """

    @kernel(**ELEMENTWISE)
    def weigh(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (8,), np.int64)
        loss, sums, chunk = array_at(given[2], (2,), A), array_at(given[3], (2,), A), given[5]
        share = A(np.float64(loss[1]) / given[7])
        multiply(given[0], stripe * chunk, min(given[4], (stripe + 1) * chunk), share, A)
        if stripe == 0:
            if given[1] != 0:
                multiply(given[1], 0, given[6], share, A)
            sums[0], sums[1] = loss[0] * loss[1], loss[1]

    return weigh


def sum_kernel(A: Any, stamp: str) -> Any:
    """Compile the sum of vectors over the tree of the shards.

    Arguments: parts, levels, out, stack, levels on the stack, bytes from part to part, parts, elements of one and of a
    chunk. Each stripe has ``WIDTH`` elements of each part, and a level of each, on a stack of its own.
    """

    @kernel(**ELEMENTWISE)
    def sum_parts(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (9,), np.int64)
        count, size, chunk = given[6], given[7], given[8]
        levels = array_at(given[1], (count,), np.int32)
        stack = given[3] + stripe * count * WIDTH * size_of(A)
        levels_of_stack = array_at(given[4] + stripe * count * 4, (count,), np.int32)
        total = local_array(A)
        for start in range(stripe * chunk, min(size, (stripe + 1) * chunk), WIDTH):
            width = min(WIDTH, min(size, (stripe + 1) * chunk) - start)
            height = 0
            for number in range(count):
                level = levels[number]
                if level < 0:
                    continue
                read_row(total, given[0] + number * given[5], size, 0, start, width, A)
                while height > 0 and levels_of_stack[height - 1] == level:
                    height -= 1
                    level += 1
                    below = part_of_row(stack, WIDTH, height, 0, width, A)
                    for j in range(width):
                        total[j] += below[j]
                levels_of_stack[height] = level
                write_row(total, stack, WIDTH, height, 0, width, A)
                height += 1
            read_row(total, stack, WIDTH, height - 1, 0, width, A)
            for number in range(height - 2, -1, -1):
                below = part_of_row(stack, WIDTH, number, 0, width, A)
                for j in range(width):
                    total[j] += below[j]
            write_row(total, given[2], size, 0, start, width, A)

    return sum_parts


def divide_kernel(A: Any, stamp: str) -> Any:
    """Compile the division of sums over a batch by the sum of its weights.

    Arguments: gradients, sums, loss, elements of gradients and of a chunk, rows. A stripe does a chunk; the first one
    also the loss.
    """

    @kernel(**ELEMENTWISE)
    def divide(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (6,), np.int64)
        sums, loss, chunk = array_at(given[1], (2,), A), array_at(given[2], (2,), A), given[4]
        total, weight = np.float64(sums[0]), np.float64(sums[1])
        factor = A(0.0 if weight == 0 else given[5] / weight)
        multiply(given[0], stripe * chunk, min(given[3], (stripe + 1) * chunk), factor, A)
        if stripe == 0:
            loss[0], loss[1] = (0.0 if weight == 0 else total / weight), weight

    return divide
