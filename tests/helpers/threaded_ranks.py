"""Ranks that are threads of one process: what they say to each other needs no MPI, and their arrays may be emulated."""

from __future__ import annotations

import itertools
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from gpunet.backends import Backend
from gpunet.backends.arrays import Array
from gpunet.distributed import Communicator, Exchange, Ranks
from gpunet.distributed.communicator import Wait

_SECONDS = 120


class _Job:
    """What the threads share."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=_SECONDS)
        self.slots: dict[Any, Any] = {}


class ThreadCommunicator(Communicator):
    """One rank of a job of threads. Every message is copied, and every call counted, in ``calls``."""

    name = "threads"

    def __init__(self, job: _Job, rank: int) -> None:
        self._job = job
        self.rank = self.local_rank = rank
        self.size = self.local_size = job.size
        self.calls: list[str] = []

    def share(self, value: Any) -> list[Any]:
        return [pickle.loads(text) for text in self.post("share", pickle.dumps(value))]

    def exchange(self, backend: Backend) -> Exchange:
        return ThreadExchange(self, backend)

    def abort(self, status: int = 1) -> None:
        self._job.barrier.abort()

    def post(self, key: Any, value: Any) -> list[Any]:
        """Return what each rank posts under a key."""
        self._job.slots[key, self.rank] = value
        self._job.barrier.wait()
        found = [self._job.slots[key, rank] for rank in range(self.size)]
        self._job.barrier.wait()
        return found


class ThreadExchange(Exchange):
    """Arrays of a backend. Nothing has arrived, and nothing may be changed, before it is waited for."""

    def __init__(self, communicator: ThreadCommunicator, backend: Backend) -> None:
        self._communicator = communicator
        self._backend = backend
        self._numbers = itertools.count()

    def all_gather(self, part: Array, out: Array) -> Wait:
        return self._later("all_gather", part, out, lambda found: np.stack(found))

    def all_to_all(self, parts: Array, out: Array) -> Wait:
        rank = self._communicator.rank
        return self._later("all_to_all", parts, out, lambda found: np.stack([other[rank] for other in found]))

    def all_reduce(self, array: Array) -> Wait:
        return self._later("all_reduce", array, array, lambda found: sum(found[1:], found[0]))

    def _later(self, name: str, part: Array, out: Array, combine: Callable[[list[Array]], Array]) -> Wait:
        self._communicator.calls.append(name)
        number = next(self._numbers)
        if out is not part:
            poison = np.full(out.nbytes, 0xFF, np.uint8).view(out.dtype).reshape(out.shape)
            self._backend.copy(poison, out)

        def wait() -> None:
            found = self._communicator.post((name, number), self._backend.to_numpy(part).copy())
            assert all(other.shape == found[0].shape and other.dtype == found[0].dtype for other in found)
            self._backend.copy(np.ascontiguousarray(combine(found).reshape(out.shape)), out)

        return wait


def run_ranks(size: int, shards: int | None, function: Callable[[Ranks], Any]) -> list[Any]:
    """Return what a function returns on each of so many ranks; raise the first error that is not another's echo."""
    job, results, errors = _Job(size), [None] * size, []

    def run(rank: int) -> None:
        communicator = ThreadCommunicator(job, rank)
        try:
            results[rank] = function(Ranks(communicator, shards))
        except BaseException as error:
            errors.append(error)
            if not hasattr(error, "reported_by_rank"):  # which the others raise as well
                communicator.abort()

    with threadpool_limits(1):
        threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_SECONDS)
            assert not thread.is_alive(), "a rank hangs"
    own = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
    if errors:
        raise (own or errors)[0]
    return results
