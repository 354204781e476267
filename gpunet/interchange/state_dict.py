"""Weights under the names of PyTorch's modules, in memory and in safetensors files: written, and read from others."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends.half import widen
from gpunet.data.scaling import Scaling
from gpunet.errors import (
    FileFormatError,
    InvalidTypeError,
    InvalidValueError,
    MissingFileError,
    ShapeError,
    shown,
    wrong_ending,
)
from gpunet.files import as_path, replacing
from gpunet.interchange.whole_model import FilledIn, Step, WholeModel, whole_model
from gpunet.network import Network, on_network
from gpunet.serialization import require_safetensors
from gpunet.validation import check_flag, is_sequence, read_array

Array = npt.NDArray[Any]

# What PyTorch calls the numbers of a linear layer and of batch norm.
LINEAR = {"weight": "W", "bias": "b"}
BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "running_mean",
    "running_var": "running_variance",
}
_COUNT = "num_batches_tracked"
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}


def state_dict(whole: WholeModel) -> dict[str, Array]:
    """Return a model's numbers under the names that :func:`gpunet.to_torch` gives its modules, in their order."""
    network = whole.network
    values = network.get_parameters() | network.get_state()
    found: dict[str, Array] = {}
    for name, step in named_steps(whole):
        found |= {f"{name}.{part}": values for part, values in numbers(step).items()}
    for number in range(1, len(network.layer_sizes)):
        for kind, names in (("linear", LINEAR), ("batch_norm", BATCH_NORM)):
            here = {theirs: f"{ours}{number}" for theirs, ours in names.items()}
            found |= {f"{kind}{number}.{theirs}": values[ours] for theirs, ours in here.items() if ours in values}
        if f"running_mean{number}" in values:
            found[f"batch_norm{number}.{_COUNT}"] = np.array(network.steps, np.int64)
    if whole.target_scaling is not None:
        found |= {f"target_scaling.{part}": values for part, values in numbers(whole.target_scaling).items()}
    return found


def named_steps(whole: WholeModel) -> list[tuple[str, Step]]:
    """Return the steps before the network and what they are called: ``imputation1``, ``scaling2``."""
    kinds = {FilledIn: "imputation", Scaling: "scaling"}
    return [(f"{kinds[type(step)]}{place}", step) for place, step in enumerate(whole.steps, start=1)]


def numbers(step: Step) -> dict[str, Array]:
    """Return the numbers of a step, by the names of its own attributes."""
    return {
        name: np.asarray(values, np.int64 if name == "indicated" else np.float64) for name, values in vars(step).items()
    }


def export_safetensors(network: Any, path: str | os.PathLike[str], *, bare: bool = False) -> Path:
    """Write a model's numbers for other tools: those of :func:`gpunet.to_torch`'s ``state_dict()``, by the same names.

    ``linear1.weight`` is W1, ``batch_norm1.weight`` gamma1, ``batch_norm1.bias`` beta1, ``scaling1.offset`` and
    ``scaling1.scale`` are what raw rows are scaled with, in float64; where missing values are filled in before,
    ``imputation1.fill`` and ``imputation1.indicated`` are what with, and which columns have an indicator. Needs no
    PyTorch. gpunet's own files, which ``network.save`` writes, are safetensors too, under gpunet's names: W1, b1, ...

    Parameters
    ----------
    network : Network, MLPClassifier or MLPRegressor
    path : path
        Ends in ``.safetensors``. Missing folders are created; an older file is replaced at once or not at all.
    bare : bool
        Whether to leave scaling out.

    Returns
    -------
    Path

    Raises
    ------
    InvalidTypeError, FileFormatError
        As :func:`gpunet.export_onnx`.
    InvalidValueError
        The file name has another ending.
    MissingDependencyError
        The package safetensors is not installed.
    OSError
        The file cannot be written.
    """
    whole = whole_model(network, bare=check_flag("bare", bare))
    path = as_path(path)
    if path.suffix != ".safetensors":
        raise wrong_ending("path", path, [".safetensors"])
    content = require_safetensors().numpy.save(state_dict(whole), {"format": "pt"})
    with replacing(path) as file:
        file.write(content)
    return path


@on_network
def load_state_dict(
    network: Network,
    source: Mapping[str, npt.ArrayLike] | str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
) -> None:
    """Set a network's weights to those that another tool has under the names of its modules.

    The first module with a matrix ``weight`` (out, in) gives W1, the second W2; its ``bias`` gives b1, and zeros where
    it has none. The first module with ``running_mean`` and ``running_var`` belongs to the first hidden layer with batch
    norm; its ``weight`` is gamma, its ``bias`` beta. Whatever the modules are called: ``0.weight``,
    ``encoder.layer.0.dense.weight``, ``linear1.weight``.

    Parameters
    ----------
    network : Network
        With the layers of the other model; scaling and class names are no part of this.
    source : mapping of str to array, or path
        A ``state_dict()`` of PyTorch, or a ``.safetensors`` file. A file has no order of its own: its modules are taken
        in the order of their names, numbers in them by value.
    layers : sequence of str, or None
        The modules in order (``["encoder.0", "encoder.1", "head"]``), where that is another; others are left out then.

    Raises
    ------
    InvalidValueError
        A module that is neither, or too few or too many of them; the message names it.
    ShapeError, NonFiniteError, InvalidTypeError
        Numbers that the network cannot have. Nothing has been set then.
    MissingFileError, FileFormatError
        There is no such file; or it is damaged, or has a dtype that is not float.
    MissingDependencyError
        A file, and the package safetensors is not installed.
    """
    is_file = not isinstance(source, Mapping)
    tensors = source if isinstance(source, Mapping) else _read(as_path(source, "source"))
    modules = _modules(tensors)
    if layers is None:
        order = sorted(modules, key=_natural) if is_file else list(modules)
    else:
        if isinstance(layers, str) or not is_sequence(layers):
            raise InvalidTypeError(f"layers: got {shown(layers)}. Expected a list of the names of modules.")
        order = list(layers)
        for name in order:
            if not isinstance(name, str) or name not in modules:
                raise InvalidValueError(
                    f"layers: {shown(name)} is none of the modules: {', '.join(sorted(modules, key=_natural))}."
                )
    linear = [name for name in order if "running_mean" not in modules[name]]
    norms = [name for name in order if "running_mean" in modules[name]]
    with_norm = [place for place, has_norm in enumerate(network.batch_norm, start=1) if has_norm]
    for called, found, expected in (
        ("linear layers", linear, len(network.layer_sizes) - 1),
        ("batch norms", norms, len(with_norm)),
    ):
        if len(found) != expected:
            raise InvalidValueError(
                f"source: has {len(found)} {called} ({', '.join(found) or 'none'}), and the network {expected}. "
                "Expected as many; layers=[...] says which modules to take, in order."
            )
    values: dict[str, Any] = {
        name: np.zeros(shape) for name, shape in network.shapes.items() if re.fullmatch(r"b\d+", name)
    }
    for names, places, kinds in (
        (linear, range(1, len(linear) + 1), LINEAR),
        (norms, with_norm, BATCH_NORM),
    ):
        for name, place in zip(names, places, strict=True):
            values |= _translated(network, name, modules[name], kinds, place)
    network.set_parameters(values)


def _translated(
    network: Network, module: str, parts: Mapping[str, Any], kinds: Mapping[str, str], place: int
) -> dict[str, Any]:
    """Return what a module gives to layer ``place`` of the network, by the network's names."""
    values: dict[str, Any] = {}
    for part, tensor in parts.items():
        if part == _COUNT:
            continue
        entry = f"{module}.{part}".removeprefix(".")
        name = f"{kinds.get(part)}{place}"
        if name not in network.shapes:
            hint = " bias_before_batch_norm=True makes one that has." if name.startswith("b") and part == "bias" else ""
            raise InvalidValueError(f"source: {entry!r} is nothing that the network has in layer {place}.{hint}")
        array = read_array(f"source: {entry!r}", network.on_host(entry, tensor))
        if array.shape != network.shapes[name]:
            raise ShapeError(
                f"source: {entry!r} has shape {array.shape}. Expected {network.shapes[name]}, that of {name}; "
                "layers=[...] says which modules to take, in order."
            )
        values[name] = array
    missing = [part for part, name in kinds.items() if f"{name}{place}" in network.shapes and part not in parts]
    if [part for part in missing if part != "bias" or kinds is BATCH_NORM]:
        raise InvalidValueError(f"source: {module!r} lacks {missing[0]!r}, which layer {place} of the network has.")
    return values


def _modules(tensors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the parts of each module, by their names."""
    found: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise InvalidTypeError(f"source: has the name {shown(name)}. Expected text.")
        module, _, part = name.rpartition(".")
        found.setdefault(module, {})[part] = tensor
    return found


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return what sorts names as people do: ``layer2`` before ``layer10``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _read(path: Path) -> dict[str, Array]:
    """Return the tensors of a safetensors file, those of 16 bits as float32."""
    safetensors = require_safetensors()
    if not path.is_file():
        raise MissingFileError(f"source: there is no file {str(path)!r}.")
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        reason = " ".join(str(error).split())
        raise FileFormatError(f"source: {str(path)!r} cannot be read as safetensors ({reason}).") from None
    found: dict[str, Array] = {}
    for name, entry in entries:
        if entry["dtype"] not in _DTYPES:
            raise FileFormatError(
                f"source: {str(path)!r} holds {name!r} as {entry['dtype']}. Expected one of {', '.join(_DTYPES)}."
            )
        array = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        is_half = entry["dtype"] in ("F16", "BF16")
        found[name] = widen(np, array.astype(array.dtype.newbyteorder("="))) if is_half else array
    return found
