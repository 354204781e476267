"""What the tests of the kernels share: arrays on a device, aligned or not, and tolerances."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation, get_activation
from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from tests.helpers import networks

Array = npt.NDArray[Any]

ACTIVATIONS: list[Activation] = [get_activation(name) for name in networks.ACTIVATIONS]

# One row, one column, around a warp, around a block, rows that are and are not whole vectors of 16 bytes.
SHAPES = [(1, 1), (1, 33), (33, 1), (2, 31), (31, 32), (32, 33), (64, 64), (257, 10), (5, 1023), (3, 1025), (1025, 4)]

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


def check_loss(device: Any, name: str, outputs: Array, targets: Array, weighted: bool, offset: int = 0) -> None:
    """Compare an element-wise loss with the reference in float64, twice: the kernel leaves its counter as it was."""
    backend, dtype = CudaBackend(device), outputs.dtype
    number = np.float64 if dtype == np.float64 else np.float32
    weights = np.random.default_rng(0).uniform(0.1, 2, len(outputs)).astype(number) if weighted else None
    doutputs, loss = poisoned(backend, outputs.shape, dtype, offset), poisoned(backend, (2,), number)
    given = on_device(backend, outputs, offset), on_device(backend, targets, offset)
    device_weights = None if weights is None else on_device(backend, weights)
    gradient, value = np.empty(outputs.shape), np.empty(2)
    exact = outputs.astype(float), targets.astype(float), None if weights is None else weights.astype(float)
    getattr(Backend(), name)(*exact, gradient, value)
    for _ in range(2):
        getattr(backend, name)(*given, device_weights, doutputs, loss)
        np.testing.assert_allclose(backend.to_numpy(doutputs), gradient, **tolerance(dtype))
        np.testing.assert_allclose(backend.to_numpy(loss), value, rtol=RELATIVE[np.dtype(number).name])


def to_bfloat16(values: Array) -> Array:
    """Return the bits of float32 numbers rounded to bfloat16, to the nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: Array) -> Array:
    """Return the float32 numbers that bits of bfloat16 stand for."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
