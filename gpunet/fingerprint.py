"""Digests of arrays: whether data are those of before."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_BYTES_AT_A_TIME = 1 << 22


def fingerprint(
    *arrays: Array, dtype: npt.DTypeLike | None = None, to_numpy: Callable[[Array], Array] = np.asarray
) -> str:
    """Return a digest (SHA-256, hexadecimal) of shapes, dtypes and values of arrays with at least one dimension.

    Parameters
    ----------
    *arrays : array
    dtype : dtype or None
        What they are converted to first; None leaves them as they are.
    to_numpy : callable
        Brings a piece of an array to the host.
    """
    digest = hashlib.sha256()
    for array in arrays:
        kind = array.dtype if dtype is None else np.dtype(dtype)
        digest.update(f"{array.shape}{kind.str}".encode())
        rows = max(1, _BYTES_AT_A_TIME * len(array) // max(1, array.nbytes))
        for start in range(0, len(array), rows):
            digest.update(np.ascontiguousarray(to_numpy(array[start : start + rows]), kind).data)
    return digest.hexdigest()


def block_fingerprints(
    array: Array,
    *,
    dtype: npt.DTypeLike | None = None,
    to_numpy: Callable[[Array], Array] = np.asarray,
    part: tuple[int, int] = (0, 1),
) -> list[str]:
    """Return the fingerprints of blocks of rows, whose lengths depend on dtype and number of columns alone.

    Parameters
    ----------
    array, dtype, to_numpy
        As for :func:`fingerprint`.
    part : (int, int)
        Of which of so many parts of the blocks: of the others, nothing is read.
    """
    kind = array.dtype if dtype is None else np.dtype(dtype)
    rows = max(1, _BYTES_AT_A_TIME // max(1, kind.itemsize * math.prod(array.shape[1:])))
    starts, (number, parts) = range(0, len(array), rows), part
    own = starts[number * len(starts) // parts : (number + 1) * len(starts) // parts]
    return [fingerprint(array[start : start + rows], dtype=dtype, to_numpy=to_numpy) for start in own]


def merge_fingerprints(blocks: Iterable[str]) -> str:
    """Return a digest of the fingerprints of all blocks of an array, in order."""
    return hashlib.sha256("".join(blocks).encode()).hexdigest()
