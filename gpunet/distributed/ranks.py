"""The ranks of a data-parallel run: what ``fit`` is given, and how its ranks agree, or end together."""

from __future__ import annotations

import contextlib
import platform
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from gpunet.distributed.communicator import Communicator
from gpunet.distributed.shards import Partition
from gpunet.environment import usable_affinity, usable_cores
from gpunet.errors import DistributedError, InvalidValueError
from gpunet.validation import check_integer

# Of an error that all ranks raise: which of them is to tell it.
_ATTRIBUTE = "reported_by_rank"


class Ranks:
    """The processes that train one network together, and the shards that they cut each batch into.

    Made by :func:`gpunet.distributed.mpi` and :func:`gpunet.distributed.one_rank`, and given to ``fit`` as
    ``distributed``.

    Parameters
    ----------
    communicator : Communicator
    shards : int or None
        The number of shards; None stands for one for each rank and sums in whatever order is fastest.

    Attributes
    ----------
    rank, size : int
        This process's number, and how many there are.
    local_rank, local_size : int
        The same among those on this machine.
    cores : int
        Those that this rank may use, divided among the ranks of the machine that may use the same.
    shards : int or None
    partition : Partition

    Raises
    ------
    InvalidTypeError, InvalidValueError
        ``shards`` is not a positive integer that ``size`` divides.
    """

    def __init__(self, communicator: Communicator, shards: int | None) -> None:
        self.communicator = communicator
        self.rank, self.size = communicator.rank, communicator.size
        self.local_rank, self.local_size = communicator.local_rank, communicator.local_size
        self.shards = None if shards is None else check_integer("shards", shards, 1)
        if self.shards is not None and self.shards % self.size:
            more = "more ranks than shards" if self.size > self.shards else "ranks with unequal numbers of shards"
            raise self.reported(
                InvalidValueError(
                    f"shards: {self.shards} for {self.size} ranks, which would be {more}. Expected a multiple of "
                    f"{self.size}."
                )
            )
        self.partition = Partition(self.shards or self.size, self.rank, self.size)
        places = self.share((platform.node(), usable_affinity()))
        self.cores = max(1, usable_cores() // Counter(places)[places[self.rank]])

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.size}, shards={self.shards}, {self.communicator.name}>"

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes files and says what is to be said once."""
        return self.rank == 0

    def share(self, value: Any) -> list[Any]:
        """Return what each rank shares, in order: anything that pickles. Every rank calls this."""
        return self.communicator.share(value)

    def reported(self, error: BaseException, rank: int = 0) -> BaseException:
        """Return an error that every rank raises; where nobody catches it, the process of that rank tells it."""
        if self.size > 1:
            setattr(error, _ATTRIBUTE, rank)
        return error

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[dict[str, Any]]:
        """Let what happens in the block happen on all ranks, or on none.

        The value is a dictionary for what has to be equal everywhere, by name. At the end of the block the ranks
        compare; where one has raised an error, or another value, all raise.

        Raises
        ------
        DistributedError
            What is different, and on which rank; or which error another rank has raised.
        """
        described: dict[str, Any] = {}
        try:
            yield described
        except Exception as error:
            failed = [found for found in self.share(f"{type(error).__name__}: {error}") if isinstance(found, str)]
            self.reported(error, self._first_with(failed))
            raise
        found = self.share(described)
        for rank, other in enumerate(found):
            if isinstance(other, str):
                raise self.reported(DistributedError(f"rank {rank} raised {other}"), rank)
        self._compare(found)
        described.update(found[0])

    def _first_with(self, failed: list[str]) -> int:
        return self.rank if len(failed) < self.size else 0

    def _compare(self, found: list[dict[str, Any]]) -> None:
        for name, value in found[0].items():
            for rank, other in enumerate(found):
                if other.get(name) != value:
                    raise self.reported(
                        DistributedError(
                            f"rank {rank} has another {name} than rank 0: {other.get(name)!s:.200}, and not "
                            f"{value!s:.200}. Expected the same on all ranks."
                        )
                    )

    @contextlib.contextmanager
    def aborting(self) -> Iterator[None]:
        """End all ranks where the block raises what not all of them raise: the others would wait for ever."""
        try:
            yield
        except BaseException as error:
            if self.size > 1 and not hasattr(error, _ATTRIBUTE):
                text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
                told = f"{text}gpunet: rank {self.rank} of {self.size} failed, and all are ended."
                print(told, file=sys.stderr, flush=True)
                self.communicator.abort()
            raise


def end_together(communicator: Communicator) -> None:
    """From now on, let an error that nobody catches end all ranks; one that all have raised is told by one."""
    if communicator.size == 1 or isinstance(sys.excepthook, _Hook):
        return
    sys.excepthook = _Hook(communicator, sys.excepthook)


class _Hook:
    def __init__(self, communicator: Communicator, before: Callable[..., Any]) -> None:
        self._communicator = communicator
        self._before = before

    def __call__(self, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        rank = getattr(error, _ATTRIBUTE, None)
        if rank in (None, self._communicator.rank):
            self._before(kind, error, trace)
            sys.stderr.flush()
        if rank is None:
            self._communicator.abort()
