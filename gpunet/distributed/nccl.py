"""Arrays that go from GPU to GPU by NCCL, past the host, while the GPUs compute."""

from __future__ import annotations

from typing import NamedTuple

from gpunet.backends import Backend
from gpunet.backends.arrays import Array
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices.device import CollectiveLane, Collectives
from gpunet.backends.notices import say_once
from gpunet.distributed.communicator import Communicator, Exchange, Wait
from gpunet.errors import DeviceError


class NcclExchange(Exchange):
    """Moves arrays of a CUDA backend.

    Nothing makes the host wait. What is waited for has been done before whatever the backend is asked for afterwards.

    Parameters
    ----------
    lane : CollectiveLane
    """

    def __init__(self, lane: CollectiveLane) -> None:
        self._lane = lane

    def all_gather(self, part: Array, out: Array) -> Wait:
        return self._lane.all_gather(part, out)

    def all_to_all(self, parts: Array, out: Array) -> Wait:
        return self._lane.all_to_all(parts, out)

    def all_reduce(self, array: Array) -> Wait:
        return self._lane.all_reduce(array)


def nccl_exchange(communicator: Communicator, backend: Backend) -> NcclExchange | None:
    """Return what moves the arrays of all ranks' backends by NCCL, or None where one of them cannot.

    Every rank calls it at the same time. Rank 0 says once why GPUs do without NCCL: a rank has none, or shares its GPU
    with another.

    Raises
    ------
    DeviceError
        NCCL refuses to begin, and says why. The other ranks may wait for this one until it ends the job.
    """
    own, found = _look(backend)
    problem = _problem(communicator.share(found))
    if problem is None:
        is_first, job = communicator.rank == 0, None
        if is_first and own is not None:
            try:
                job = own.new_job()
            except DeviceError as error:
                problem = f"rank 0: {error}"
        job, problem = communicator.share((job, problem))[0]
        if problem is None and own is not None:
            return NcclExchange(own.join(job, communicator.rank, communicator.size))
    if problem and communicator.rank == 0:
        say_once("ranks exchange the arrays of their GPUs by way of the host, not by NCCL", problem)
    return None


class _Found(NamedTuple):
    """What a rank has: nothing but ``problem`` where it has no NCCL, which is empty where it has no device either."""

    problem: str
    place: str = ""
    version: str = ""


def _look(backend: Backend) -> tuple[Collectives | None, _Found]:
    if not isinstance(backend, CudaBackend):
        return None, _Found("")
    try:
        own = backend.device.collectives()
    except DeviceError as error:
        return None, _Found(str(error))
    return own, _Found("", own.place, own.version)


def _problem(found: list[_Found]) -> str | None:
    """Return why NCCL cannot be used; None where it can, and an empty text where no rank has a device."""
    for rank, one in enumerate(found):
        if one.problem:
            return f"rank {rank}: {one.problem}"
    if not any(one.place for one in found):
        return ""
    for rank, one in enumerate(found):
        first = next(other for other, its in enumerate(found) if its.place == one.place)
        if not one.place:
            return f"rank {rank} has no GPU"
        if first != rank:
            return f"ranks {first} and {rank} share one GPU"
        if one.version != found[0].version:
            return f"rank 0 has NCCL {found[0].version}, rank {rank} has {one.version}"
    return None
