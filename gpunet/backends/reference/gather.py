"""Batches from a data set."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array


def gather_batch(
    xp: Any,
    index: Array,
    features: Array | None,
    batch_features: Array,
    targets: Array | None = None,
    batch_targets: Array | None = None,
    weights: Array | None = None,
    batch_weights: Array | None = None,
    first: Array | None = None,
) -> None:
    """batch_i = source[index[first + i]]: a batch from the data set, of up to three arrays at a time.

    Parameters
    ----------
    index : ndarray of int32, (m,)
        0 to N - 1; a whole epoch's order may be.
    features, targets, weights : ndarray, (N,) or (N, d), or None
        None where there are none, or where the batch has them already.
    batch_features : ndarray, (n,) or (n, d)
        Written.
    batch_targets, batch_weights : ndarray, (n,) or (n, c), or None
        Written.
    first : ndarray of int64, (1,), or None
        Where in ``index`` the batch begins, 0 to m - n; None stands for 0.
    """
    rows = xp.arange(len(batch_features))
    chosen = index[rows if first is None else first + rows]
    for source, batch in ((features, batch_features), (targets, batch_targets), (weights, batch_weights)):
        if source is not None and batch is not None:
            batch[...] = source[chosen]
