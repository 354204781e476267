"""Batches, and what training keeps track of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gpunet.backends.cpu.elementary import ELEMENTWISE, OPTIONS
from gpunet.backends.cpu.kernels.kernel import kernel
from gpunet.backends.cpu.machine_code import array_at, size_of


@njit(inline="always")
def copy_bytes(source: Any, destination: Any, size: Any) -> Any:
    """Copy memory, in words as far as they go."""
    words, copies = array_at(source, (size // 4,), np.int32), array_at(destination, (size // 4,), np.int32)
    for j in range(size // 4):
        copies[j] = words[j]
    octets, others = array_at(source, (size,), np.uint8), array_at(destination, (size,), np.uint8)
    for j in range(size // 4 * 4, size):
        others[j] = octets[j]


def gather_kernel(stamp: str) -> Any:
    """Compile out_i = source[index[first + i]], whatever the dtype.

    Arguments: source, index, out, first or 0, rows, bytes of a row, rows of a block.
    """

    @kernel()
    def gather(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (7,), np.int64)
        rows, size, per_block = given[4], given[5], given[6]
        start = 0
        if given[3] != 0:
            start = array_at(given[3], (1,), np.int64)[0]
        index = array_at(given[1] + 4 * start, (rows,), np.int32)
        for i in range(stripe * per_block, min(rows, (stripe + 1) * per_block)):
            copy_bytes(given[0] + size * index[i], given[2] + size * i, size)

    return gather


def count_kernel(A: Any, stamp: str) -> Any:
    """Compile the counting of a step.

    Arguments: loss, losses, table, scalars, place, steps, rows, how many scalars there are, skipped or 0.
    """

    @kernel()
    def count(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (9,), np.int64)
        loss, place, steps = (
            array_at(given[0], (2,), A),
            array_at(given[4], (3,), np.int64),
            array_at(given[5], (1,), np.int64),
        )
        number, columns = place[0], given[7]
        losses = array_at(given[1], (number + 1, 2), np.float64)
        table, scalars = array_at(given[2], (number + 1, columns), A), array_at(given[3], (columns,), A)
        skipped = 0
        if given[8] != 0:
            skipped = int(array_at(given[8], (1,), np.float32)[0])
        if number > 0 and not np.isfinite(losses[number - 1, 0]):
            loss[0] = np.nan
        losses[number, 0], losses[number, 1] = loss[0], loss[1]
        for column in range(columns):
            scalars[column] = table[number - skipped, column]
        place[0] += 1
        place[1] += given[6]
        steps[0] += 1

    return count


def copy_kernel(stamp: str) -> Any:
    """Compile a copy, whatever the dtype.

    Arguments: source, destination, bytes, bytes of a chunk (a multiple of 8).
    """

    @kernel()
    def copy(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (4,), np.int64)
        first, last = stripe * given[3], min(given[2], (stripe + 1) * given[3])
        copy_bytes(given[0] + first, given[1] + first, last - first)

    return copy


def keep_kernel(A: Any, stamp: str) -> Any:
    """Compile the keeping of weights.

    Arguments: source, kept, losses, place, elements, elements of a chunk, steps of a window.
    """

    @kernel()
    def keep(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (7,), np.int64)
        size, place = given[4], array_at(given[3], (3,), np.int64)
        number = place[0]
        if number > 0 and not np.isfinite(array_at(given[2], (number, 2), np.float64)[number - 1, 0]):
            return
        first, last = stripe * given[5], min(size, (stripe + 1) * given[5])
        window = (place[2] + number // given[6]) % 2
        bytes_each = size_of(A)
        copy_bytes(
            given[0] + bytes_each * first,
            given[1] + bytes_each * (window * size + first),
            bytes_each * (last - first),
        )

    return keep


def summarize_kernel(A: Any, stamp: str) -> Any:
    """Compile the sum of the weights' squares, and how many elements of a vector are not finite.

    Arguments: phase, vector, out, sums, elements, how many are weights, elements of a chunk. Phase 0 does a chunk; 1
    adds up.
    """

    @kernel(**OPTIONS)
    def summarize(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (7,), np.int64)
        size, weights, chunk = given[4], given[5], given[6]
        chunks = (size + chunk - 1) // chunk
        sums, squares, wrong = array_at(given[3], (chunks, 2), np.float64), 0.0, 0.0
        if given[0] == 1:
            out = array_at(given[2], (2,), np.float64)
            for number in range(chunks):
                squares += sums[number, 0]
                wrong += sums[number, 1]
            out[0], out[1] = squares, wrong
            return
        vector = array_at(given[1], (size,), A)
        first, last = stripe * chunk, min(size, (stripe + 1) * chunk)
        for i in range(first, min(last, weights)):
            squares += np.float64(vector[i]) * np.float64(vector[i])
        for i in range(first, last):
            wrong += 0.0 if abs(vector[i]) < np.inf else 1.0
        sums[stripe, 0], sums[stripe, 1] = squares, wrong

    return summarize


def accumulate_kernel(A: Any, stamp: str) -> Any:
    """Compile the mean of the gradients of several batches.

    Arguments: phase, gradients, accumulated, loss, mean, elements, elements of a chunk, whether it is the first batch,
    and the last. Phase 0 does a chunk; 1 the loss, which the others read.
    """

    @kernel(**ELEMENTWISE)
    def accumulate(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (9,), np.int64)
        size, chunk, is_last = given[5], given[6], given[8] != 0
        loss, mean = array_at(given[3], (2,), A), array_at(given[4], (2,), A)
        before = A(0) if given[7] != 0 else mean[1]
        share = A(1)
        if before != 0:
            share = loss[1] / (before + loss[1])
        if given[0] == 1:
            mean[0] = loss[0] if before == 0 else mean[0] + share * (loss[0] - mean[0])
            mean[1] = before + loss[1]
            return
        first, last = stripe * chunk, min(size, (stripe + 1) * chunk)
        gradients, accumulated = array_at(given[1], (size,), A), array_at(given[2], (size,), A)
        # Each loop writes one of the arrays that it reads: where the compiler cannot see which, it makes no vectors.
        if before == 0 and not is_last:
            for i in range(first, last):
                accumulated[i] = gradients[i]
        elif before != 0 and not is_last:
            for i in range(first, last):
                accumulated[i] += share * (gradients[i] - accumulated[i])
        elif before != 0:
            for i in range(first, last):
                gradients[i] = accumulated[i] + share * (gradients[i] - accumulated[i])

    return accumulate


def average_kernel(A: Any, stamp: str) -> Any:
    """Compile the average of weights.

    Arguments: phase, values, averaged, updates, loss, elements, elements of a chunk, and, as float64, the decay. Phase
    0 does a chunk of a vector; 1 counts the update.
    """

    @kernel(**ELEMENTWISE)
    def average(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given, numbers = array_at(arguments, (8,), np.int64), array_at(arguments, (8,), np.float64)
        size, chunk, updates = given[5], given[6], array_at(given[3], (1,), np.int64)
        if not np.isfinite(array_at(given[4], (2,), A)[0]):
            return
        if given[0] == 1:
            updates[0] += 1
            return
        values, averaged, share = array_at(given[1], (size,), A), array_at(given[2], (size,), A), A(1 - numbers[7])
        first, last = stripe * chunk, min(size, (stripe + 1) * chunk)
        if updates[0] == 0:
            for i in range(first, last):
                averaged[i] = values[i]
        else:
            for i in range(first, last):
                averaged[i] += share * (values[i] - averaged[i])

    return average
