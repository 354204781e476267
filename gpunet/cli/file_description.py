"""What ``gpunet info FILE`` tells of a model or a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpunet.activations import OwnActivation
from gpunet.data import Preparation
from gpunet.errors import FileFormatError, counted
from gpunet.layers import CustomLoss
from gpunet.network import FORMAT
from gpunet.network_file import described_network, own_activations, own_loss
from gpunet.serialization import StoredTensors, open_tensors
from gpunet.training.checkpoint import FORMAT as CHECKPOINT_FORMAT

RIGHT, WRONG, NONE = "right", "wrong", "none"
_KINDS = {FORMAT: "model", CHECKPOINT_FORMAT: "checkpoint"}
_DIGESTS = {
    RIGHT: "right: the file is as it was written",
    WRONG: "wrong: the file has been damaged or changed since it was written",
    NONE: "none: an old file, or one that others wrote, so that damage would not be noticed",
}


class _KnownByName(OwnActivation):
    """An activation of the user's own as a file holds it: without the function, which no description needs."""

    def __init__(self, name: str) -> None:
        self.name = name


def _loss_known_by_name(name: str) -> CustomLoss:
    """Return a loss that has the name of the user's own, and the value 0."""
    return CustomLoss(
        name, value=lambda outputs, _: np.zeros_like(outputs[:, 0]), gradient=lambda outputs, _: np.zeros_like(outputs)
    )


def describe_file(path: str) -> dict[str, Any]:
    """Return what a file is, what network it holds, from which data, and whether it is whole, as JSON can hold it.

    Raises
    ------
    GpunetError
        It is neither a model nor a checkpoint, or too damaged to be described.
    """
    with open_tensors(path, "FILE") as stored:
        kind = _KINDS.get(str(stored.header.get("format")))
        if kind is None:
            raise FileFormatError(f"FILE: {path!r} holds {stored.header.get('format')!r}, no model and no checkpoint.")
        try:
            return {"file": path, "kind": kind, "bytes": Path(path).stat().st_size} | _content(path, kind, stored)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(f"FILE: {path!r} does not describe a network ({error}).") from None


def _content(path: str, kind: str, stored: StoredTensors) -> dict[str, Any]:
    header = stored.header
    own = own_activations(header["network"])
    loss = own_loss(header["network"])
    network = described_network(
        header["network"],
        stored,
        "cpu",
        {name: _KnownByName(name) for name in own},
        None if loss is None else _loss_known_by_name(loss),
    )
    tensors = stored.read(network.shapes if kind == "model" else None, check_digest=False)
    content: dict[str, Any] = {
        "gpunet": stored.version,
        "digest": NONE if stored.digest is None else RIGHT if stored.fits_digest(tensors) else WRONG,
        "layers": list(network.layer_sizes),
        "parameters": network.parameter_count,
        "activation": [str(activation) for activation in network.activations],
        "own_activations": own,
        "batch_norm": network.batch_norm,
        "loss": network.loss,
        "own_loss": loss is not None,
        "dtype": network.dtype.name,
        "precision": network.precision,
        "steps": header["steps"],
    }
    if kind == "checkpoint":
        content |= {"epochs": len(header["history"]["epochs"]), "optimizer": header["optimizer"]}
    metadata = header.get("metadata", {})
    content["data"] = None
    if "data" in metadata:
        data = Preparation.from_metadata(metadata, network.layer_sizes, path)
        content["data"] = {
            "name": data.data_set,
            "task": data.task,
            "target": data.target_name,
            "features": data.feature_names,
            "inputs": [column.name for column in data.input_columns],
            "class_names": data.class_names,
            "fingerprint": data.fingerprint,
        }
    return content


def description_lines(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Return names and values to print."""
    sizes, parameters = "-".join(map(str, content["layers"])), content["parameters"]
    numbers = content["dtype"] if content["precision"] == "float32" else content["precision"]
    lines = [
        ("file", f"{content['file']}, {content['bytes']:,} bytes"),
        ("kind", content["kind"]),
        (
            "written by",
            f"gpunet {content['gpunet']}" if content["gpunet"] else "unknown: the file does not say",
        ),
        ("digest", _DIGESTS[content["digest"]]),
        ("layers", f"{sizes}, {counted(parameters, 'parameter')}, {numbers}"),
        ("activations", ", ".join(content["activation"]) or "none"),
        *(
            [("own functions", f"{', '.join(own)}: gpunet.load(..., activations=[...]) has to be given them")]
            if (own := content["own_activations"])
            else []
        ),
        *([("own loss", "gpunet.load(..., loss=...) has to be given it")] if content["own_loss"] else []),
        ("batch norm", ", ".join("yes" if flag else "no" for flag in content["batch_norm"]) or "none"),
        ("loss", content["loss"]),
        ("steps", str(content["steps"])),
    ]
    if content["kind"] == "checkpoint":
        lines.append(("training", f"{counted(content['epochs'], 'epoch')} done, with {content['optimizer']}"))
    data = content["data"]
    if data is None:
        lines.append(("data", "none named: 'gpunet train' did not write it"))
    else:
        what = counted(len(data["class_names"]), "class") if data["class_names"] else f"the numbers {data['target']}"
        features, inputs = len(data["features"]), len(data["inputs"])
        made = "" if features == inputs else f" as {counted(inputs, 'input')}"
        lines.append(("data", f"{data['name']}, {data['task']}: {counted(features, 'feature')}{made}, {what}"))
    return lines
