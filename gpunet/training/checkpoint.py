"""Checkpoints: everything that a run needs to go on exactly where it stopped.

The random state is the seed and the step count, because every random number is a function of those (see
:mod:`gpunet.random`); so a checkpoint is the weights, the running averages, the optimiser's moments and step, and
the history.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.errors import FileFormatError, InvalidValueError
from gpunet.network import Network
from gpunet.optimizers import Optimizer
from gpunet.parameters import flat_values
from gpunet.serialization import read_tensors, write_tensors
from gpunet.training.early_stopping import BestWeights
from gpunet.training.history import History

Array = npt.NDArray[Any]

FORMAT = "gpunet.checkpoint"
FORMAT_VERSION = 1


def write_checkpoint(
    path: str | os.PathLike[str],
    network: Network,
    optimizer: Optimizer,
    history: History,
    best: BestWeights | None,
    settings: Mapping[str, Any],
) -> Path:
    """Write the state of a run after an epoch; the file appears whole or not at all.

    Parameters
    ----------
    path : path
        Ends in ``.safetensors`` or ``.npz``.
    settings : mapping
        What must be the same for the run to go on as it began: batch size, number of rows, ...
    """
    tensors = network.get_parameters() | network.get_state()
    for moment, flat in optimizer.moments.items():
        tensors |= _prefixed(moment, network.layout.views(network.backend.to_numpy(flat)))
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "network": network.configuration,
        "steps": network.steps,
        "optimizer": optimizer.name,
        "optimizer_step": optimizer.step,
        "settings": dict(settings),
        "history": history.to_dict(),
        "best": None,
    }
    if best is not None and best.epoch is not None:
        tensors |= _prefixed("best", network.layout.views(network.backend.to_numpy(best.snapshot.parameters)))
        tensors |= _prefixed("best", network.state_layout.views(network.backend.to_numpy(best.snapshot.state)))
        header["best"] = {
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
    best: BestWeights | None,
    settings: Mapping[str, Any],
) -> History:
    """Put network, optimiser and early stopping into the state of a checkpoint and return its history.

    Raises
    ------
    MissingFileError, FileFormatError
        The file does not exist or is not a checkpoint.
    InvalidValueError
        The checkpoint is of another network, another optimiser or other settings. Nothing has changed then.
    """
    tensors, header = read_tensors(path)
    if header.get("format") != FORMAT or header.get("version") != FORMAT_VERSION:
        found = f"{header.get('format')} version {header.get('version')}"
        raise FileFormatError(f"checkpoint: {str(path)!r} holds {found}. Expected {FORMAT} version {FORMAT_VERSION}.")
    for name, value in network.configuration.items():
        if header["network"].get(name) != value:
            raise InvalidValueError(
                f"checkpoint: {str(path)!r} is of a network with {name}={header['network'].get(name)!r}. "
                f"Expected {value!r}."
            )
    for name, value in settings.items():
        if header["settings"].get(name) != value:
            found = header["settings"].get(name)
            raise InvalidValueError(f"checkpoint: {str(path)!r} is of a run with {name}={found!r}. Expected {value!r}.")
    if header["optimizer"] != optimizer.name:
        raise InvalidValueError(
            f"checkpoint: {str(path)!r} was made with {header['optimizer']!r}. Expected {optimizer.name!r}."
        )
    try:
        moments = {name: _flat(tensors, name, network.layout, network.dtype) for name in optimizer.moment_names}
        values = {name: tensors[name] for name in (*network.layout.specs, *network.state_layout.specs)}
        best_values = None
        if best is not None and header["best"] is not None:
            best_values = (
                _flat(tensors, "best", network.layout, network.dtype),
                _flat(tensors, "best", network.state_layout, network.dtype),
            )
    except (KeyError, ValueError) as error:
        raise FileFormatError(f"checkpoint: {str(path)!r} lacks the tensor {error}.") from None

    network.set_parameters(values)
    network.set_step(header["steps"])
    optimizer.step = header["optimizer_step"]
    for name, flat in moments.items():
        network.backend.copy(flat, optimizer.moments[name])
    if best is not None and best_values is not None:
        network.backend.copy(best_values[0], best.snapshot.parameters)
        network.backend.copy(best_values[1], best.snapshot.state)
        best.snapshot.steps = header["best"]["steps"]
        best.value, best.epoch, best.waited = (header["best"][key] for key in ("value", "epoch", "waited"))
    return History.from_dict(header["history"])


def _prefixed(prefix: str, views: dict[str, Array]) -> dict[str, Array]:
    return {f"{prefix}.{name}": np.array(view) for name, view in views.items()}


def _flat(tensors: dict[str, Array], prefix: str, layout: Any, dtype: np.dtype[Any]) -> Array:
    return flat_values(layout, {name: tensors[f"{prefix}.{name}"] for name in layout.specs}, dtype)
