"""What the networks of one thread share on one device, and what must not happen while a step is recorded."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from gpunet.backends.devices.cublas import (
    WORKSPACE_BYTES,
    WORKSPACE_BYTES_HOPPER,
    Cublas,
    load_cublas,
    load_cublas_lt,
)
from gpunet.backends.devices.cublas_lt import CublasLt
from gpunet.backends.devices.staging import RING_BYTES, StagingRing
from gpunet.errors import DeviceError

CLUSTER_COMPUTE_CAPABILITY = (9, 0)
# Portable size: a device with clusters has them up to this, unless too few of its multiprocessors are neighbours.
LARGEST_CLUSTER = 8


class Recorder:
    """Keeps recordings apart from what would invalidate them.

    Destroying a cuBLAS handle waits for the whole device, and the driver gives up every recording that is under way
    when that happens. So one recording or destruction runs at a time in the process, the garbage collector, which could
    destroy, waits until a recording has ended, and what the recording thread itself destroys is destroyed after it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._is_recording = False
        self._postponed: list[Callable[[], object]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Surround a recording."""
        with self._lock:
            collects = gc.isenabled()
            gc.disable()
            self._is_recording = True
            try:
                yield
            finally:
                self._is_recording = False
                if collects:
                    gc.enable()
                postponed, self._postponed = self._postponed, []
                for destructor in postponed:
                    destructor()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Surround what waits for the whole device, in a thread that is not recording."""
        with self._lock:
            yield

    def destroy(self, *destructors: Callable[[], object]) -> None:
        """Call ``destructors`` in order: now, or where this thread is recording, afterwards."""
        with self._lock:
            if self._is_recording:
                self._postponed.extend(destructors)
                return
            for destructor in destructors:
                destructor()


RECORDER = Recorder()


class StreamResources:
    """A stream with its cuBLAS handle, workspace and staging memory; see :meth:`of_thread`.

    Parameters
    ----------
    cupy : module
        The device is its current one.
    compute_capability : tuple of two ints

    Attributes
    ----------
    stream : cupy.cuda.Stream
        Non-blocking: work on CuPy's default stream, the user's own, neither waits for it nor holds it up.
    blas : Cublas
    blas_lt : CublasLt or str
        On the handle and workspace of ``blas``; the text says why there is none.
    side_stream : cupy.cuda.Stream
        For branches of recordings; nothing runs on it itself.
    side_blas : Cublas
        Has a workspace of its own: two products at the same time would overwrite one another's.
    event : cupy.cuda.Event
        Ties a branch to the rest of a recording; each use counts until the next.
    staging : StagingRing
    lock : RLock
        Held during every operation: networks that were made in one thread may be used in several, and what another
        thread asks for must not become part of a recording.
    """

    _of_thread = threading.local()

    def __init__(self, cupy: ModuleType, compute_capability: tuple[int, int]) -> None:
        self.lock = threading.RLock()
        self.stream = stream = cupy.cuda.Stream(non_blocking=True)
        self.side_stream = cupy.cuda.Stream(non_blocking=True)
        self.event = cupy.cuda.Event(disable_timing=True)
        has_clusters = compute_capability >= CLUSTER_COMPUTE_CAPABILITY
        size = WORKSPACE_BYTES_HOPPER if has_clusters else WORKSPACE_BYTES
        library = load_cublas(cupy)
        with stream:
            # CuPy's memory blocks start at multiples of 512 bytes.
            self.blas = Cublas(library, stream, cupy.cuda.alloc(size), size)
            self.side_blas = Cublas(library, self.side_stream, cupy.cuda.alloc(size), size)
        self.blas_lt: CublasLt | str
        try:
            self.blas_lt = CublasLt(load_cublas_lt(cupy, library), self.blas)
        except DeviceError as error:
            self.blas_lt = str(error)
        pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(RING_BYTES), np.uint8, RING_BYTES)
        self.staging = StagingRing(pinned, lambda: _StreamEvent(cupy.cuda.Event(disable_timing=True), stream))
        pool = cupy.get_default_memory_pool()
        # The memory of pending operations must not be handed out again: wait for them before the stream goes, and
        # give back the blocks that only this stream could reuse. The end of the process takes everything with it.
        weakref.finalize(
            self,
            RECORDER.destroy,
            stream.synchronize,
            *([] if isinstance(self.blas_lt, str) else [self.blas_lt.close]),
            self.blas.close,
            self.side_blas.close,
            lambda: pool.free_all_blocks(stream=stream),
        ).atexit = False

    @classmethod
    def of_thread(cls, cupy: ModuleType, index: int, compute_capability: tuple[int, int]) -> StreamResources:
        """Return those of this thread on the current device ``index``; they live as long as the thread or a network."""
        mine: dict[int, StreamResources] = cls._of_thread.__dict__.setdefault("by_device", {})
        if index not in mine:
            mine[index] = cls(cupy, compute_capability)
        return mine[index]


class _StreamEvent:
    """An event of one stream; see :class:`gpunet.backends.devices.staging.Event`."""

    def __init__(self, event: Any, stream: Any) -> None:
        self._event = event
        self._stream = stream

    def record(self) -> None:
        self._event.record(self._stream)

    def synchronize(self) -> None:
        self._event.synchronize()
