"""Digests of arrays: whether data are those of before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_BYTES_AT_A_TIME = 1 << 24


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
