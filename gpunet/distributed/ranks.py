"""The ranks of a data-parallel run: what ``fit`` is given, and how its ranks agree, or end together."""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from gpunet.backends.devices.probe import probe_gpu
from gpunet.backends.selection import check_device, cuda_problem
from gpunet.distributed.communicator import Communicator
from gpunet.distributed.launcher import find_launch
from gpunet.distributed.shards import Partition
from gpunet.environment import usable_affinity, usable_cores
from gpunet.errors import DistributedError, InvalidValueError
from gpunet.validation import check_integer

# Of an error that all ranks raise: which of them is to tell it.
_ATTRIBUTE = "reported_by_rank"
# A rank that has the same to say as those before it, which will end it then, gives each of them so long; up to so many.
_SECONDS_TO_BE_ENDED, _MOST_WAITED_FOR = 0.5, 10


class _Ended:
    """What a rank shares when its program ends."""


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
    aborts : bool
        Whether ``fit`` ends all ranks where one raises what the others do not. The shell turns it off and does that
        itself, with a message and a status of its own.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        ``shards`` is not a positive integer that ``size`` divides.
    """

    aborts = True

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

    def own_device(self, device: str = "auto") -> str:
        """Return the name of the device that is this rank's own: ``cuda:1`` of ``cuda`` for the second on its machine.

        ``"auto"`` is CUDA where all ranks can use it, and otherwise ``"cpu"``. Where a rank sees one GPU alone, as
        some launchers have it, that one is its own. What already has a number, or is a CPU, stays. Every rank calls
        this.

        Parameters
        ----------
        device : str
            As for :class:`gpunet.Network`.
        """
        check_device(device)
        if device not in ("auto", "cuda"):
            return device
        report = probe_gpu()
        number = 0 if len(report.devices) == 1 else self.local_rank
        works = self.share(cuda_problem(report, number) is None)
        return f"cuda:{number}" if device == "cuda" or all(works) else "cpu"

    def share(self, value: Any) -> list[Any]:
        """Return what each rank shares, in order: anything that pickles. Every rank calls this.

        Raises
        ------
        DistributedError
            Another rank's program has ended, without the calls that this one makes.
        """
        found = self.communicator.share(value)
        ended = [rank for rank, other in enumerate(found) if isinstance(other, _Ended)]
        if ended:
            raise self.reported(DistributedError(_ended(ended[0], self.size)), ended[0])
        return found

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
            found = self.share(f"{type(error).__name__}: {error}")
            self.reported(error, next(rank for rank, other in enumerate(found) if isinstance(other, str)))
            raise
        found = self.share(described)
        for rank, other in enumerate(found):
            if isinstance(other, str):
                raise self.reported(DistributedError(f"rank {rank} raised {other}"), rank)
        self._compare(found)
        described.update(found[0])

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
            if self.aborts and self.size > 1 and reporting_rank(error) is None:
                wait_to_tell(error, self.rank)
                text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
                told = f"{text}gpunet: rank {self.rank} of {self.size} failed, and all are ended."
                print(told, file=sys.stderr, flush=True)
                self.communicator.abort()
            raise


def reporting_rank(error: BaseException) -> int | None:
    """Return the rank that is to tell an error which all ranks raise; None for other errors."""
    return getattr(error, _ATTRIBUTE, None)


def wait_to_tell(error: BaseException, rank: int) -> bool:
    """Return whether this rank is to tell an error that ends it; where others may have the same, the first is.

    Those after it wait for a moment: whoever tells an error ends all.
    """
    if reporting_rank(error) is None:
        time.sleep(_SECONDS_TO_BE_ENDED * min(rank, _MOST_WAITED_FOR))
    return reporting_rank(error) in (None, rank)


def end_by_signal() -> NoReturn:
    """End this process in a way that lets the launcher end the others.

    Where a process exits before MPI has begun, some launchers let the others wait for it for ever.
    """
    sys.stderr.flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    raise SystemExit(1)


def end_together(communicator: Communicator | None = None) -> None:
    """From now on, let an error that nobody catches end all ranks; one that all have raised is told by one.

    A rank whose program ends without the calls that the others make ends them too.

    Parameters
    ----------
    communicator : Communicator or None
        None where there is no way to reach the others: the launcher ends them then.
    """
    before = sys.excepthook
    if isinstance(before, _Hook):
        before = before.before
    sys.excepthook = _Hook(communicator, before)
    if communicator is not None:
        atexit.register(_end, communicator)


class _Hook:
    def __init__(self, communicator: Communicator | None, before: Callable[..., Any]) -> None:
        self._communicator = communicator
        self.before = before

    def __call__(self, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        communicator = self._communicator
        rank = find_launch().rank if communicator is None else communicator.rank
        if wait_to_tell(error, rank):
            self.before(kind, error, trace)
            sys.stderr.flush()
        if communicator is None:
            end_by_signal()
        if reporting_rank(error) is None:
            communicator.abort()


def _end(communicator: Communicator) -> None:
    """Say to the other ranks that this one's program ends; where they go on, all are ended."""
    if not communicator.is_open:
        return
    found = communicator.share(_Ended())
    ended = [rank for rank, other in enumerate(found) if isinstance(other, _Ended)]
    if len(ended) < communicator.size and communicator.rank == ended[0]:
        print(f"gpunet: {_ended(ended[0], communicator.size)}", file=sys.stderr, flush=True)
        communicator.abort()


def _ended(rank: int, size: int) -> str:
    return (
        f"rank {rank} of {size} has ended, and others wait for it: all are ended. Expected the same calls of fit on "
        "every rank."
    )
