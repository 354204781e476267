"""Batches from a data set."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array


def gather_rows(xp: Any, source: Array, index: Array, out: Array) -> None:
    """out_i = source[index_i]: a batch from the data set.

    Parameters
    ----------
    source : ndarray, (N,) or (N, d)
    index : ndarray of int32, (n,)
        0 to N - 1.
    out : ndarray, (n,) or (n, d)
    """
    out[...] = source[index]
