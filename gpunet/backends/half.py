"""Half precision: what 16 bits stand for, and operations on them by way of float32.

Kernels read and write half precision and compute in float32. :func:`run_on_numbers` is that for NumPy and CuPy: it
makes the reference of an operation, which knows nothing of 16 bits, the specification of the operation on them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends.arrays import Array

# What matrices of a precision are stored as. NumPy has no bfloat16: arrays of uint16 hold the bits.
HALF_DTYPES: dict[str, np.dtype[Any]] = {"bfloat16": np.dtype(np.uint16), "float16": np.dtype(np.float16)}
# Elements of 16 bytes: what cuBLAS wants rows to begin at, and their lengths to be, multiples of.
ROW_MULTIPLE = 8
# The parameters of operations that are written.
_WRITTEN = ("out", "ds", "dx", "doutputs")
_QUIET_NAN = 0x7FC0


def is_half(array: object) -> bool:
    """Say whether something is an array whose elements are half-precision numbers."""
    return getattr(array, "dtype", None) in HALF_DTYPES.values()


def padded(columns: int, multiple: int = ROW_MULTIPLE) -> int:
    """Return the width of rows in memory that have so many columns."""
    return -(-columns // multiple) * multiple


def widen(xp: Any, array: Array) -> Array:
    """Return the numbers that a half-precision array stands for, in float32; other arrays as they are."""
    if not is_half(array):
        return array
    if array.dtype == np.float16:
        return array.astype(np.float32)
    bits: Array = array.astype(np.uint32) << 16
    return bits.view(np.float32)


def narrow(xp: Any, values: Array, dtype: npt.DTypeLike) -> Array:
    """Round float32 numbers to the nearest that half precision has, ties to even; too large ones become infinite."""
    if np.dtype(dtype) == np.float16:
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    bits = xp.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    result: Array = xp.where(xp.isnan(values), np.uint16(_QUIET_NAN), rounded)
    return result


@cache
def _signature(function: Callable[..., None]) -> inspect.Signature:
    return inspect.signature(function)


def run_on_numbers(function: Callable[..., None], xp: Any, /, *args: Any, **kwargs: Any) -> None:
    """Call an operation with float32 numbers in the place of half-precision arrays, and round what it writes.

    Parameters
    ----------
    function : callable
        An operation; its parameters have the names of its reference's.
    xp : module
        NumPy or CuPy.
    """
    if not any(map(is_half, (*args, *kwargs.values()))):
        function(*args, **kwargs)
        return
    bound = _signature(function).bind(*args, **kwargs)
    halves = {id(value): value for value in bound.arguments.values() if is_half(value)}
    numbers = {key: widen(xp, value) for key, value in halves.items()}  # one for each array: outputs may be inputs
    written = {id(bound.arguments[name]) for name in _WRITTEN if name in bound.arguments}
    bound.arguments.update({name: numbers.get(id(value), value) for name, value in bound.arguments.items()})
    # Half precision overflows where float32 does not, which the loss scale and the loop look after.
    with np.errstate(over="ignore", invalid="ignore"):
        function(*bound.args, **bound.kwargs)
    for key in halves.keys() & written:
        halves[key][...] = narrow(xp, numbers[key], halves[key].dtype)
