"""Ranks by MPI: mpi4py on whichever MPI there is."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import numpy as np

from gpunet.backends import Backend
from gpunet.backends.arrays import Array
from gpunet.distributed.communicator import Communicator, Exchange, Wait
from gpunet.distributed.launcher import find_launch
from gpunet.distributed.nccl import nccl_exchange
from gpunet.errors import DistributedError, InvalidTypeError, MissingDependencyError


class MpiCommunicator(Communicator):
    """The ranks of an MPI communicator.

    Importing mpi4py initialises MPI, unless it has been. Messages go over a copy of the communicator, so that they
    cannot be taken for others of the same program.

    Parameters
    ----------
    communicator : mpi4py.MPI.Intracomm or None
        None takes ``COMM_WORLD``.

    Raises
    ------
    MissingDependencyError
        mpi4py, or the MPI library that it loads, is not installed.
    InvalidTypeError
        ``communicator`` is something else.
    DistributedError
        MPI has been finalised, or not been initialised; or a launcher has started several processes, and MPI finds each
        of them alone.
    """

    def __init__(self, communicator: Any = None) -> None:
        self._mpi = mpi = _load()
        if mpi.Is_finalized():
            raise DistributedError("communicator: MPI has been finalised. Expected gpunet before that.")
        if not mpi.Is_initialized():
            raise DistributedError("communicator: mpi4py was told not to initialise MPI. Expected MPI.Init() before.")
        if communicator is None:
            communicator = mpi.COMM_WORLD
        if not isinstance(communicator, mpi.Intracomm) or communicator == mpi.COMM_NULL:
            raise InvalidTypeError(f"communicator: got {communicator!r}. Expected an mpi4py.MPI.Intracomm, or None.")
        self.name = library_name(mpi.Get_library_version())
        launch = find_launch()
        if mpi.COMM_WORLD.size == 1 and launch.size > 1:
            raise DistributedError(
                f"{launch.launcher} has started {launch.size} processes, and {self.name} finds each of them alone. "
                "Expected the mpiexec of the MPI library that mpi4py loads (python -m mpi4py --mpi-lib-version)."
            )
        self._last: tuple[Backend, Exchange] | None = None
        self._world = communicator.Dup()
        local = self._world.Split_type(mpi.COMM_TYPE_SHARED)
        self.rank, self.size = int(self._world.rank), int(self._world.size)
        self.local_rank, self.local_size = int(local.rank), int(local.size)
        local.Free()

    @property
    def is_open(self) -> bool:
        return not self._mpi.Is_finalized()

    def share(self, value: Any) -> list[Any]:
        shared: list[Any] = self._world.allgather(value)
        return shared

    def exchange(self, backend: Backend) -> Exchange:
        # That of the last backend is kept: NCCL takes about a second to begin, and `fit` is called again and again.
        if self._last is None or self._last[0] is not backend:
            self._last = backend, self._new_exchange(backend)
        return self._last[1]

    def _new_exchange(self, backend: Backend) -> Exchange:
        by_nccl = nccl_exchange(self, backend)
        if by_nccl is not None:
            return by_nccl
        on_host = isinstance(backend.empty(1, np.float32), np.ndarray)
        return HostExchange(self._mpi, self._world) if on_host else StagedExchange(self._mpi, self._world, backend)

    def abort(self, status: int = 1) -> None:
        self._world.Abort(status)


class HostExchange(Exchange):
    """Arrays in the memory of the host, which MPI reads and writes where they are."""

    def __init__(self, mpi: Any, world: Any) -> None:
        self._mpi, self._world = mpi, world

    def all_gather(self, part: Array, out: Array) -> Wait:
        return _waiting(self._world.Iallgather(self._bytes(part), self._bytes(out)))

    def all_to_all(self, parts: Array, out: Array) -> Wait:
        return _waiting(self._world.Ialltoall(self._bytes(parts), self._bytes(out)))

    def all_reduce(self, array: Array) -> Wait:
        return _waiting(self._world.Iallreduce(self._mpi.IN_PLACE, array))

    def _bytes(self, array: Array) -> list[Any]:
        return [array, self._mpi.BYTE]


class StagedExchange(Exchange):
    """Arrays on a device, which travel by way of the host: where NCCL cannot be used."""

    def __init__(self, mpi: Any, world: Any, backend: Backend) -> None:
        self._host = HostExchange(mpi, world)
        self._backend = backend

    def all_gather(self, part: Array, out: Array) -> Wait:
        received = np.empty(out.shape, out.dtype)
        self._host.all_gather(self._on_host(part), received)()
        return self._back(received, out)

    def all_to_all(self, parts: Array, out: Array) -> Wait:
        received = np.empty(out.shape, out.dtype)
        self._host.all_to_all(self._on_host(parts), received)()
        return self._back(received, out)

    def all_reduce(self, array: Array) -> Wait:
        there = self._on_host(array).copy()
        self._host.all_reduce(there)()
        return self._back(there, array)

    def _on_host(self, array: Array) -> Array:
        return np.ascontiguousarray(self._backend.to_numpy(array))

    def _back(self, values: Array, array: Array) -> Wait:
        self._backend.copy(values, array)
        return lambda: None


def _waiting(request: Any) -> Wait:
    def wait() -> None:
        request.Wait()

    return wait


def _load() -> Any:
    try:
        return import_module("mpi4py.MPI")
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "gpunet.distributed.mpi needs mpi4py and an MPI library: pip install 'gpunet[mpi]', or mpi4py alone where "
            "the machine has MPI."
        ) from None
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise MissingDependencyError(
            f"mpi4py is installed, and the MPI library that it needs cannot be loaded ({reason}): pip install mpich, "
            "or load the module of your cluster's MPI."
        ) from None


def library_name(version: str) -> str:
    """Return name and version of an MPI library from what it says of itself: up to the first word with a digit."""
    words = version.replace("Version:", "").split()
    last = next((place for place, word in enumerate(words) if re.search(r"\d", word)), len(words))
    return " ".join(words[: last + 1]).rstrip(",")
