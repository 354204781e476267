"""The processes that a launcher of MPI programs, such as mpiexec, has started with this one."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from gpunet.distributed import Ranks, mpi, one_rank
from gpunet.distributed.launcher import find_launch
from gpunet.distributed.ranks import reporting_rank


@dataclass
class Company:
    """The ranks that run a command together, once it has joined them: one tells what goes wrong, and all end.

    Attributes
    ----------
    ranks : Ranks or None
        None for a command that runs alone, or has not joined others yet.
    """

    ranks: Ranks | None = None

    def join(self, shards: int | None) -> Ranks | None:
        """Return the ranks; None where this process is the only one, and no shards were asked for.

        Raises
        ------
        MissingDependencyError, InvalidValueError, DistributedError
            See :func:`gpunet.distributed.mpi`, which one process does without.
        """
        if find_launch().size > 1:
            self.ranks = mpi(shards)
            self.ranks.aborts = False  # `end` does it
            if self.is_silent:
                logging.getLogger("gpunet").setLevel(logging.ERROR)
        elif shards is not None:
            self.ranks = one_rank(shards)
        return self.ranks

    @property
    def is_silent(self) -> bool:
        """Whether another rank says what there is to say."""
        return self.ranks is not None and not self.ranks.is_first

    def end(self, error: BaseException, status: int) -> None:
        """End the other ranks, and with them this one, unless they have the same error."""
        if self.ranks is not None and self.ranks.size > 1 and reporting_rank(error) is None:
            self.ranks.communicator.abort(status)
