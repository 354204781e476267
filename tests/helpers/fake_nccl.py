"""Stands for ``cupy.cuda.nccl`` on the stand-in for CuPy, of which every rank is a thread with a device of its own.

What matters about the real one: a call returns at once, and its operation runs later on the stream it is given, when
the same operation of every other rank has got there on its own; it reads and writes memory then, all of a group
together. A communicator belongs to the device on which it was made. A call that the others do not make hangs: here, it
is told after a while. The methods and their parameters are those of CuPy 14, of which ``SIGNATURES`` were read.
"""

from __future__ import annotations

import ctypes
import inspect
import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.helpers.fake_cupy import Event, FakeCupy, Stream, current

# As CuPy 14.0.1 for CUDA 12 says them: cupy_backends.cuda.libs.nccl.
SIGNATURES = {
    "allGather": "sendbuf, recvbuf, count, datatype, stream",
    "allReduce": "sendbuf, recvbuf, count, datatype, op, stream",
    "send": "sendbuf, count, datatype, peer, stream",
    "recv": "recvbuf, count, datatype, peer, stream",
    "check_async_error": "",
    "destroy": "",
}
_SECONDS = 20
_SIZES = {1: 1, 2: 4, 4: 8, 6: 2, 7: 4, 8: 8}
_DTYPES = {2: np.int32, 4: np.int64, 6: np.float16, 7: np.float32, 8: np.float64}


class NcclError(RuntimeError):
    """What NCCL refuses."""


class _Group(threading.local):
    """The calls of a thread between ``groupStart`` and ``groupEnd``."""

    def __init__(self) -> None:
        self.depth = 0
        self.calls: list[tuple[NcclCommunicator, Any]] = []


class _Call:
    """A collective operation: what each rank brings, and whether it has been done."""

    def __init__(self, size: int) -> None:
        self.parts: dict[int, tuple[Any, Event]] = {}
        self.all_there = threading.Barrier(size, timeout=_SECONDS)
        self.is_done = False


class _Job:
    def __init__(self, size: int) -> None:
        self.size = size
        self.lock = threading.Lock()
        self.calls: dict[int, _Call] = {}
        self.places: list[tuple[str, int]] = []
        self.all_there = threading.Barrier(size, timeout=_SECONDS)

    def call(self, number: int) -> _Call:
        with self.lock:
            return self.calls.setdefault(number, _Call(self.size))


class FakeNccl:
    """Stands for the module.

    Attributes
    ----------
    failures : dict of str to str
        What NCCL says when a function is called.
    log : list of (int, str)
        The operations asked for, each with its rank.
    """

    available = True
    NcclError = NcclError
    NCCL_SUM = 0
    NCCL_UINT8, NCCL_INT32, NCCL_INT64, NCCL_FLOAT16, NCCL_FLOAT32, NCCL_FLOAT64 = 1, 2, 4, 6, 7, 8

    def __init__(self, cupy: FakeCupy) -> None:
        self.cupy = cupy
        self.failures: dict[str, str] = {}
        self.log: list[tuple[int, str]] = []
        self.open = 0
        self._jobs: dict[tuple[int, ...], _Job] = {}
        self._numbers = itertools.count()
        self._group = _Group()
        cupy.cuda.runtime.deviceGetPCIBusId = lambda index: f"0000:{index:02X}:00.0"

    def fail(self, name: str) -> None:
        if name in self.failures:
            raise NcclError(f"NCCL_ERROR_{self.failures[name]}")

    def get_version(self) -> int:
        self.fail("get_version")
        return 22703

    def get_unique_id(self) -> tuple[int, ...]:
        self.fail("get_unique_id")
        return (next(self._numbers), *[0] * 127)

    def NcclCommunicator(self, ndev: int, commId: tuple[int, ...], rank: int) -> NcclCommunicator:
        self.fail("NcclCommunicator")
        assert isinstance(commId, tuple)
        assert len(commId) == 128
        job = self._jobs.setdefault(commId, _Job(ndev))
        job.places.append((str(current.devices[-1]), rank))
        job.all_there.wait()
        assert len({device for device, _ in job.places}) == ndev, "NCCL_ERROR_INVALID_USAGE: Duplicate GPU detected"
        assert sorted(other for _, other in job.places) == list(range(ndev))
        self.open += 1
        return NcclCommunicator(self, job, rank)

    def groupStart(self) -> None:
        self._group.depth += 1

    def groupEnd(self) -> None:
        self._group.depth -= 1
        assert self._group.depth == 0
        calls, self._group.calls = self._group.calls, []
        for communicator in dict.fromkeys(communicator for communicator, _ in calls):
            parts = [part for other, part in calls if other is communicator]
            communicator.begin(
                "all-to-all", _exchange, {(kind, peer): rest for kind, peer, *rest in parts}, parts[0][-1]
            )

    def submit(self, communicator: NcclCommunicator, part: Any) -> None:
        assert self._group.depth, "send and recv of a rank that are no group wait for one another"
        self._group.calls.append((communicator, part))


class NcclCommunicator:
    """What a rank has of a job."""

    def __init__(self, nccl: FakeNccl, job: _Job, rank: int) -> None:
        self._nccl, self._job, self._rank = nccl, job, rank
        self._device = current.devices[-1]
        self._numbers = itertools.count()
        self._streams: set[Stream] = set()

    def allGather(self, sendbuf: int, recvbuf: int, count: int, datatype: int, stream: int) -> None:
        self._nccl.fail("allGather")
        self.begin("all-gather", _gather, (sendbuf, recvbuf, count * _SIZES[datatype]), stream)

    def allReduce(self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int) -> None:
        self._nccl.fail("allReduce")
        assert op == 0
        self.begin("all-reduce", _reduce, (sendbuf, recvbuf, count, _DTYPES[datatype]), stream)

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        self._nccl.fail("send")
        self._nccl.submit(self, ("send", peer, sendbuf, count * _SIZES[datatype], stream))

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        self._nccl.submit(self, ("recv", peer, recvbuf, count * _SIZES[datatype], stream))

    def check_async_error(self) -> None:
        self._nccl.fail("check_async_error")

    def destroy(self) -> None:
        assert not any(stream.queue for stream in self._streams), "what is under way uses the communicator"
        self._nccl.open -= 1

    def begin(self, name: str, run: Callable[[list[Any]], None], part: Any, stream: int) -> None:
        """Let a stream do its part when it gets there: whoever is first does it for all ranks."""
        queue = Stream.by_address[stream]
        assert queue.device == self._device == current.devices[-1], "the communicator is another device's"
        self._streams.add(queue)
        self._nccl.log.append((self._rank, name))
        call = self._job.call(next(self._numbers))
        call.parts[self._rank] = (name, part), queue.record()
        call.all_there.wait()  # NCCL returns at once, and waits on the device

        def together() -> None:
            for _, event in call.parts.values():
                event.synchronize()
            if not call.is_done:
                call.is_done = True
                found = [call.parts[rank][0] for rank in range(self._job.size)]
                assert {other for other, _ in found} == {name}, "ranks call different operations"
                run([given for _, given in found])

        queue.submit(together)


def _bytes(address: int, size: int) -> Any:
    return np.frombuffer((ctypes.c_char * size).from_address(address), np.uint8)


def _gather(parts: list[Any]) -> None:
    everything = np.concatenate([_bytes(start, size) for start, _, size in parts])
    for _, to, _ in parts:
        _bytes(to, everything.size)[...] = everything


def _reduce(parts: list[Any]) -> None:
    numbers = [_bytes(start, count * np.dtype(kind).itemsize).view(kind) for start, _, count, kind in parts]
    total = sum(numbers[1:], numbers[0])
    for _, to, count, kind in parts:
        _bytes(to, count * np.dtype(kind).itemsize).view(kind)[...] = total


def _exchange(parts: list[Any]) -> None:
    moved = {}
    for rank, given in enumerate(parts):
        for (kind, peer), (address, size, _) in given.items():
            if kind == "send":
                moved[rank, peer] = _bytes(address, size).copy()
    for rank, given in enumerate(parts):
        for (kind, peer), (address, size, _) in given.items():
            if kind == "recv":
                _bytes(address, size)[...] = moved.pop((peer, rank))
    assert not moved, "nobody receives what was sent"


def parameters(name: str) -> str:
    """Return the names of the parameters of a method here."""
    return ", ".join(inspect.signature(getattr(NcclCommunicator, name)).parameters).removeprefix("self").lstrip(", ")
