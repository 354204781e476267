"""The losses, by blocks of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, int64, void

from gpunet.backends.cpu.elementary import FAST, exponential
from gpunet.backends.cpu.machine_code import array_at

SIGNATURE = void(int64, int64)


def softmax_cross_entropy_kernel(A: Any, stamp: str) -> Any:
    """Compile softmax and cross-entropy with its gradient.

    Arguments: phase, outputs, targets, weights or 0, doutputs, loss, sums, rows, columns, rows of a block. Phase 0 adds
    up the weights; 1 does a block of rows and writes its sum of losses; 2 adds those up.
    """

    @cfunc(SIGNATURE, cache=True, fastmath=FAST)
    def softmax_cross_entropy(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (10,), np.int64)
        phase, rows, columns, per_block = given[0], given[7], given[8], given[9]
        outputs, doutputs = array_at(given[1], (rows, columns), A), array_at(given[4], (rows, columns), A)
        targets, weights = array_at(given[2], (rows,), np.int32), array_at(given[3], (rows,), A)
        loss, blocks = array_at(given[5], (2,), A), (rows + per_block - 1) // per_block
        sums = array_at(given[6], (blocks,), np.float64)
        if phase == 0:
            total: Any = np.float64(rows)
            if given[3] != 0:
                total = 0.0
                for i in range(rows):
                    total += np.float64(weights[i])
            loss[1] = total
            return
        total = np.float64(loss[1])
        if phase == 2:
            value = 0.0
            for block in range(blocks):
                value += sums[block]
            loss[0] = 0.0 if total == 0 else value / total
            return
        value = 0.0
        for i in range(stripe * per_block, min(rows, (stripe + 1) * per_block)):
            weight = np.float64(1)
            if given[3] != 0:
                weight = np.float64(weights[i])
            if total == 0:
                for j in range(columns):
                    doutputs[i, j] = 0
                continue
            largest = outputs[i, 0]
            for j in range(1, columns):
                largest = max(largest, outputs[i, j])
            partition = A(0)
            for j in range(columns):
                e = exponential(outputs[i, j] - largest)
                doutputs[i, j] = e
                partition += e
            target = targets[i]
            value += weight * (np.log(np.float64(partition)) - np.float64(outputs[i, target] - largest))
            for j in range(columns):
                doutputs[i, j] /= partition
            doutputs[i, target] -= A(1)
            share = A(weight / total)
            for j in range(columns):
                doutputs[i, j] *= share
        sums[stripe] = value

    return softmax_cross_entropy
