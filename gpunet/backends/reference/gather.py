"""Batches from a data set."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array


def gather_rows(xp: Any, source: Array, index: Array, out: Array, first: Array | None = None) -> None:
    """out_i = source[index[first + i]]: a batch from the data set.

    Parameters
    ----------
    source : ndarray, (N,) or (N, d)
    index : ndarray of int32, (m,)
        0 to N - 1; a whole epoch's order may be.
    out : ndarray, (n,) or (n, d)
    first : ndarray of int64, (1,), or None
        Where in ``index`` the batch begins, 0 to m - n; None stands for 0.
    """
    rows = xp.arange(len(out))
    out[...] = source[index[rows if first is None else first + rows]]
