"""Arrays of a backend: making, copying, waiting, scratch buffers, and the blocks that operations work in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.environment import cpu_arithmetic
from gpunet.errors import InvalidTypeError
from gpunet.turns import TurnLock

Array = npt.NDArray[Any]

# Rows summed one after the other before the partial sums are: the rounding error of a sum over n rows grows with
# ROWS + n / ROWS instead of n.
ROWS = 256
# Elements processed at a time by element-wise operations: their temporaries stay this small, and in the cache.
CHUNK = 16_384


def row_blocks(rows: int) -> Iterator[slice]:
    """Yield slices of at most ``ROWS`` rows that cover ``rows``."""
    return (slice(start, min(start + ROWS, rows)) for start in range(0, rows, ROWS))


def chunks(start: int, stop: int) -> Iterator[slice]:
    """Yield slices of at most ``CHUNK`` elements that cover ``start`` to ``stop``."""
    return (slice(first, min(first + CHUNK, stop)) for first in range(start, stop, CHUNK))


class ArrayOperations:
    """What every operation builds on.

    Attributes
    ----------
    name : str
        ``"numpy"``, ``"cuda"``: what benchmark rows call the backend.
    synchronous : bool
        Whether reading a result costs nothing, because operations finish before they return.
    lock : TurnLock
        Whoever uses the backend holds it: scratch buffers, and on a device the stream, serve one thread at a time.
    """

    name = "numpy"
    synchronous = True

    def __init__(self) -> None:
        self._scratch: dict[tuple[str, np.dtype[Any]], Array] = {}
        self.lock = TurnLock()

    @property
    def device_name(self) -> str:
        """Where the arrays are."""
        return "cpu"

    @property
    def arithmetic(self) -> dict[str, str | None]:
        """What the bits of its results depend on, beside the numbers; None for what nobody can tell."""
        return cpu_arithmetic()

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return an uninitialised array on the device."""
        return np.empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return an array of zeros on the device."""
        return np.zeros(shape, dtype)

    def asarray(self, array: Array) -> Array:
        """Return a host array as an array on the device (here: the same array)."""
        return array

    def fetch(self, argument: str, values: Any) -> Array:
        """Return a user's array in CUDA memory (CuPy, RAPIDS, PyTorch, Numba) as a host array.

        Raises
        ------
        InvalidTypeError
            The backend is on the CPU.
        """
        raise InvalidTypeError(
            f"{argument}: got an array on a CUDA device for a network on the CPU. Expected a host array: "
            f"convert it with cupy.asnumpy({argument}), or make the network with device='cuda'."
        )

    def to_numpy(self, array: Array) -> Array:
        """Return an array of the device as a host array (here: the same array)."""
        return array

    def copy(self, source: Array, destination: Array) -> None:
        """Copy ``source``, on the host or on the device, into ``destination``, on the device."""
        np.copyto(destination, source)

    def synchronize(self) -> None:
        """Wait until every operation has finished."""

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return a callable that repeats ``step`` on the same buffers.

        ``step`` has run at least once before, so its kernels are compiled and its buffers exist. Everything that
        changes between steps must live in arrays: a device may record the launches once and replay them.
        """
        return step

    def scratch(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return a buffer that keeps its contents only within one operation; it is allocated once and reused."""
        size = int(np.prod(shape))
        key = (name, np.dtype(dtype))
        buffer = self._scratch.get(key)
        if buffer is None or buffer.size < size:
            buffer = self._scratch[key] = self.empty(size, dtype)
        return buffer[:size].reshape(shape)
