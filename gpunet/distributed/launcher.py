"""What the launcher of MPI programs, mpiexec or srun, tells each process that it starts."""

from __future__ import annotations

import os
from typing import NamedTuple

# Of each launcher, its name and the variables of how many processes it has started, and which of them this one is.
_LAUNCHERS = (
    ("mpiexec", "PMI_SIZE", "PMI_RANK"),
    ("Open MPI's mpiexec", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


class Launch(NamedTuple):
    """How this process was started: by which launcher, among how many processes, and as which of them."""

    launcher: str
    size: int
    rank: int


def find_launch() -> Launch:
    """Return how this process was started; without a launcher, as the only one."""
    for launcher, *names in _LAUNCHERS:
        size, rank = (os.environ.get(name, "") for name in names)
        if size.isdigit() and rank.isdigit():
            return Launch(launcher, int(size), int(rank))
    return Launch("", 1, 0)
