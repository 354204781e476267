"""What the tests of the kernels share: arrays on a device, aligned or not, and tolerances."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends.cuda import CudaBackend

Array = npt.NDArray[Any]

# A few units in the last place of results near 1, for references computed in float64 from the same inputs.
RELATIVE = {"float64": 1e-13, "float32": 3e-6, "float16": 2e-3, "bfloat16": 1.6e-2}


def tolerance(dtype: npt.DTypeLike) -> dict[str, float]:
    """Return keyword arguments for ``assert_allclose``."""
    relative = RELATIVE[np.dtype(dtype).name]
    return {"rtol": relative, "atol": relative}


def on_device(backend: CudaBackend, values: Array, offset: int = 0) -> Array:
    """Return a copy of ``values`` on the device that starts ``offset`` elements into its memory."""
    buffer = backend.empty(values.size + offset, values.dtype)
    view = buffer[offset:].reshape(values.shape)
    backend.copy(values, view)
    return view


def poisoned(backend: CudaBackend, shape: tuple[int, ...], dtype: npt.DTypeLike, offset: int = 0) -> Array:
    """Return an output array full of NaN, or of 255 or -1 where integers are."""
    dtype = np.dtype(dtype)
    values = np.full(shape, 0xFF, np.uint8).repeat(dtype.itemsize).view(dtype).reshape(shape)
    return on_device(backend, values, offset)
