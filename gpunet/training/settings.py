"""The arguments of ``fit``, checked before anything changes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpunet.distributed import Ranks
from gpunet.errors import InvalidTypeError, InvalidValueError, shown
from gpunet.network import Network, check_network
from gpunet.optimizers import OPTIMIZERS, SGD, Optimizer
from gpunet.serialization import check_path
from gpunet.training.callbacks import Callback
from gpunet.training.early_stopping import EarlyStopping
from gpunet.training.placement import check_place
from gpunet.training.stream import Batches, check_batches
from gpunet.training.weight_average import WeightAverage
from gpunet.validation import ALL, check_flag, check_integer, check_json, check_number

# What the first checkpoints of version 1 do not say: it was as without.
ADDED_SETTINGS: dict[str, Any] = {"accumulate": 1, "average": None, "shards": None}


@dataclass(frozen=True)
class FitSettings:
    """How a run goes; see :func:`gpunet.fit` for what each of them means."""

    epochs: int
    batch_size: int
    optimizer: Optimizer
    l2: float
    clip_norm: float | None
    accumulate: int
    average: WeightAverage | None
    shuffle: bool
    early_stopping: EarlyStopping | None
    callbacks: tuple[Callback, ...]
    checkpoint: Path | None
    resume: bool
    data_on: str
    batches: Batches | None
    validation_batches: Batches | None
    ranks: Ranks | None = None

    @property
    def part(self) -> tuple[int, int]:
        """Which rank this is, and how many there are."""
        return ALL if self.ranks is None else (self.ranks.rank, self.ranks.size)

    def fixed(self, rows: int | None) -> dict[str, Any]:
        """Return what a run cannot change when it goes on from a checkpoint; ``rows`` is None with batches."""
        return {
            "rows": "of batches=" if rows is None else rows,
            "batch_size": "of batches=" if rows is None else self.batch_size,
            "shuffle": self.shuffle,
            "l2": self.l2,
            "clip_norm": self.clip_norm,
            "accumulate": self.accumulate,
            "average": None if self.average is None else self.average.decay,
            "shards": None if self.ranks is None else self.ranks.shards,
        }


def check_settings(
    network: Network,
    *,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer | None,
    l2: float,
    clip_norm: float | None,
    accumulate: int,
    average: WeightAverage | None,
    shuffle: bool,
    validation: Any,
    early_stopping: EarlyStopping | None,
    callbacks: Iterable[Callback],
    checkpoint: str | os.PathLike[str] | None,
    resume: bool,
    data_on: str,
    batches: Any,
    validation_batches: Any,
    ranks: Ranks | None,
) -> FitSettings:
    """Return the arguments of ``fit`` as settings, or raise."""
    check_network(network)
    if optimizer is None:
        optimizer = SGD(0.1, momentum=0.9)
    elif not isinstance(optimizer, Optimizer):
        raise InvalidTypeError(
            f"optimizer: got {shown(optimizer)}. Expected an object of one of: "
            f"{', '.join(kind.__name__ for kind in OPTIMIZERS.values())}."
        )
    if validation is not None and (not isinstance(validation, (tuple, list)) or len(validation) != 2):
        raise InvalidTypeError("validation: expected a pair (X, y).")
    if validation is not None and validation_batches is not None:
        raise InvalidValueError("validation_batches: are given beside validation=. Expected one of them.")
    if checkpoint is not None or ranks is not None:  # which compare them
        check_json("metadata", network.metadata)
    if early_stopping is not None:
        if not isinstance(early_stopping, EarlyStopping):
            raise InvalidTypeError(f"early_stopping: got {shown(early_stopping)}. Expected EarlyStopping(...).")
        _check_monitored("early_stopping", early_stopping.monitor, network, validation or validation_batches)
    _check_monitored("optimizer: its schedule", optimizer.schedule.monitor, network, validation or validation_batches)
    epochs = check_integer("epochs", epochs, 1)
    return FitSettings(
        epochs=epochs,
        batch_size=_check_batch_size(batch_size, network),
        optimizer=optimizer,
        l2=check_number("l2", l2),
        clip_norm=None if clip_norm is None else check_number("clip_norm", clip_norm, above=True),
        accumulate=check_integer("accumulate", accumulate, 1),
        average=_check_average(average),
        shuffle=check_flag("shuffle", shuffle),
        early_stopping=early_stopping,
        callbacks=check_callbacks(callbacks),
        checkpoint=None if checkpoint is None else _check_checkpoint(checkpoint),
        resume=_check_resume(resume, checkpoint),
        data_on=check_place(data_on),
        batches=None if batches is None else check_batches("batches", batches, epochs),
        validation_batches=None
        if validation_batches is None
        else check_batches("validation_batches", validation_batches, epochs),
        ranks=ranks,
    )


def _check_average(average: WeightAverage | None) -> WeightAverage | None:
    if average is not None and not isinstance(average, WeightAverage):
        raise InvalidTypeError(f"average: got {shown(average)}. Expected WeightAverage(...).")
    return average


def _check_monitored(what: str, monitor: str | None, network: Network, validation: Any) -> None:
    """Raise where there will be no such quantity to watch."""
    if monitor is None or not monitor.startswith("validation"):
        return
    if validation is None:
        raise InvalidValueError(f"{what}: needs validation=(X, y), got None.")
    if monitor == "validation_accuracy" and not network.has_probabilities:
        raise InvalidValueError(f"{what}: a network with loss={network.loss!r} has no accuracy.")


def _check_batch_size(batch_size: int, network: Network) -> int:
    size = check_integer("batch_size", batch_size, 1)
    if size < network.minimum_batch:
        raise InvalidValueError("batch_size: 1 is out of range. Expected at least 2: batch norm needs a batch.")
    return size


def check_callbacks(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    """Return the callbacks, or raise, naming the one that is none."""
    try:
        checked = tuple(callbacks)
    except TypeError:
        raise InvalidTypeError(f"callbacks: got {shown(callbacks)}. Expected a list of gpunet.Callback.") from None
    for place, callback in enumerate(checked):
        if not isinstance(callback, Callback):
            raise InvalidTypeError(f"callbacks[{place}]: got {shown(callback)}. Expected a gpunet.Callback.")
    return checked


def _check_checkpoint(checkpoint: str | os.PathLike[str]) -> Path:
    """Find out now, and not after an epoch, that the file cannot be written."""
    path = check_path("checkpoint", checkpoint)
    if path.is_dir():
        raise InvalidValueError(f"checkpoint: {str(path)!r} is a folder. Expected a file.")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise InvalidValueError(
            f"checkpoint: {str(path)!r} cannot be written: {str(nearest)!r} is not a writable folder."
        )
    return path


def _check_resume(resume: bool, checkpoint: Any) -> bool:
    if check_flag("resume", resume) and checkpoint is None:
        raise InvalidValueError("resume: needs checkpoint=PATH, got None.")
    return bool(resume)
