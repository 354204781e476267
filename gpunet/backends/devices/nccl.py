"""NCCL: arrays of a device go to those of other processes, on a stream of its own beside the device's."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy.typing as npt

from gpunet.backends.devices.resources import RECORDER
from gpunet.errors import DeviceError, InvalidTypeError

Array = npt.NDArray[Any]
Check = Callable[[Any, str, bool], Array]
Using = Callable[[str], AbstractContextManager[None]]

# Tells machines apart as NCCL does, which refuses two processes on one device of one of them.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# What NCCL adds up, by dtype. The bits of bfloat16 are uint16 here, which nobody can tell from numbers.
_SUMMED = {name: f"NCCL_{name.upper()}" for name in ("float16", "float32", "float64", "int32", "int64")}


def load_nccl() -> ModuleType:
    """Return CuPy's module of NCCL.

    Raises
    ------
    DeviceError
        There is none, or the library that it loads is missing.
    """
    try:
        nccl = import_module("cupy.cuda.nccl")
    except Exception as error:  # a broken installation raises more than ImportError
        raise DeviceError(f"cupy.cuda.nccl cannot be imported: {error}") from error
    if not nccl.available:
        raise DeviceError(
            "CuPy finds no NCCL: the packages nvidia-nccl-cu12 and nvidia-nccl-cu13 have it, for CUDA 12 and 13"
        )
    return nccl


class Nccl:
    """NCCL for one device; see :class:`gpunet.backends.devices.device.Collectives`.

    Parameters
    ----------
    cupy : module
    index : int
        The device.
    stream : cupy.cuda.Stream
        The device's.
    using : callable
        Takes what is done, in words, and returns a context in which this thread alone uses the device and its stream,
        and which turns what CuPy raises into a DeviceError.
    check : callable
        Raises unless an array lies on the device: (array, what it is for, whether it has to be contiguous).

    Raises
    ------
    DeviceError
        As :func:`load_nccl`.
    """

    def __init__(self, cupy: ModuleType, index: int, stream: Any, using: Using, check: Check) -> None:
        self._nccl = load_nccl()
        self._cupy, self._stream, self._using, self._check = cupy, stream, using, check
        with using("asking for its place"):
            machine = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
            self.place = f"{machine} {cupy.cuda.runtime.deviceGetPCIBusId(index)}"
            self.version = str(self._nccl.get_version())

    def new_job(self) -> Any:
        with self._using("beginning a job of NCCL"):
            return self._nccl.get_unique_id()

    def join(self, job: Any, rank: int, size: int) -> NcclLane:
        with self._using("joining a job of NCCL"):
            communicator = self._nccl.NcclCommunicator(size, job, rank)
            moving = self._cupy.cuda.Stream(non_blocking=True)
        return NcclLane(self._cupy, self._nccl, communicator, size, (self._stream, moving), self._using, self._check)


class NcclLane:
    """The place of one process in a job; see :class:`gpunet.backends.devices.device.CollectiveLane`.

    Each operation runs on a stream of its own while the device's computes. Two events keep the order, and none makes
    the host wait: the moving stream waits for what the device's has been asked for before the call, and the device's
    for the operation, where the caller waits.
    """

    def __init__(
        self,
        cupy: ModuleType,
        nccl: ModuleType,
        communicator: Any,
        size: int,
        streams: tuple[Any, Any],
        using: Using,
        check: Check,
    ) -> None:
        self._new_event: Callable[[], Any] = partial(cupy.cuda.Event, disable_timing=True)
        self._nccl, self._communicator, self._size = nccl, communicator, size
        self._compute, self._moving = streams
        self._using, self._check = using, check
        self._asked = self._new_event()
        # What is under way uses the communicator; neither goes while a step is recorded.
        weakref.finalize(self, RECORDER.destroy, self._moving.synchronize, communicator.destroy).atexit = False

    def all_gather(self, part: Array, out: Array) -> Callable[[], None]:
        self._refuse_sizes("an all-gather of NCCL", self._size * part.nbytes, out.nbytes)
        return self._run("an all-gather of NCCL", self._gather, part, out)

    def all_to_all(self, parts: Array, out: Array) -> Callable[[], None]:
        self._refuse_sizes("an all-to-all of NCCL", parts.nbytes, out.nbytes)
        return self._run("an all-to-all of NCCL", self._scatter, parts, out)

    def all_reduce(self, array: Array) -> Callable[[], None]:
        if array.dtype.name not in _SUMMED:
            raise InvalidTypeError(f"all_reduce: got {array.dtype.name}. Expected one of: {', '.join(_SUMMED)}.")
        return self._run("an all-reduce of NCCL", self._sum, array)

    def _gather(self, stream: int, part: Any, out: Any) -> None:
        self._communicator.allGather(part.data.ptr, out.data.ptr, part.nbytes, self._nccl.NCCL_UINT8, stream)

    def _scatter(self, stream: int, parts: Any, out: Any) -> None:
        size, byte = parts.nbytes // self._size, self._nccl.NCCL_UINT8
        self._nccl.groupStart()
        try:
            for rank in range(self._size):
                self._communicator.send(parts.data.ptr + rank * size, size, byte, rank, stream)
                self._communicator.recv(out.data.ptr + rank * size, size, byte, rank, stream)
        finally:
            self._nccl.groupEnd()

    def _sum(self, stream: int, array: Any) -> None:
        kind, place = getattr(self._nccl, _SUMMED[array.dtype.name]), array.data.ptr
        self._communicator.allReduce(place, place, array.size, kind, self._nccl.NCCL_SUM, stream)

    def _run(self, what: str, call: Callable[..., None], *arrays: Array) -> Callable[[], None]:
        for array in arrays:
            self._check(array, what, True)
        with self._using(what):
            self._asked.record(self._compute)
            self._moving.wait_event(self._asked)
            call(self._moving.ptr, *arrays)
            done = self._new_event()
            done.record(self._moving)
        return partial(self._wait, f"waiting for {what}", done, arrays)

    def _wait(self, what: str, done: Any, arrays: tuple[Array, ...]) -> None:
        """Let the device's stream wait; until then the arrays are held, whose memory would go to the next to ask."""
        with self._using(what):
            self._communicator.check_async_error()
            self._compute.wait_event(done)

    def _refuse_sizes(self, what: str, sent: int, received: int) -> None:
        if sent != received or received % self._size:
            raise ValueError(f"{what} among {self._size} of {sent} bytes into {received}")
