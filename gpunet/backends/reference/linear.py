"""The linear layer's matrix products (lecture row L1)."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array


def gemm(
    xp: Any,
    a: Array,
    b: Array,
    out: Array,
    transpose_a: bool = False,
    transpose_b: bool = False,
    accumulate: bool = False,
) -> None:
    """out = op(a) op(b), or out + op(a) op(b), where op(x) is x or its transpose.

    Parameters
    ----------
    a, b : ndarray, two-dimensional
    out : ndarray
        The product; added to where ``accumulate``.
    """
    product = xp.matmul(a.T if transpose_a else a, b.T if transpose_b else b)
    out[...] = out + product if accumulate else product
