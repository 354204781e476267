"""The losses, by blocks of rows, and how many labels outputs predict right."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gpunet.backends.cpu.elementary import INLINED, OPTIONS, exponential, logarithm_of_one_plus_share, select
from gpunet.backends.cpu.kernels.kernel import kernel
from gpunet.backends.cpu.kernels.rows import part_of_row
from gpunet.backends.cpu.machine_code import array_at

# Of a loss: phase, outputs, targets, weights or 0, doutputs, loss, sums, rows, columns, rows of a block. Phase 0 adds
# up the weights; 1 does a block of rows and writes its sum of losses; 2 adds those up. What a loss takes besides
# follows.
_WORDS = 10


@njit(**INLINED)
def weight_of(weights: Any, i: Any, A: Any) -> Any:
    """Return the weight of a row, 1 where there are none."""
    return np.float64(1) if weights == 0 else np.float64(array_at(weights, (i + 1,), A)[i])


@njit(**INLINED)
def weighted_mean(given: Any, blocks: Any, A: Any) -> Any:
    """Do phase 0 or 2 of a loss."""
    loss, sums = array_at(given[5], (2,), A), array_at(given[6], (blocks,), np.float64)
    if given[0] == 0:
        total = 0.0
        for i in range(given[7]):
            total += weight_of(given[3], i, A)
        loss[1] = total
    else:
        value, total = 0.0, np.float64(loss[1])
        for block in range(blocks):
            value += sums[block]
        loss[0] = 0.0 if total == 0 else value / total


def softmax_cross_entropy_kernel(A: Any, stamp: str) -> Any:
    """Compile softmax and cross-entropy with its gradient."""

    @kernel(**OPTIONS)
    def softmax_cross_entropy(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (_WORDS,), np.int64)
        rows, columns, per_block = given[7], given[8], given[9]
        blocks = (rows + per_block - 1) // per_block
        if given[0] != 1:
            weighted_mean(given, blocks, A)
            return
        targets, value = array_at(given[2], (rows,), np.int32), 0.0
        total = np.float64(array_at(given[5], (2,), A)[1])
        for i in range(stripe * per_block, min(rows, (stripe + 1) * per_block)):
            outputs = part_of_row(given[1], columns, i, 0, columns, A)
            doutputs = part_of_row(given[4], columns, i, 0, columns, A)
            if total == 0:
                for j in range(columns):
                    doutputs[j] = 0
                continue
            largest = outputs[0]
            for j in range(1, columns):
                largest = max(largest, outputs[j])
            partition = A(0)
            for j in range(columns):
                e = exponential(outputs[j] - largest)
                doutputs[j] = e
                partition += e
            target, weight = targets[i], weight_of(given[3], i, A)
            value += weight * (np.log(np.float64(partition)) - np.float64(outputs[target] - largest))
            for j in range(columns):
                doutputs[j] /= partition
            doutputs[target] -= A(1)
            share = A(weight / total)
            for j in range(columns):
                doutputs[j] *= share
        array_at(given[6], (blocks,), np.float64)[stripe] = value

    return softmax_cross_entropy


def soft_cross_entropy_kernel(of_labels: bool, A: Any, stamp: str) -> Any:
    """Compile softmax and cross-entropy of smoothed labels, or of probabilities, with its gradient.

    The classes' weights or 0 follow, and the smoothing, as float64.
    """

    @kernel(**OPTIONS)
    def soft_cross_entropy(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (_WORDS + 2,), np.int64)
        rows, columns, per_block = given[7], given[8], given[9]
        blocks = (rows + per_block - 1) // per_block
        if given[0] != 1:
            weighted_mean(given, blocks, A)
            return
        smoothing, value = array_at(arguments, (_WORDS + 2,), np.float64)[_WORDS + 1], 0.0
        class_weights, total = given[_WORDS], np.float64(array_at(given[5], (2,), A)[1])
        kept, even, zero = A(1 - smoothing), A(smoothing / columns), A(0)
        for i in range(stripe * per_block, min(rows, (stripe + 1) * per_block)):
            outputs = part_of_row(given[1], columns, i, 0, columns, A)
            doutputs = part_of_row(given[4], columns, i, 0, columns, A)
            if total == 0:
                for j in range(columns):
                    doutputs[j] = 0
                continue
            largest = outputs[0]
            for j in range(1, columns):
                largest = max(largest, outputs[j])
            partition = A(0)
            for j in range(columns):
                partition += exponential(outputs[j] - largest)
            label, own = 0, A(1)
            if of_labels:
                label = array_at(given[2], (rows,), np.int32)[i]
                own = A(weight_of(class_weights, label, A))
            logarithm, mass, row_loss = A(np.log(np.float64(partition))), A(0), A(0)
            for j in range(columns):
                q = A(weight_of(class_weights, j, A))
                if of_labels:
                    q = select(own == zero, zero, even * q / own) + select(j == label, kept, zero)
                else:
                    q *= kept * part_of_row(given[2], columns, i, 0, columns, A)[j] + even
                mass += q
                row_loss += q * (logarithm - (outputs[j] - largest))
                doutputs[j] = q
            weight = weight_of(given[3], i, A)
            share, scale = A(weight / total), mass / partition
            value += weight * np.float64(row_loss)
            for j in range(columns):
                doutputs[j] = (scale * exponential(outputs[j] - largest) - doutputs[j]) * share
        array_at(given[6], (blocks,), np.float64)[stripe] = value

    return soft_cross_entropy


def sigmoid_cross_entropy_kernel(A: Any, stamp: str) -> Any:
    """Compile the cross-entropy of independent sigmoid outputs with its gradient."""

    @kernel(**OPTIONS)
    def sigmoid_cross_entropy(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (_WORDS,), np.int64)
        rows, columns, per_block = given[7], given[8], given[9]
        blocks = (rows + per_block - 1) // per_block
        if given[0] != 1:
            weighted_mean(given, blocks, A)
            return
        total, value = np.float64(array_at(given[5], (2,), A)[1]), 0.0
        zero, one = A(0), A(1)
        for i in range(stripe * per_block, min(rows, (stripe + 1) * per_block)):
            outputs = part_of_row(given[1], columns, i, 0, columns, A)
            targets = part_of_row(given[2], columns, i, 0, columns, A)
            doutputs = part_of_row(given[4], columns, i, 0, columns, A)
            if total == 0:
                for j in range(columns):
                    doutputs[j] = 0
                continue
            weight = weight_of(given[3], i, A)
            share, row_loss = A(weight / total), A(0)
            for j in range(columns):
                o, t = outputs[j], targets[j]
                negative, positive = select(o > zero, zero, o), select(o < zero, zero, o)  # NaN is both
                a, b = exponential(negative), exponential(-positive)
                row_loss += (one - t) * positive - t * negative + logarithm_of_one_plus_share(a * b)
                doutputs[j] = ((one - t) * a - t * b) / (a + b) * share
            value += weight * np.float64(row_loss)
        array_at(given[6], (blocks,), np.float64)[stripe] = value

    return sigmoid_cross_entropy


SQUARED, HUBER, QUANTILE = range(3)


def error_kernel(kind: int, A: Any, stamp: str) -> Any:
    """Compile the loss of numbers of one kind, and its gradient.

    As float64 Huber's delta follows; then the levels of quantiles, one or one per column, or 0, and how many.
    """

    @kernel(**OPTIONS)
    def error_loss(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (_WORDS + 3,), np.int64)
        rows, columns, per_block = given[7], given[8], given[9]
        blocks = (rows + per_block - 1) // per_block
        if given[0] != 1:
            weighted_mean(given, blocks, A)
            return
        delta, zero, half, one = A(array_at(arguments, (_WORDS + 1,), np.float64)[_WORDS]), A(0), A(0.5), A(1)
        levels, stride = array_at(given[_WORDS + 1], (given[_WORDS + 2],), A), given[_WORDS + 2] // columns
        total, value = np.float64(array_at(given[5], (2,), A)[1]), 0.0
        for i in range(stripe * per_block, min(rows, (stripe + 1) * per_block)):
            outputs = part_of_row(given[1], columns, i, 0, columns, A)
            targets = part_of_row(given[2], columns, i, 0, columns, A)
            doutputs = part_of_row(given[4], columns, i, 0, columns, A)
            if total == 0:
                for j in range(columns):
                    doutputs[j] = 0
                continue
            weight = weight_of(given[3], i, A)
            share, row_loss = A(weight / total), zero
            for j in range(columns):
                error = outputs[j] - targets[j]
                gradient = error
                if kind == SQUARED:
                    row_loss += error * error
                elif kind == HUBER:
                    gradient = select(error > delta, delta, select(error < -delta, -delta, error))  # NaN is neither
                    row_loss += gradient * (error - half * gradient)
                else:
                    level = levels[stride * j]
                    gradient = select(error > zero, one - level, select(error < zero, -level, error))
                    row_loss += gradient * error
                doutputs[j] = gradient * share
            value += weight * np.float64(row_loss) * (0.5 if kind == SQUARED else 1.0)
        array_at(given[6], (blocks,), np.float64)[stripe] = value

    return error_loss


def score_kernel(of_classes: bool, A: Any, stamp: str) -> Any:
    """Compile the weighted number of labels that outputs predict right.

    Arguments: phase, outputs, labels or targets, weights or 0, out, sums, rows, columns, rows of a block. Phase 0 does
    a block of rows and writes its sum; 1 adds those up.
    """

    @kernel(**OPTIONS)
    def score(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (9,), np.int64)
        rows, columns, per_block = given[6], given[7], given[8]
        blocks = (rows + per_block - 1) // per_block
        sums, total = array_at(given[5], (blocks,), np.float64), 0.0
        if given[0] == 1:
            for block in range(blocks):
                total += sums[block]
            array_at(given[4], (1,), np.float64)[0] = total
            return
        for i in range(stripe * per_block, min(rows, (stripe + 1) * per_block)):
            outputs, right = part_of_row(given[1], columns, i, 0, columns, A), 0
            if of_classes:
                best = 0
                for j in range(1, columns):
                    # the first NaN is above all numbers
                    if outputs[j] > outputs[best] or (outputs[j] != outputs[j] and outputs[best] == outputs[best]):
                        best = j
                right = 1 if best == array_at(given[2], (rows,), np.int32)[i] else 0
            else:
                targets = part_of_row(given[2], columns, i, 0, columns, A)
                for j in range(columns):
                    right += 1 if (outputs[j] > A(0)) == (targets[j] > A(0.5)) else 0
            total += weight_of(given[3], i, A) * right
        sums[stripe] = total

    return score
