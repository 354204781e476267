"""``gpunet export``: a model as a file that other tools run or read, scaling and class names inside."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpunet.cli.arguments import Parser, set_command
from gpunet.cli.models import load_model, refuse_to_replace
from gpunet.cli.options import MODEL_HELP
from gpunet.cli.output import print_json, print_lines
from gpunet.errors import InvalidValueError, counted, wrong_ending
from gpunet.interchange import export_onnx, export_safetensors, export_torch
from gpunet.interchange.state_dict import named_steps
from gpunet.interchange.whole_model import FilledIn, WholeModel, whole_model

# The ending of each format's files, and what writes them.
FORMATS: dict[str, tuple[str, Callable[..., Path]]] = {
    "onnx": (".onnx", export_onnx),
    "torch": (".pt2", export_torch),
    "safetensors": (".safetensors", export_safetensors),
}


def declare(parser: Parser) -> None:
    """Declare the arguments of ``gpunet export``."""
    set_command(parser, run, "gpunet export runs/iris/model.safetensors iris.onnx")
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "path",
        metavar="OUT",
        help="an .onnx graph, a .pt2 program of PyTorch, or weights in .safetensors under PyTorch's names",
    )
    parser.add_argument("--to", choices=FORMATS, help="the format (default: as OUT ends)")
    parser.add_argument("--bare", action="store_true", help="the network alone, without scaling, class names and units")
    for name, what in (
        ("--dtype", "how the graph computes (default: as the network)"),
        ("--input-dtype", "what the graph takes (default: float64 only where float32 would round too much)"),
    ):
        parser.add_argument(name, choices=("float32", "float64"), help=f"of ONNX: {what}")
    parser.set_defaults(device="cpu")


def run(arguments: argparse.Namespace) -> None:
    """Write the file and say what it takes and gives.

    Raises
    ------
    GpunetError, OSError
    """
    kind = arguments.to or _by_ending(Path(arguments.path))
    options: dict[str, Any] = {"bare": arguments.bare}
    if kind == "onnx":
        options |= {"dtype": arguments.dtype, "input_dtype": arguments.input_dtype}
    elif arguments.dtype or arguments.input_dtype:
        name = "--dtype" if arguments.dtype else "--input-dtype"
        raise InvalidValueError(f"{name}: {kind} has what the network has. Expected --to onnx, or no {name}.")
    refuse_to_replace("OUT", Path(arguments.path), arguments.model)
    network = load_model(arguments)
    path = FORMATS[kind][1](network, arguments.path, **options)
    whole = whole_model(network, bare=arguments.bare)
    steps = [name.rstrip("0123456789") for name, _ in named_steps(whole)]
    content = {"model": arguments.model, "out": str(path), "format": kind, "columns": whole.columns}
    content |= {
        "feature_names": None if whole.feature_names is None else list(whole.feature_names),
        "steps": steps,
        "class_names": None if whole.classes is None else whole.classes.tolist(),
        "target_units": whole.target_scaling is not None,
    }
    if arguments.json:
        print_json(content)
    else:
        print_lines(f"{path}: {kind}, {_summary(whole)}")


def _by_ending(path: Path) -> str:
    for kind, (ending, _) in FORMATS.items():
        if path.suffix == ending:
            return kind
    raise wrong_ending("OUT", path, [ending for ending, _ in FORMATS.values()])


def _summary(whole: WholeModel) -> str:
    """Return what the model takes, and what of its answers is inside."""
    columns = counted(whole.columns, "column")
    parts = [f"takes raw rows of {columns}" if whole.steps else f"takes {columns} as the network does"]
    if any(isinstance(step, FilledIn) for step in whole.steps):
        parts.append("fills in missing values")
    if whole.classes is not None:
        parts.append(f"knows {counted(len(whole.classes), 'class name')}")
    if whole.target_scaling is not None:
        parts.append("answers in the target's units")
    return ", ".join(parts)
