"""Arrays, and the buffers that operations keep between their calls."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_ALIGNMENT = 64
_MOST_VIEWS = 64


def aligned_empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Return an uninitialised array whose address is a multiple of a cache line's bytes."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


class Scratch:
    """Buffers that keep their contents only within one operation; each is allocated once and reused.

    Parameters
    ----------
    empty : callable
        Returns an uninitialised array of a size and a dtype.
    """

    def __init__(self, empty: Callable[[int, npt.DTypeLike], Array]) -> None:
        self._empty = empty
        self._buffers: dict[tuple[str, np.dtype[Any]], Array] = {}
        self._views: dict[tuple[str, tuple[int, ...], npt.DTypeLike], Array] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return the buffer ``name``, in the first elements of what was allocated for its largest shape so far.

        It is mostly the same object for the same shape.
        """
        view = self._views.get((name, shape, dtype))
        if view is None:
            view = self._views[name, shape, dtype] = self._new_view(name, shape, dtype)
        return view

    def _new_view(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        size = math.prod(shape)
        key = (name, np.dtype(dtype))
        buffer = self._buffers.get(key)
        if buffer is None or buffer.size < size:
            self._views.clear()
            buffer = self._buffers[key] = self._empty(size, dtype)
        elif len(self._views) >= _MOST_VIEWS:
            self._views.clear()
        return buffer[:size].reshape(shape)

    @property
    def buffers(self) -> list[Array]:
        """All of them, whole."""
        return list(self._buffers.values())
