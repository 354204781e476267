"""What tests start under mpiexec and is wrong on one rank, or on all."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

import gpunet
from gpunet.distributed import Ranks, mpi

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((200, 5)), RNG.integers(0, 3, 200)


def train(ranks: Ranks | None, *, seed: int = 1, **given: Any) -> gpunet.Network:
    network = gpunet.Network([5, 8, 3], device="cpu:numpy", seed=seed)
    arguments: dict[str, Any] = {"X": X, "y": Y, "epochs": 3, "batch_size": 40} | given
    gpunet.fit(network, distributed=ranks, **arguments)
    return network


class Does(gpunet.Callback):
    """Does something after the second step of a rank."""

    def __init__(self, what: Any) -> None:
        self.what = what

    def on_step_end(self, run: Any) -> None:
        if run.step_in_epoch == 2:
            self.what()


def fail(error: BaseException) -> None:
    raise error


def of_all(case: str) -> None:
    """What is wrong on every rank."""
    if case == "another launcher":  # which MPICH, whose variables are missing then, knows nothing of
        for name in ("SIZE", "RANK"):
            os.environ[f"OMPI_COMM_WORLD_{name}"] = os.environ.pop(f"PMI_{name}")
        for name in [name for name in os.environ if name.startswith(("PMI_", "MPI_"))]:
            del os.environ[name]
    elif case not in ("shards", "callback", "script"):
        import mpi4py

        mpi4py.rc.initialize = case != "not initialised"  # type: ignore[attr-defined]
        from mpi4py import MPI

        if case == "finalised":
            MPI.Finalize()
    ranks = mpi(shards=4 if case == "shards" else 3)
    if case == "callback":
        train(ranks, callbacks=[Does(lambda: fail(RuntimeError("on every rank")))])
    raise RuntimeError("on every rank")


def of_one(case: str) -> None:
    """What is wrong on the last rank."""
    ranks = mpi(shards=12)
    is_wrong = ranks.rank == ranks.size - 1
    given: dict[str, Any] = {}
    if case == "data":
        given = {"X": X + is_wrong}
    elif case == "labels in another order":
        given = {"y": Y[::-1] if is_wrong else Y}
    elif case == "columns of two":
        given = {"X": X[:, : 4 if ranks.rank else 5]}
    elif case == "seeds":
        given = {"seed": 1 + is_wrong}
    elif case == "arguments":
        given = {"epochs": 3 + is_wrong}
    elif case == "checkpoint":
        given = {"checkpoint": sys.argv[2] if is_wrong else None}
    elif case == "versions":
        gpunet.__version__ += ".dev1" * is_wrong
    elif case == "does not train":
        if is_wrong:
            return
    elif case == "trains alone":
        train(None if is_wrong else ranks)
        return
    elif case == "leaves":
        if is_wrong:
            sys.exit(3)
    elif case == "exits":
        if is_wrong:
            os._exit(3)
    elif case == "error before":
        if is_wrong:
            raise RuntimeError("on one rank")
    elif case == "interrupt before":
        if is_wrong:
            raise KeyboardInterrupt
    elif is_wrong:
        error = {"interrupt": KeyboardInterrupt(), "exit": SystemExit(3)}.get(case, RuntimeError("on one rank"))
        given = {"callbacks": [Does(lambda: fail(error))]}
    train(ranks, **given)
    if case == "error after" and is_wrong:
        raise RuntimeError("on one rank")


def right(case: str) -> None:
    """What is unusual, and works."""
    import mpi4py

    if case == "single":
        mpi4py.rc.thread_level = "single"  # type: ignore[attr-defined]
    else:
        mpi4py.rc.initialize = case != "initialised"  # type: ignore[attr-defined]
    from mpi4py import MPI

    if case == "initialised":
        MPI.Init_thread(MPI.THREAD_FUNNELED)
    communicator = MPI.COMM_WORLD.Split(0, -MPI.COMM_WORLD.rank) if case == "communicator" else None
    ranks = mpi(shards=12, communicator=communicator)
    train(ranks)
    again = train(mpi(shards=12))
    if MPI.COMM_WORLD.rank == 0:
        print(ranks.size, again.flat_parameters.sum())
    if case == "initialised":
        MPI.Finalize()


if __name__ == "__main__":
    {"all": of_all, "one": of_one, "right": right}[sys.argv[1].partition(": ")[0]](sys.argv[1].partition(": ")[2])
