"""A stream of its own that brings batches from the host to the device while the device's stream computes."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends.devices.resources import RECORDER

Array = npt.NDArray[Any]

# Where an array begins in a buffer.
ALIGNMENT = 512


def lane_bytes(shapes: Sequence[tuple[int, ...]], dtypes: Sequence[npt.DTypeLike]) -> int:
    """Return the size of a buffer for arrays of these shapes and dtypes."""
    sizes = (math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in zip(shapes, dtypes, strict=True))
    return sum(math.ceil(size / ALIGNMENT) for size in sizes) * ALIGNMENT


class CopyLane:
    """The lane of a real device; see :class:`gpunet.backends.devices.device.Lane`.

    The host writes one of two page-locked buffers while the other is copied, on a stream of its own, into a buffer on
    the device. The device's stream copies that, at the speed of its memory, into the arrays that a step reads, before
    the step. For that one recording of a step serves every batch, and the buffer is free for the next while the step
    runs. Three rules keep the order, none of which makes the host wait before it is two batches ahead:

    1. The host writes a page-locked buffer when the copy from it is done.
    2. The copying stream overwrites the buffer on the device when the device's stream has taken the batch before.
    3. The device's stream takes a batch when it has been copied.

    Parameters
    ----------
    cupy : module
        The device is its current one, and so is the stream.
    stream : cupy.cuda.Stream
        The device's.
    using : callable
        Takes what is done, in words, and returns a context in which this thread alone uses the device and its stream.
    shapes : sequence of tuple of int
        Of the largest batch.
    dtypes : sequence of dtype
        Of each array.
    """

    def __init__(
        self,
        cupy: ModuleType,
        stream: Any,
        using: Callable[[str], AbstractContextManager[None]],
        shapes: Sequence[tuple[int, ...]],
        dtypes: Sequence[npt.DTypeLike],
    ) -> None:
        size = lane_bytes(shapes, dtypes)
        self._runtime = cupy.cuda.runtime
        self._using = using
        self._dtypes = [np.dtype(dtype) for dtype in dtypes]
        self._compute, self._copying = stream, cupy.cuda.Stream(non_blocking=True)
        self._pinned = [np.frombuffer(cupy.cuda.alloc_pinned_memory(size), np.uint8, size) for _ in range(2)]
        self._buffer = cupy.empty(size, np.uint8)
        self._copied = [cupy.cuda.Event(disable_timing=True) for _ in range(2)]
        self._taken = cupy.cuda.Event(disable_timing=True)
        self._taken.record(stream)  # what had the memory of the buffer before may still be at work there
        self._turn = 0
        self._shapes: list[tuple[int, ...]] = []
        # A copy that nobody has received may be under way; the memory stays until it is done.
        weakref.finalize(
            self, RECORDER.destroy, _Finished(self._copying, self._pinned, self._buffer).synchronize
        ).atexit = False

    def stage(self, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
        self._turn = 1 - self._turn
        self._shapes = list(shapes)
        with self._using("waiting for a copy from the host"):
            self._copied[self._turn].synchronize()
        pinned = self._pinned[self._turn]
        return [
            np.frombuffer(pinned, dtype, math.prod(shape), start).reshape(shape)
            for start, shape, dtype in self._places()
        ]

    def send(self) -> None:
        size = lane_bytes(self._shapes, self._dtypes)
        with self._using("a copy of a batch from the host"):
            self._copying.wait_event(self._taken)
            self._move(self._buffer.data.ptr, self._pinned[self._turn].ctypes.data, size, self._copying)
            self._copied[self._turn].record(self._copying)

    def receive(self, destinations: Sequence[Array]) -> None:
        with self._using("a copy of a batch"):
            self._compute.wait_event(self._copied[self._turn])
            for (start, _, _), destination in zip(self._places(), destinations, strict=True):
                there: Any = destination
                self._move(there.data.ptr, self._buffer.data.ptr + start, there.nbytes, self._compute)
            self._taken.record(self._compute)

    def _places(self) -> list[tuple[int, tuple[int, ...], np.dtype[Any]]]:
        """Return where each array of the batch begins, its shape and its dtype."""
        return [
            (lane_bytes(self._shapes[:place], self._dtypes[:place]), shape, dtype)
            for place, (shape, dtype) in enumerate(zip(self._shapes, self._dtypes, strict=True))
        ]

    def _move(self, destination: int, source: int, size: int, stream: Any) -> None:
        self._runtime.memcpyAsync(destination, source, size, self._runtime.memcpyDefault, stream.ptr)


class _Finished:
    """Holds memory that a stream may still use."""

    def __init__(self, stream: Any, *memory: Any) -> None:
        self._stream = stream
        self._memory = memory

    def synchronize(self) -> None:
        """Wait for the stream; the memory may go then."""
        self._stream.synchronize()
