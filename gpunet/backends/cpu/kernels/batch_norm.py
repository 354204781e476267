"""Batch normalisation and activation, by blocks of rows.

Statistics of a block of rows are taken in two passes while it is in the cache: the sum, then the sums of the centred
values and their squares, of which the former says what rounding left of the mean. Blocks are combined in float64, in
their order (Chan, Golub, LeVeque 1979): the digits of a variance do not depend on how far from zero the values are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gpunet.backends.cpu.elementary import ELEMENTWISE, INLINED, OPTIONS, select
from gpunet.backends.cpu.kernels.activation import activate
from gpunet.backends.cpu.kernels.kernel import kernel
from gpunet.backends.cpu.kernels.rows import WIDE, copy_of_row, four_rows, part_of_row, read_row, write_row, zeros
from gpunet.backends.cpu.machine_code import WIDTH, array_at, local_array, local_row, size_of

# How many sums each block has: of the values; of what is centred, and of its squares. Backward, two of them are used.
SUMS = 3


@njit(**INLINED)
def block_statistics(s: Any, sums: Any, columns: Any, first: Any, last: Any, left: Any, width: Any, A: Any) -> Any:
    """Write the mean of each column of a block, and the sums of centred values and of their squares."""
    mean, rest, squares = zeros(width, A), zeros(width, A), zeros(width, A)
    whole = first + (last - first) // 4 * 4
    for i in range(first, whole, 4):
        s0, s1, s2, s3 = four_rows(s, columns, i, left, width, A)
        for j in range(width):
            mean[j] += (s0[j] + s1[j]) + (s2[j] + s3[j])
    for i in range(whole, last):
        s0 = part_of_row(s, columns, i, left, width, A)
        for j in range(width):
            mean[j] += s0[j]
    share = A(1 / (last - first))
    for j in range(width):
        mean[j] *= share
    for i in range(first, whole, 4):
        s0, s1, s2, s3 = four_rows(s, columns, i, left, width, A)
        for j in range(width):
            m = mean[j]
            a, b, c, d = s0[j] - m, s1[j] - m, s2[j] - m, s3[j] - m
            rest[j] += (a + b) + (c + d)
            squares[j] += (a * a + b * b) + (c * c + d * d)
    for i in range(whole, last):
        s0 = part_of_row(s, columns, i, left, width, A)
        for j in range(width):
            a = s0[j] - mean[j]
            rest[j] += a
            squares[j] += a * a
    write_row(mean, sums, columns, 0, left, width, A)
    write_row(rest, sums, columns, 1, left, width, A)
    write_row(squares, sums, columns, 2, left, width, A)


@njit(**INLINED)
def combine(
    sums: Any, rows: Any, columns: Any, per_block: Any, left: Any, width: Any, center: Any, squares: Any, A: Any
) -> Any:
    """Write the means of columns and the sums of the squared distances from them, in float64, to local arrays."""
    blocks = (rows + per_block - 1) // per_block
    for j in range(width):
        center[j] = squares[j] = 0.0
    for block in range(blocks):
        mean = part_of_row(sums, columns, SUMS * block, left, width, A)
        rest = part_of_row(sums, columns, SUMS * block + 1, left, width, A)
        count = np.float64(min(per_block, rows - block * per_block))
        for j in range(width):
            center[j] += np.float64(mean[j]) * count + np.float64(rest[j])
    for j in range(width):
        center[j] /= rows
    for block in range(blocks):
        mean = part_of_row(sums, columns, SUMS * block, left, width, A)
        rest = part_of_row(sums, columns, SUMS * block + 1, left, width, A)
        own = part_of_row(sums, columns, SUMS * block + 2, left, width, A)
        count = np.float64(min(per_block, rows - block * per_block))
        for j in range(width):
            missing = np.float64(rest[j]) / count
            distance = np.float64(mean[j]) + missing - center[j]
            whole, excess = np.float64(own[j]), missing * missing * count
            # Of a constant column both are the same but for rounding. Infinity is kept: less itself it would be NaN.
            least = select(excess < np.inf, 0.0, whole)
            whole = select(excess < whole, whole - excess, least)
            squares[j] += whole + count * distance * distance
    for j in range(width):
        squares[j] = select(squares[j] < 0, 0.0, squares[j])  # NaN stays


@njit(**ELEMENTWISE, forceinline=True)  # in another order, an infinite average less its own share would be NaN
def keep_statistics(
    center: Any,
    squares: Any,
    rows: Any,
    columns: Any,
    left: Any,
    width: Any,
    mean: Any,
    inverse_std: Any,
    running_mean: Any,
    running_variance: Any,
    momentum: Any,
    epsilon: Any,
    A: Any,
) -> Any:
    """Write what is kept of the statistics of columns: of their means, and sums of squared distances from them."""
    means = part_of_row(mean, columns, 0, left, width, A)
    for j in range(width):
        means[j] = center[j]
    inverse_stds = part_of_row(inverse_std, columns, 0, left, width, A)
    for j in range(width):
        inverse_stds[j] = 1 / np.sqrt(squares[j] / rows + epsilon)
    running = part_of_row(running_mean, columns, 0, left, width, A)
    for j in range(width):
        running[j] = (1 - momentum) * running[j] + momentum * center[j]
    running = part_of_row(running_variance, columns, 0, left, width, A)
    for j in range(width):
        running[j] = (1 - momentum) * running[j] + momentum * squares[j] / (rows - 1)


@njit(inline="always")
def scale_and_shift(scale: Any, shift: Any, gamma: Any, beta: Any, columns: Any, left: Any, width: Any, A: Any) -> Any:
    """Multiply a local array by gamma, and write beta to another one; as ones and zeros where there are none."""
    for j in range(width):
        shift[j] = A(0)
    if gamma != 0:
        factor, summand = (
            part_of_row(gamma, columns, 0, left, width, A),
            part_of_row(beta, columns, 0, left, width, A),
        )
        for j in range(width):
            scale[j] *= factor[j]
            shift[j] = summand[j]


@njit(**INLINED)
def normalise(
    source: Any,
    s: Any,
    center: Any,
    scale: Any,
    shift: Any,
    out: Any,
    columns: Any,
    first: Any,
    last: Any,
    left: Any,
    width: Any,
    parameter: Any,
    A: Any,
) -> Any:
    """out = f((s - center) scale + shift) for a block; what goes by columns is in local arrays."""
    for i in range(first, last):
        x, y = part_of_row(s, columns, i, left, width, A), part_of_row(out, columns, i, left, width, A)
        for j in range(width):
            y[j] = activate(source, (x[j] - center[j]) * scale[j] + shift[j], parameter)


def forward_kernel(source: str, A: Any, stamp: str) -> Any:
    """Compile out = f(gamma (s - mu) / sqrt(v + epsilon) + beta) of training.

    Arguments: phase, s, out, sums, gamma, beta, mean, inverse_std, running mean and variance, scale and shift, rows,
    columns, rows of a block, and, as float64, momentum, epsilon and the activation's parameter. Phase 0 writes the sums
    of a block of rows, 1 combines them for ``WIDTH`` columns, 2 normalises a block of rows.
    """

    @kernel(**OPTIONS)
    def forward(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given, numbers = array_at(arguments, (17,), np.int64), array_at(arguments, (17,), np.float64)
        phase, rows, columns, per_block = given[0], given[11], given[12], given[13]
        first, last = stripe * per_block, min(rows, (stripe + 1) * per_block)
        if phase == 0:
            own = given[3] + stripe * SUMS * columns * size_of(A)
            for start in range(0, columns, WIDE // size_of(A)):
                width = min(WIDE // size_of(A), columns - start)
                block_statistics(given[1], own, columns, first, last, start, width, A)
        if phase == 1:
            start = stripe * WIDTH
            width = min(WIDTH, columns - start)
            center, squares = local_array(np.float64), local_array(np.float64)
            combine(given[3], rows, columns, per_block, start, width, center, squares, A)
            keep_statistics(
                center,
                squares,
                rows,
                columns,
                start,
                width,
                given[6],
                given[7],
                given[8],
                given[9],
                numbers[14],
                numbers[15],
                A,
            )
            mean = part_of_row(given[6], columns, 0, start, width, A)
            scale = copy_of_row(given[7], columns, 0, start, width, A)
            shift = local_row(A, width)
            scale_and_shift(scale, shift, given[4], given[5], columns, start, width, A)
            for j in range(width):
                rest = center[j] - np.float64(mean[j])
                moved = np.float64(shift[j]) - np.float64(scale[j]) * rest
                shift[j] = select(rest != 0, moved, np.float64(shift[j]))
            write_row(scale, given[10], columns, 0, start, width, A)
            write_row(shift, given[10], columns, 1, start, width, A)
        if phase == 2:
            most = min(WIDE // size_of(A), columns)
            center, scale, shift = local_row(A, most), local_row(A, most), local_row(A, most)
            for start in range(0, columns, most):
                width = min(most, columns - start)
                read_row(center, given[6], columns, 0, start, width, A)
                read_row(scale, given[10], columns, 0, start, width, A)
                read_row(shift, given[10], columns, 1, start, width, A)
                normalise(
                    source,
                    given[1],
                    center,
                    scale,
                    shift,
                    given[2],
                    columns,
                    first,
                    last,
                    start,
                    width,
                    A(numbers[16]),
                    A,
                )

    return forward


def apply_kernel(source: str, of_variance: bool, A: Any, stamp: str) -> Any:
    """Compile out = f(gamma (s - mean) inverse_std + beta) of given means, and inverse_std or variances.

    Arguments: s, out, gamma, beta, mean, inverse_std or variance, rows, columns, rows of a block, and, as float64,
    epsilon, which is added to variances, and the activation's parameter.
    """

    @kernel(**OPTIONS)
    def apply(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given, numbers = array_at(arguments, (11,), np.int64), array_at(arguments, (11,), np.float64)
        rows, columns, per_block = given[6], given[7], given[8]
        first, last = stripe * per_block, min(rows, (stripe + 1) * per_block)
        most = min(WIDE // size_of(A), columns)
        center, scale, shift = local_row(A, most), local_row(A, most), local_row(A, most)
        for start in range(0, columns, most):
            width = min(most, columns - start)
            read_row(center, given[4], columns, 0, start, width, A)
            read_row(scale, given[5], columns, 0, start, width, A)
            if of_variance:
                for j in range(width):
                    scale[j] = 1 / np.sqrt(np.float64(scale[j]) + numbers[9])
            scale_and_shift(scale, shift, given[2], given[3], columns, start, width, A)
            normalise(
                source,
                given[0],
                center,
                scale,
                shift,
                given[1],
                columns,
                first,
                last,
                start,
                width,
                A(numbers[10]),
                A,
            )

    return apply


@njit(**INLINED)
def gradient_before(
    source: Any, of_input: Any, incoming: Any, kept: Any, centred: Any, scale: Any, shift: Any, parameter: Any
) -> Any:
    """Return dz = dy f'(z), z = scale centred + shift where the derivative is of the input."""
    z = centred * scale + shift if of_input else kept
    return incoming * activate(source, z, parameter)


@njit(**INLINED)
def gradient_through(dz: Any, centred: Any, scale: Any, slope: Any, offset: Any) -> Any:
    """Return ds, what goes through mean and variance included."""
    return (dz - centred * slope - offset) * scale


@njit(**INLINED)
def block_gradients(
    source: Any,
    of_input: Any,
    dy: Any,
    s: Any,
    y: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    inverse_std: Any,
    dz: Any,
    sums: Any,
    columns: Any,
    first: Any,
    last: Any,
    left: Any,
    width: Any,
    parameter: Any,
    A: Any,
) -> Any:
    """dz = dy f'(z) for a block, unless dz is 0, and the sums of dz and dz (s - mean) of each column."""
    center = copy_of_row(mean, columns, 0, left, width, A)
    scale = copy_of_row(inverse_std, columns, 0, left, width, A)
    shift = local_row(A, width)
    scale_and_shift(scale, shift, gamma, beta, columns, left, width, A)
    total, dot = zeros(width, A), zeros(width, A)
    gradient = local_row(A, width)  # which no other array overlaps, whatever is done in place
    for i in range(first, last):
        x, incoming = part_of_row(s, columns, i, left, width, A), part_of_row(dy, columns, i, left, width, A)
        kept = part_of_row(y, columns, i, left, width, A)
        for j in range(width):
            centred = x[j] - center[j]
            dz_j = gradient_before(source, of_input, incoming[j], kept[j], centred, scale[j], shift[j], parameter)
            gradient[j] = dz_j
            total[j] += dz_j
            dot[j] += dz_j * centred
        if dz != 0:
            write_row(gradient, dz, columns, i, left, width, A)
    write_row(total, sums, columns, 0, left, width, A)
    write_row(dot, sums, columns, 1, left, width, A)


@njit(**INLINED)
def through_statistics(
    dz: Any, s: Any, mean: Any, factors: Any, columns: Any, first: Any, last: Any, left: Any, width: Any, A: Any
) -> Any:
    """Dz minus (s - mean) times the second factor and minus the third, all times the first, for a block, in place."""
    center = copy_of_row(mean, columns, 0, left, width, A)
    scale = copy_of_row(factors, columns, 0, left, width, A)
    slope = copy_of_row(factors, columns, 1, left, width, A)
    offset = copy_of_row(factors, columns, 2, left, width, A)
    for i in range(first, last):
        x, gradient = part_of_row(s, columns, i, left, width, A), part_of_row(dz, columns, i, left, width, A)
        for j in range(width):
            gradient[j] = gradient_through(gradient[j], x[j] - center[j], scale[j], slope[j], offset[j])


def backward_kernel(source: str, of_input: bool, A: Any, stamp: str) -> Any:
    """Compile ds = gamma inverse_std (dz - dbeta / n - shat dgamma / n), dz = dy f'(z).

    Arguments: phase, dy, s, y, ds, sums, gamma, beta, mean, inverse_std, dgamma, dbeta, three factors of each column,
    rows, columns, rows of a block, and, as float64, the activation's parameter. Phases are those of the forward kernel.
    Where ds is 0, there are but the sums, dgamma and dbeta.
    """

    @kernel(**OPTIONS)
    def backward(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given, numbers = array_at(arguments, (17,), np.int64), array_at(arguments, (17,), np.float64)
        phase, rows, columns, per_block = given[0], given[13], given[14], given[15]
        first, last = stripe * per_block, min(rows, (stripe + 1) * per_block)
        if phase == 0:
            own = given[5] + stripe * SUMS * columns * size_of(A)
            for start in range(0, columns, WIDE // size_of(A)):
                block_gradients(
                    source,
                    of_input,
                    given[1],
                    given[2],
                    given[3],
                    given[6],
                    given[7],
                    given[8],
                    given[9],
                    given[4],
                    own,
                    columns,
                    first,
                    last,
                    start,
                    min(WIDE // size_of(A), columns - start),
                    A(numbers[16]),
                    A,
                )
        if phase == 1:
            start = stripe * WIDTH
            width = min(WIDTH, columns - start)
            total, dot = local_array(np.float64), local_array(np.float64)
            for j in range(width):
                total[j] = dot[j] = 0.0
            for block in range((rows + per_block - 1) // per_block):
                of_dz = part_of_row(given[5], columns, SUMS * block, start, width, A)
                of_centred = part_of_row(given[5], columns, SUMS * block + 1, start, width, A)
                for j in range(width):
                    total[j] += np.float64(of_dz[j])
                    dot[j] += np.float64(of_centred[j])
            std = copy_of_row(given[9], columns, 0, start, width, A)
            if given[10] != 0:
                dgamma = part_of_row(given[10], columns, 0, start, width, A)
                for j in range(width):
                    dgamma[j] = dot[j] * np.float64(std[j])
                dbeta = part_of_row(given[11], columns, 0, start, width, A)
                for j in range(width):
                    dbeta[j] = total[j]
            if given[4] != 0:
                slope, offset = local_array(A), local_array(A)
                for j in range(width):
                    slope[j] = np.float64(std[j]) * np.float64(std[j]) * dot[j] / rows
                    offset[j] = total[j] / rows
                if given[6] != 0:
                    gamma = part_of_row(given[6], columns, 0, start, width, A)
                    for j in range(width):
                        std[j] *= gamma[j]
                write_row(std, given[12], columns, 0, start, width, A)
                write_row(slope, given[12], columns, 1, start, width, A)
                write_row(offset, given[12], columns, 2, start, width, A)
        if phase == 2:
            for start in range(0, columns, WIDE // size_of(A)):
                width = min(WIDE // size_of(A), columns - start)
                through_statistics(given[4], given[2], given[8], given[12], columns, first, last, start, width, A)

    return backward
