"""Host memory that asynchronous copies to a device read from."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Protocol

import numpy.typing as npt

Array = npt.NDArray[Any]

SEGMENTS = 4
RING_BYTES = SEGMENTS * 256 * 1024
_ALIGNMENT = 64


class Event(Protocol):
    """A point in the order of a stream's operations."""

    def record(self) -> None:
        """Set it to after the operations asked for so far."""

    def synchronize(self) -> None:
        """Wait until the stream has passed it; at once where it was never recorded."""


class StagingRing:
    """Page-locked host memory in segments, filled one after the other and reused in turn.

    An asynchronous copy reads its host memory when the stream gets to it, which is after the call has returned. The
    training loop overwrites an epoch's learning rates, and frees its order, before that: so they are first copied here,
    where nothing is overwritten before the stream has passed the event recorded when the segment was full.

    Parameters
    ----------
    memory : ndarray of uint8
        ``RING_BYTES`` of page-locked memory.
    new_event : callable
        Returns an event of the stream that the copies run on.
    """

    def __init__(self, memory: Array, new_event: Callable[[], Event]) -> None:
        self.segment_bytes = memory.nbytes // SEGMENTS
        self._memory = memory
        self._start = memory.ctypes.data
        self._events = [new_event() for _ in range(SEGMENTS)]
        self._segment = 0
        self._used = 0

    def stage(self, source: Array) -> int:
        """Copy ``source`` (contiguous, at most ``segment_bytes``) here and return the address of the copy."""
        size = source.nbytes
        if self._used + size > self.segment_bytes:
            self._events[self._segment].record()
            self._segment = (self._segment + 1) % SEGMENTS
            self._events[self._segment].synchronize()
            self._used = 0
        address = self._start + self._segment * self.segment_bytes + self._used
        ctypes.memmove(address, source.ctypes.data, size)
        self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        return address
