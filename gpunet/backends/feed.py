"""Batches of arrays that stay on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends.arrays import Array


class Feed:
    """Brings rows of host arrays, batch after batch, into buffers on the device.

    Here they are read when they are delivered; a feed that copies begins with :meth:`prepare`, and the device works on
    the batch before meanwhile. No thread does that: what a device is asked for returns before it is done, so the host
    is free to gather the next rows.

    Parameters
    ----------
    sources : sequence of ndarray, (N, ...)
        Numbers of any dtype and layout, which must not change.
    """

    def __init__(self, sources: Sequence[Array]) -> None:
        self.sources = tuple(sources)
        self._rows: Array | slice = slice(0)

    def prepare(self, rows: Array | slice) -> None:
        """Say which rows come next, in place of others that nobody has asked to deliver.

        Parameters
        ----------
        rows : ndarray of integers, (n,), or slice
            With start and stop, from the first row on.
        """
        self._rows = rows

    def deliver(self, buffers: Sequence[Array]) -> None:
        """Write the rows into a buffer for each source, (n, ...), in the order of the device's operations."""
        for source, buffer in zip(self.sources, buffers, strict=True):
            copy_rows(source, self._rows, buffer)


def copy_rows(source: Array, rows: Array | slice, out: Array) -> None:
    """out = source[rows] on the host, in the dtype of ``out``.

    Parameters
    ----------
    source : ndarray, (N, ...)
    rows : ndarray of integers, (n,), or slice
    out : ndarray, (n, ...)
    """
    if isinstance(rows, np.ndarray) and source.dtype == out.dtype and is_plain(source):
        np.take(source, rows, axis=0, out=out, mode="clip")  # which would copy another source whole
    else:
        np.copyto(out, source[rows], casting="unsafe")


def is_plain(values: Array) -> bool:
    """Say whether the elements lie one after the other, each where the processor wants it."""
    return values.flags.c_contiguous and values.flags.aligned


def is_mapped(values: Any) -> bool:
    """Say whether an array, or what it is a view of, is a file mapped into memory."""
    while isinstance(values, np.ndarray):
        if isinstance(values, np.memmap):
            return True
        values = values.base
    return False


def batch_shapes(sources: Sequence[Array], rows: int) -> list[tuple[int, ...]]:
    """Return the shapes of so many rows of each source."""
    return [(rows, *source.shape[1:]) for source in sources]


def is_as_wanted(values: Array, dtype: npt.DTypeLike) -> bool:
    """Say whether a host array needs no conversion."""
    return values.dtype == dtype and is_plain(values)
