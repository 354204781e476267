"""What ranks say to each other: arrays by three collective operations, and everything else as Python objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from gpunet.backends import Backend
from gpunet.backends.arrays import Array

# Waits until an exchange has been done: until then, nobody may touch its arrays.
Wait = Callable[[], None]


class Exchange(ABC):
    """Moves arrays of a backend between ranks.

    Every rank calls the same operations in the same order, with arrays of the same shapes and dtype, C-contiguous. An
    operation may return before it has been done, so that ranks compute meanwhile: what it returns waits for it.
    """

    @abstractmethod
    def all_gather(self, part: Array, out: Array) -> Wait:
        """Write the parts of all ranks, in order.

        Parameters
        ----------
        part : array, (...)
        out : array, (size, ...)
        """

    @abstractmethod
    def all_to_all(self, parts: Array, out: Array) -> Wait:
        """Write, at place r, what rank r has for this rank.

        Parameters
        ----------
        parts : array, (size, ...)
            What this rank has for each.
        out : array, (size, ...)
        """

    @abstractmethod
    def all_reduce(self, array: Array) -> Wait:
        """Add up the arrays of all ranks, in whatever order is fastest, in place: the same bits on every rank."""


class RecordedExchange(Exchange):
    """An exchange as part of steps that a backend records: see :meth:`gpunet.backends.Backend.call`.

    Parameters
    ----------
    exchange : Exchange
    backend : Backend
    """

    def __init__(self, exchange: Exchange, backend: Backend) -> None:
        self._exchange, self._backend = exchange, backend

    def all_gather(self, part: Array, out: Array) -> Wait:
        return self._begin(lambda: self._exchange.all_gather(part, out))

    def all_to_all(self, parts: Array, out: Array) -> Wait:
        return self._begin(lambda: self._exchange.all_to_all(parts, out))

    def all_reduce(self, array: Array) -> Wait:
        return self._begin(lambda: self._exchange.all_reduce(array))

    def _begin(self, begin: Callable[[], Wait]) -> Wait:
        begun: list[Wait] = []
        self._backend.call(lambda: begun.append(begin()))
        return lambda: self._backend.call(lambda: begun.pop()())


class Communicator(ABC):
    """The ranks of a job.

    Attributes
    ----------
    rank, size : int
        Which of them this process is, and how many there are.
    local_rank, local_size : int
        The same among those on this machine.
    name : str
        What moves the messages, and its version.
    """

    name: str
    rank: int
    size: int
    local_rank: int
    local_size: int

    @property
    def is_open(self) -> bool:
        """Whether messages can still be sent."""
        return True

    @abstractmethod
    def share(self, value: Any) -> list[Any]:
        """Return what each rank shares, in order: anything that pickles."""

    @abstractmethod
    def exchange(self, backend: Backend) -> Exchange:
        """Return what moves the arrays of a backend."""

    @abstractmethod
    def abort(self, status: int = 1) -> None:
        """End all ranks at once, this one included, with an exit status."""


class OneRank(Communicator):
    """A job of one process, which needs no transport: shards without company."""

    name = "one process"
    rank = local_rank = 0
    size = local_size = 1

    def share(self, value: Any) -> list[Any]:
        return [value]

    def exchange(self, backend: Backend) -> Exchange:
        return _Alone(backend)

    def abort(self, status: int = 1) -> None:
        raise SystemExit(status)


class _Alone(Exchange):
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def all_gather(self, part: Array, out: Array) -> Wait:
        self._backend.copy(part, out[0])
        return _nothing

    def all_to_all(self, parts: Array, out: Array) -> Wait:
        self._backend.copy(parts, out)
        return _nothing

    def all_reduce(self, array: Array) -> Wait:
        return _nothing


def _nothing() -> None:
    pass
