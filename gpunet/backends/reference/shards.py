"""Sums over the rows of a batch that is in shards: the same bits wherever each shard is.

A batch has S shards of its rows, in order. Whatever is a sum over rows is summed in each shard by itself, and then over
the shards in one fixed tree: neighbours in pairs, pairs in pairs, and what is left over at the end. A node of the tree
is named by its level: 2^level shards, the first of which has a number that 2^level divides.
"""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array


def weigh_shard(xp: Any, doutputs: Array, dbias: Array | None, loss: Array, sums: Array, *, rows: int) -> None:
    """Turn the mean over a shard, and its gradient, into the shard's part of sums over a batch.

    With w = loss_1: doutputs *= w / rows, dbias *= w / rows, sums = (loss_0 w, w). So all shards' gradients are of one
    sum, (sum_i w_i l_i) / rows, whatever the weights of the others.

    Parameters
    ----------
    doutputs : ndarray, (n, c)
        The gradient of the shard's loss, which is a weighted mean.
    dbias : ndarray, (c,), or None
    loss : ndarray, (2,)
        The shard's loss and the sum of its weights.
    sums : ndarray, (2,)
        Written.
    rows : int
        Of the whole batch.
    """
    share = loss[1] / rows
    doutputs *= share
    if dbias is not None:
        dbias *= share
    sums[0], sums[1] = loss[0] * loss[1], loss[1]


def sum_shards(xp: Any, parts: Array, levels: Array, out: Array) -> None:
    """Add up vectors, each the sum over a node of the tree; out is the sum over what they are nodes of.

    Vector after vector is put on a stack; as long as the two on top are of one level they become one of the next. At
    the end the stack is added up from its top.

    Parameters
    ----------
    parts : ndarray, (count, size)
        In the order of the shards.
    levels : ndarray of int32, (count,)
        -1 stands for a vector that is none: it is left out. At least one is not.
    out : ndarray, (size,)
        May be ``parts[0]``.
    """
    stack: list[tuple[int, Array]] = []
    for level, part in zip(levels.tolist(), parts, strict=True):
        if level < 0:
            continue
        here, total = level, part
        while stack and stack[-1][0] == here:
            total = stack.pop()[1] + total
            here += 1
        stack.append((here, total))
    total = stack.pop()[1]
    while stack:
        total = stack.pop()[1] + total
    out[...] = total


def divide_sums(xp: Any, gradients: Array, sums: Array, loss: Array, *, rows: int) -> None:
    """Turn sums over a batch, of :func:`weigh_shard`, into the weighted mean and its gradient.

    Parameters
    ----------
    gradients : ndarray, (p,)
        Multiplied with rows / sums_1; where sums_1 is 0, 0.
    sums : ndarray, (2,)
    loss : ndarray, (2,)
        Written: sums_0 / sums_1, or 0 where that is 0, and sums_1.
    rows : int
    """
    weight = sums[1]
    divisor = xp.where(weight == 0, 1, weight)
    loss[0], loss[1] = xp.where(weight == 0, 0, sums[0] / divisor), weight
    gradients *= xp.where(weight == 0, 0, rows / divisor).astype(gradients.dtype)
