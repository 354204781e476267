"""Copies in half precision, in rows that begin at multiples of 16 bytes."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array


def round_rows(xp: Any, source: Array, out: Array, factor: Array | None = None) -> None:
    """out_ij = factor source_ij, rounded to what ``out`` is stored as; 0 in the columns that ``source`` does not have.

    Parameters
    ----------
    source : ndarray of float32, (n, m)
    out : ndarray of half precision, (n, m'), m' at least m
    factor : ndarray of float32, or None
        Its first element; None stands for 1.
    """
    columns = source.shape[1]
    out[:, :columns] = source if factor is None else factor[0] * source
    out[:, columns:] = 0


def round_matrices(xp: Any, source: Array, out: Array, table: Array, multiple: int) -> None:
    """:func:`round_rows` of every matrix of a flat vector: half copies of all weights in one operation.

    Parameters
    ----------
    source : ndarray of float32, (p,)
    out : ndarray of half precision, (q,)
    table : ndarray of int64, (matrices, 5)
        Of each matrix: where it starts in ``source``, its rows n and columns m, where its copy starts in ``out``, and
        the copy's columns m'.
    multiple : int
        Divides where copies start and how many columns they have.
    """
    for start, rows, columns, out_start, out_columns in table.tolist():
        matrix = source[start : start + rows * columns].reshape(rows, columns)
        round_rows(xp, matrix, out[out_start : out_start + rows * out_columns].reshape(rows, out_columns))
