"""Checkpoints: everything that a run needs to go on exactly where it stopped.

The random state is the seed and the step count, because every random number is a function of those (see
:mod:`gpunet.random`); so a checkpoint is the weights, the running averages, the optimiser's moments and step, and
the history.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.errors import FileFormatError, InvalidValueError, ResumeWarning, warn_user
from gpunet.layer_stack import LARGEST_STEP
from gpunet.mixed_precision import LossScale
from gpunet.network import Network
from gpunet.optimizers import Optimizer
from gpunet.parameters import Layout, flat_values
from gpunet.serialization import open_tensors, write_tensors
from gpunet.training.early_stopping import BestRecord, BestWeights, EarlyStopping
from gpunet.training.history import History
from gpunet.training.identity import RunIdentity, check_same
from gpunet.training.snapshot import Snapshot
from gpunet.training.weight_average import AveragedWeights, AverageRecord
from gpunet.validation import check_integer, check_json, check_number

Array = npt.NDArray[Any]

FORMAT = "gpunet.checkpoint"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read and checked, and changes nothing until it is applied.

    Attributes
    ----------
    values : dict of str to ndarray
        Parameters and running averages.
    moments : dict of str to ndarray, (p,)
        The optimiser's.
    steps, optimizer_step : int
    schedule : dict
        What the schedule of the learning rate has observed.
    loss_scale : dict or None
        Of a float16 network.
    history : History
    best : BestRecord or None
        Where early stopping stood.
    average : AverageRecord or None
    """

    values: dict[str, Array]
    moments: dict[str, Array]
    steps: int
    optimizer_step: int
    schedule: dict[str, Any]
    loss_scale: dict[str, Any] | None
    history: History
    best: BestRecord | None
    average: AverageRecord | None

    def apply(
        self, network: Network, optimizer: Optimizer, best: BestWeights | None, averages: AveragedWeights | None
    ) -> None:
        """Put network, attached optimiser, early stopping and average into the checkpoint's state."""
        network.set_parameters(self.values)
        network.set_step(self.steps)
        if network.loss_scale is not None and self.loss_scale is not None:
            network.loss_scale.restore(self.loss_scale)
        optimizer.step = self.optimizer_step
        optimizer.schedule.restore(self.schedule)
        for name, flat in self.moments.items():
            network.backend.copy(flat, optimizer.moments[name])
        self.history.stopped_early = False
        if best is not None and self.best is not None:
            best.continue_from(self.best)
            self.history.stopped_early = best.is_over
        if averages is not None and self.average is not None:
            averages.continue_from(self.average)


def write_checkpoint(
    path: str | os.PathLike[str],
    network: Network,
    optimizer: Optimizer,
    history: History,
    best: BestWeights | None,
    averages: AveragedWeights | None,
    identity: RunIdentity,
) -> Path:
    """Write the state of a run after an epoch; the file appears whole or not at all.

    Parameters
    ----------
    path : path
        Ends in ``.safetensors`` or ``.npz``.
    identity : RunIdentity
        What must be the same for the run to go on as it began.
    """
    tensors = network.get_parameters() | network.get_state()
    for moment, flat in optimizer.moments.items():
        tensors |= _prefixed(moment, network.layout.views(network.backend.to_numpy(flat)))
    header: dict[str, Any] = identity.to_header(optimizer) | {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "metadata": check_json("metadata", network.metadata),
        "steps": network.steps,
        "optimizer_step": optimizer.step,
        "schedule": optimizer.schedule.state,
        "loss_scale": network.loss_scale_state,
        "history": history.to_dict(),
        "best": None,
        "average": None,
    }
    if averages is not None:
        tensors |= _tensors("average", averages.average)
        header["average"] = {"updates": averages.updates}
    if best is not None and best.epoch is not None:
        tensors |= _tensors("best", best.snapshot)
        header["best"] = {
            "monitor": best.rule.monitor,
            "value": best.value,
            "epoch": best.epoch,
            "waited": best.waited,
            "steps": best.snapshot.steps,
        }
    return write_tensors(path, tensors, header)


def read_checkpoint(
    path: str | os.PathLike[str],
    network: Network,
    optimizer: Optimizer,
    early_stopping: EarlyStopping | None,
    identity: RunIdentity,
    epochs: int,
    *,
    warns: bool = True,
) -> Checkpoint:
    """Read a checkpoint of this very run.

    Where epochs are left to do, and their bits may differ from those of an uninterrupted run, this warns with
    :class:`gpunet.ResumeWarning`; unless ``warns`` is False, where another rank does.

    Raises
    ------
    MissingFileError, FileFormatError
        The file does not exist, is damaged or is no checkpoint.
    InvalidValueError
        The checkpoint is of another network, optimiser, other settings or data.
    """
    with open_tensors(path, "checkpoint") as stored:
        header = stored.header
        notes = _check_header(path, header, stored.shapes, optimizer, early_stopping, identity)
        shapes = network.shapes | _shapes(optimizer.moment_names, network.layout)
        for one in ("best", "average"):
            if header.get(one) is not None:
                shapes |= _shapes([one], network.layout) | _shapes([one], network.state_layout)
        tensors = stored.read(shapes)
    try:
        checkpoint = _parse(tensors, header, network, optimizer, identity)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FileFormatError(f"checkpoint: {str(path)!r} is damaged ({error}).") from None
    if warns and len(checkpoint.history) < epochs:
        for text in notes:
            warn_user(f"checkpoint: {str(path)!r}: {text}.", ResumeWarning)
    return checkpoint


def _check_header(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    names: Iterable[str],
    optimizer: Optimizer,
    early_stopping: EarlyStopping | None,
    identity: RunIdentity,
) -> list[str]:
    """Refuse what is no checkpoint of this run, and return why its bits may differ from an uninterrupted one's."""
    if header.get("format") != FORMAT or header.get("version") != FORMAT_VERSION:
        found = f"{header.get('format')} version {header.get('version')}"
        raise FileFormatError(f"checkpoint: {str(path)!r} holds {found}. Expected {FORMAT} version {FORMAT_VERSION}.")
    try:
        notes = identity.compare(header, repr(str(path)))
        if "hyperparameters" not in header:
            _check_moments(path, names, optimizer)
        if early_stopping is not None and header["best"] is not None:
            check_same(repr(str(path)), "a run", header["best"], {"monitor": early_stopping.monitor})
    except (KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"checkpoint: {str(path)!r} has a damaged header ({error}).") from None
    return notes


def _check_moments(path: str | os.PathLike[str], names: Iterable[str], optimizer: Optimizer) -> None:
    """Tell another momentum, which older checkpoints do not record, from damage: SGD has moments only with one."""
    found = {name.partition(".")[0] for name in names if "." in name} - {"best", "average"}
    if not found and optimizer.moment_names:
        raise InvalidValueError(f"checkpoint: {str(path)!r} is of an optimizer with momentum=0.0. Expected another.")
    if found and not optimizer.moment_names:
        raise InvalidValueError(f"checkpoint: {str(path)!r} is of an optimizer with a momentum. Expected none.")


def _parse(
    tensors: Mapping[str, Array],
    header: Mapping[str, Any],
    network: Network,
    optimizer: Optimizer,
    identity: RunIdentity,
) -> Checkpoint:
    layouts = network.layout, network.state_layout
    values = {name: tensors[name] for layout in layouts for name in layout.specs}
    history = History.from_dict(header["history"])
    steps = check_integer("steps", header["steps"], 0, LARGEST_STEP)
    if not history.records or history.records[-1].step != steps:
        raise ValueError(f"the history does not end with step {steps}")
    best = None
    if header["best"] is not None:
        epoch = check_integer("best epoch", header["best"]["epoch"], 1, len(history))
        best = BestRecord(
            value=check_number("best value", header["best"]["value"], minimum=-math.inf),
            epoch=epoch,
            waited=check_integer("best waited", header["best"]["waited"], 0, len(history) - epoch),
            steps=check_integer("best steps", header["best"]["steps"], 0, steps),
            parameters=_flat(tensors, "best", layouts[0], network.dtype),
            state=_flat(tensors, "best", layouts[1], network.dtype),
        )
    average = None
    if header.get("average") is not None:
        average = AverageRecord(
            updates=check_integer("average updates", header["average"]["updates"], 0, steps),
            parameters=_flat(tensors, "average", layouts[0], network.dtype),
            state=_flat(tensors, "average", layouts[1], network.dtype),
        )
    loss_scale = header.get("loss_scale")
    if loss_scale is not None:
        LossScale.check(loss_scale)
    checkpoint = Checkpoint(
        values=values,
        moments={name: _flat(tensors, name, layouts[0], network.dtype) for name in optimizer.moment_names},
        steps=steps,
        optimizer_step=check_integer("optimizer_step", header["optimizer_step"], 0, LARGEST_STEP),
        schedule=_observed(header, optimizer, identity),
        loss_scale=loss_scale,
        history=history,
        best=best,
        average=average,
    )
    network.check_values(values)
    return checkpoint


def _observed(header: Mapping[str, Any], optimizer: Optimizer, identity: RunIdentity) -> dict[str, Any]:
    """Return what the optimiser's schedule has to go on from: another one than the checkpoint's begins anew."""
    schedule = copy.deepcopy(optimizer.schedule)
    schedule.reset()
    if header.get("learning_rate") == identity.learning_rate and "schedule" in header:
        schedule.restore(header["schedule"])
    return schedule.state


def _shapes(prefixes: Iterable[str], layout: Layout) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.{name}": spec.shape for prefix in prefixes for name, spec in layout.specs.items()}


def _tensors(prefix: str, snapshot: Snapshot) -> dict[str, Array]:
    network, vectors = snapshot.network, (snapshot.parameters, snapshot.state)
    named: dict[str, Array] = {}
    for layout, vector in zip((network.layout, network.state_layout), vectors, strict=True):
        named |= _prefixed(prefix, layout.views(network.backend.to_numpy(vector)))
    return named


def _prefixed(prefix: str, views: dict[str, Array]) -> dict[str, Array]:
    return {f"{prefix}.{name}": np.array(view) for name, view in views.items()}


def _flat(tensors: Mapping[str, Array], prefix: str, layout: Layout, dtype: np.dtype[Any]) -> Array:
    flat = flat_values(layout, {name: tensors[f"{prefix}.{name}"] for name in layout.specs}, dtype)
    if not np.isfinite(flat).all():
        raise ValueError(f"{prefix} holds NaN or infinity")
    return flat
