"""Data-parallel training on several processes, GPUs and machines, with the weights that one process would have.

Each batch is cut into S shards of rows. A rank has as many shards as any other, computes on those rows alone, and gets
the sums over all of them in one fixed order: the weights are the same bits for every number of ranks that divides S,
on processors, or GPUs, of one kind.
"""

from __future__ import annotations

from typing import Any

from gpunet.distributed.communicator import Communicator, Exchange, OneRank
from gpunet.distributed.launcher import find_launch
from gpunet.distributed.ranks import Ranks, end_together
from gpunet.errors import DistributedError, MissingDependencyError

__all__ = ["Communicator", "Exchange", "Ranks", "mpi", "one_rank"]


def mpi(shards: int | None = None, communicator: Any = None) -> Ranks:
    """Return the ranks that mpiexec, or another launcher of MPI, has started; one, where none has.

    From then on, an exception that nobody catches ends all ranks.

    Parameters
    ----------
    shards : int or None
        How many shards each batch is cut into: a multiple of the number of ranks. The same number gives the same bits
        on any number of ranks. None stands for one for each rank and for sums in the order that is fastest: the result
        then depends, within rounding, on the number of ranks.
    communicator : mpi4py.MPI.Intracomm or None
        None takes ``COMM_WORLD``. MPI may have been initialised by somebody else, with any level of threads.

    Raises
    ------
    MissingDependencyError
        mpi4py or an MPI library is missing: ``pip install 'gpunet[mpi]'``.
    InvalidTypeError, InvalidValueError
        Arguments that do not fit.
    DistributedError
        MPI has been finalised, or is another one than that of the launcher.
    """
    from gpunet.distributed.message_passing import MpiCommunicator

    try:
        transport = MpiCommunicator(communicator)
    except (DistributedError, MissingDependencyError):
        if find_launch().size > 1:
            end_together()
        raise
    if transport.size > 1:
        end_together(transport)
    return Ranks(transport, shards)


def one_rank(shards: int) -> Ranks:
    """Return the ranks of a job of one process, without MPI: it has the bits of any number of ranks with these shards.

    Parameters
    ----------
    shards : int
    """
    return Ranks(OneRank(), shards)
