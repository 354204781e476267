"""NPZ files of arrays X and y; whatever is wrong is refused with file, array and place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.columns import numbered_names
from gpunet.data.choice import listing
from gpunet.data.datasets import RawData
from gpunet.errors import FileFormatError, InvalidTypeError, NonFiniteError, ShapeError
from gpunet.npz import Kind, open_npz

Array = npt.NDArray[Any]

# What the features of a compressed file may take in float64, however small it is, and beyond that per byte of the file.
_UNQUESTIONED_BYTES = 2**30
_MOST_BYTES_PER_BYTE = 128


def read_npz(path: Path, need_target: bool, accept_missing: bool) -> RawData:
    """Read the arrays X, (n, d), and y, (n,), of an NPZ file; y only where it is needed, and nothing else.

    NaN in X is a missing value, where such are accepted.

    Raises
    ------
    OSError
    FileFormatError
        Not an NPZ file, damaged, without X or y, with objects in them, or a small file of very large arrays.
    ShapeError, InvalidTypeError, NonFiniteError
    """
    keys = ("X", "y") if need_target else ("X",)
    with open_npz(path, called=f"{path}:") as archive:
        for key in keys:
            if key not in archive.names:
                held = listing(sorted(archive.names)) or "nothing"
                raise FileFormatError(f"{path}: has no array {key!r}. Expected X and y; it holds {held}.")
        features, targets = archive.kind("X"), archive.kind("y") if need_target else None
        _check_features(path, features)
        if targets is not None:
            _check_targets(path, targets, features.shape[0])
        arrays = {key: archive.read(key) for key in keys}
    names = numbered_names(features.shape[1])
    return RawData(
        _finite_features(path, arrays["X"], accept_missing), arrays.get("y"), names, path.stem, "arrays", path
    )


def _check_features(path: Path, kind: Kind) -> None:
    if len(kind.shape) != 2 or 0 in kind.shape:
        raise ShapeError(f"{path}: X has the shape {kind.shape}. Expected (rows, columns), at least one of each.")
    if kind.dtype.kind not in "iufb":
        raise InvalidTypeError(f"{path}: X has the dtype {kind.dtype}. Expected numbers.")
    needed, size = math.prod(kind.shape) * np.dtype(np.float64).itemsize, path.stat().st_size
    if needed > max(_UNQUESTIONED_BYTES, _MOST_BYTES_PER_BYTE * size):
        raise FileFormatError(
            f"{path}: X takes {needed:,} bytes in float64, of a file of {size:,} bytes. Expected at most "
            f"{_MOST_BYTES_PER_BYTE} times as many; numpy.savez, which does not compress, writes such arrays."
        )


def _check_targets(path: Path, kind: Kind, rows: int) -> None:
    if kind.shape != (rows,):
        raise ShapeError(f"{path}: y has the shape {kind.shape}. Expected one target per row of X, ({rows},).")
    if kind.dtype.kind not in "biufU":
        raise InvalidTypeError(f"{path}: y has the dtype {kind.dtype}. Expected integers, numbers or text.")


def _finite_features(path: Path, array: Array, accept_missing: bool) -> Array:
    with np.errstate(over="ignore"):  # numbers of more than 64 bits
        features = array.astype(np.float64, copy=False)
    finite = np.isfinite(features) | (np.isnan(features) & accept_missing)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise NonFiniteError(f"{path}: X has {features[row, column]} in row {row}, column {column}. Expected numbers.")
    return features
