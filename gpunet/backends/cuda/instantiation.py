"""What kernels are instantiated for: storage types and activations, as C++ template arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import ACTIVATIONS, Activation, get_activation
from gpunet.errors import InvalidTypeError

# C++ names of what matrices are stored as. Kernels compute in float, or in double where they store double.
# NumPy has no bfloat16: without the package ml_dtypes, arrays of uint16 hold the bits.
STORAGE_TYPES = {
    "float32": "float",
    "float64": "double",
    "float16": "__half",
    "bfloat16": "__nv_bfloat16",
    "uint16": "__nv_bfloat16",
}
ITEM_SIZES = {"float": 4, "double": 8, "__half": 2, "__nv_bfloat16": 2}
PARAMETER_TYPES = ("float", "double")


@dataclass(frozen=True)
class Variants:
    """Which instantiations of the kernels to list.

    Attributes
    ----------
    activations : tuple of Activation
    max_cluster : int
        Blocks of the device's largest cluster: 1 where there are none.
    storages : tuple of str
        C++ names of what matrices are stored as.
    """

    activations: tuple[Activation, ...] = tuple(map(get_activation, ACTIVATIONS))
    max_cluster: int = 1
    storages: tuple[str, ...] = tuple(ITEM_SIZES)


class NoKernelError(Exception):
    """There is no kernel for what was asked: the backend runs the reference instead."""


def storage_type(dtype: npt.DTypeLike) -> str:
    """Return the C++ name of a dtype that matrices may have."""
    name = np.dtype(dtype).name
    if name not in STORAGE_TYPES:
        raise InvalidTypeError(f"dtype: there is no kernel for {name}. Expected one of: {', '.join(STORAGE_TYPES)}.")
    return STORAGE_TYPES[name]


def arithmetic_type(dtype: npt.DTypeLike) -> type[np.floating[Any]]:
    """Return the NumPy type of the numbers that a kernel for ``dtype`` computes with."""
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32


def arithmetic_name(storage: str) -> str:
    """Return the C++ name of the numbers that a kernel for a storage type computes with."""
    return "double" if storage == "double" else "float"


def widest_vector(storage: str) -> int:
    """Return how many elements one access of 16 bytes moves."""
    return 16 // ITEM_SIZES[storage]
