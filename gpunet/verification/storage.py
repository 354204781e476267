"""How matrices are stored, and what rounding that brings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends.half import HALF_DTYPES, narrow, widen

Array = npt.NDArray[Any]

# Units of rounding that a few operations per element lose: a sum, an exponential, a division.
LOST_UNITS = 24
# What a network may have.
NETWORK_DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Storage:
    """A type that matrices are stored as.

    Attributes
    ----------
    name : str
        ``"float32"``, ``"float64"``, ``"float16"`` or ``"bfloat16"``.
    dtype : numpy.dtype
        What NumPy and the device have: uint16 for the bits of bfloat16.
    rounding : float
        Half a unit in the last place of 1.
    """

    name: str
    dtype: np.dtype[Any]
    rounding: float

    @property
    def arithmetic(self) -> np.dtype[Any]:
        """What kernels compute in, and what vectors are stored as."""
        return np.dtype(np.float64 if self.name == "float64" else np.float32)

    @property
    def unit(self) -> float:
        """A unit in the last place of 1 in the arithmetic."""
        return float(np.finfo(self.arithmetic).eps)

    @property
    def smallest(self) -> float:
        """The rounding of numbers too small for a full mantissa, which bfloat16 and float32 may lose altogether."""
        return 2.0**-25 if self.name == "float16" else float(np.finfo(self.arithmetic).tiny)

    @property
    def relative(self) -> float:
        """The relative error of a few operations whose result is stored."""
        return self.rounding + LOST_UNITS * self.unit

    @property
    def widest_vector(self) -> int:
        """Elements that one access of 16 bytes moves."""
        return 16 // self.dtype.itemsize

    def store(self, values: Array) -> Array:
        """Return numbers rounded to the nearest that can be stored, as they are stored."""
        return values.astype(self.dtype) if self.name != "bfloat16" else narrow(np, values, self.dtype)

    def __str__(self) -> str:
        return self.name


FLOAT32 = Storage("float32", np.dtype(np.float32), 2.0**-24)
FLOAT64 = Storage("float64", np.dtype(np.float64), 2.0**-53)
FLOAT16 = Storage("float16", HALF_DTYPES["float16"], 2.0**-11)
BFLOAT16 = Storage("bfloat16", HALF_DTYPES["bfloat16"], 2.0**-8)
STORAGES = (FLOAT32, FLOAT64, FLOAT16, BFLOAT16)


def exact(array: Array) -> Array:
    """Return a copy in float64 of what an array stands for; labels, masks and counters keep their type."""
    numbers = widen(np, array)
    return numbers.astype(np.float64 if numbers.dtype.kind == "f" else numbers.dtype)
