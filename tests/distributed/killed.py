"""A run under mpiexec that goes on from its checkpoint; a rank may kill itself at a place, the n-th time."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

import gpunet
from gpunet.distributed import Ranks, mpi
from gpunet.distributed.ordered_sum import OrderedSum
from gpunet.training.distribution import EpochAgreement
from gpunet.training.epoch_end import EpochEnd

SHARDS, EPOCHS = 12, 160
# Of each place, what a rank calls there.
PLACES: dict[str, tuple[Any, str]] = {
    "in a step": (OrderedSum, "go_on"),
    "in validation": (EpochEnd, "run"),
    "while the checkpoint is written": (os, "fsync"),
    "after an epoch": (EpochAgreement, "__call__"),
}


class _Dies(gpunet.Callback):
    def on_fit_start(self, run: gpunet.Run) -> None:
        die()

    def on_fit_end(self, run: gpunet.Run) -> None:
        die()


def die() -> None:
    """End this process as nothing else does."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(place: str, times: int) -> None:
    """Let this process die when it is at a place for the n-th time."""
    owner, name = PLACES[place]
    call, count = getattr(owner, name), 0

    def counted(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == times:
            die()
        return call(*arguments)

    setattr(owner, name, counted)


def train(ranks: Ranks, checkpoint: str | None = None, callbacks: Any = ()) -> gpunet.Network:
    """Train from the checkpoint on, if there is one."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((230, 6))
    y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
    network = gpunet.Network([6, 9, 3], device="cpu:numpy", dropout=0.3, seed=1)
    gpunet.fit(
        network,
        X[:200],
        y[:200],
        epochs=EPOCHS,
        batch_size=70,
        optimizer=gpunet.Adam(gpunet.CosineRate(0.01, 3 * EPOCHS)),
        average=gpunet.WeightAverage(0.9),
        validation=(X[200:], y[200:]),
        early_stopping=gpunet.EarlyStopping(EPOCHS),
        callbacks=callbacks,
        checkpoint=checkpoint,
        resume=checkpoint is not None,
        distributed=ranks,
    )
    return network


def main(folder: Path, rank: int, place: str, times: int) -> None:
    """Train, and die meanwhile or write the model."""
    if place == "before MPI begins" and os.environ.get("PMI_RANK") == str(rank):
        die()
    ranks = mpi(SHARDS)
    (folder / f"process {ranks.rank}").write_text(str(os.getpid()), encoding="utf-8")
    ranks.share(None)
    if ranks.is_first:
        print("started", flush=True)
    if place in PLACES and ranks.rank == rank:
        die_at(place, times)
    callbacks = [_Dies()] if place == "before the first step" and ranks.rank == rank else []
    network = train(ranks, str(folder / "run.safetensors"), callbacks)
    if ranks.is_first:
        network.save(folder / "model.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
