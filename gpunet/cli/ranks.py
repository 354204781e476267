"""The processes that a launcher of MPI programs, such as mpiexec, has started with this one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from gpunet.distributed import Ranks, mpi, one_rank
from gpunet.distributed.launcher import find_launch
from gpunet.distributed.ranks import end_by_signal, reporting_rank, wait_to_tell

# The commands that processes run together; every other one is the first one's alone, and so is help.
TOGETHER, HELP = ("train", "verify"), {"-h", "--help"}


@dataclass
class Company:
    """The ranks that run a command together: one tells what goes wrong, and all end.

    Attributes
    ----------
    ranks : Ranks or None
        None for a command that runs alone.
    is_awaited : bool
        Whether other processes run the command too, and wait for this one.
    """

    ranks: Ranks | None = None
    is_awaited: bool = False

    def meet(self, argv: Sequence[str] | None) -> bool:
        """Begin to speak to the others, if there are others for this command: before anything can go wrong.

        Returns
        -------
        bool
            Whether there is something to do here: where mpiexec has started several processes, one does what needs no
            other. What srun starts need be no ranks, and may have files of their own.

        Raises
        ------
        MissingDependencyError, DistributedError
            See :func:`gpunet.distributed.mpi`.
        """
        words, launch = sys.argv[1:] if argv is None else argv, find_launch()
        are_together = any(name in TOGETHER for name in words[:1]) and HELP.isdisjoint(words)
        self.is_awaited = launch.size > 1 and are_together
        if self.is_awaited:
            self._take(mpi())
        return are_together or launch.rank == 0 or launch.launcher == "srun"

    def join(self, shards: int | None) -> Ranks | None:
        """Return the ranks; None where this process is the only one, and no shards were asked for.

        Raises
        ------
        InvalidValueError
            So many shards are not for so many ranks.
        """
        if self.ranks is not None:
            self._take(Ranks(self.ranks.communicator, shards))
        elif shards is not None:
            self.ranks = one_rank(shards)
        return self.ranks

    def _take(self, ranks: Ranks) -> None:
        self.ranks = ranks
        ranks.aborts = False  # `end` does it
        if self.is_silent:
            logging.getLogger("gpunet").setLevel(logging.ERROR)

    @property
    def is_silent(self) -> bool:
        """Whether another rank says what there is to say."""
        return self.ranks is not None and not self.ranks.is_first

    def is_to_tell(self, error: BaseException) -> bool:
        """Return whether it is this process that tells an error which ends it."""
        return not self.is_awaited or wait_to_tell(error, find_launch().rank)

    def end(self, error: BaseException, status: int) -> None:
        """End the others, and with them this process, unless they have the same error."""
        if not self.is_awaited:
            return
        if self.ranks is None:
            end_by_signal()
        elif reporting_rank(error) is None:
            self.ranks.communicator.abort(status)
