"""The shell commands by name. Each is a module that declares its arguments beside what it runs."""

from __future__ import annotations

import gpunet
from gpunet.cli.arguments import Parser, add_command
from gpunet.cli.completion import SHELLS, PrintCompletion

COMMANDS = {
    "train": "train a network",
    "predict": "print a model's predictions",
    "evaluate": "print a model's loss, accuracy and confusions",
    "export": "write a model for other tools: ONNX, PyTorch, safetensors; scaling and class names inside",
    "lecture": "run the experiments of the lecture on k-layer networks",
    "info": "print versions, devices, and what is missing for a GPU; of a FILE, what it holds and whether it is whole",
    "verify": "check a GPU, or the CPU: every operation against the specification; status 1 where one is wrong",
    "tune": "measure which launch plans are the fastest on a GPU; networks on it follow them from then on",
    "kernels": "check the CUDA kernels, on a machine that needs no GPU",
    "bench": "show and compare the benchmarks' results; `make benchmark` in a checkout measures",
}


def build_parser() -> Parser:
    """Return the parser; a parsed namespace has ``run``, the function of its command, and ``parser``, its parser."""
    parser = Parser(
        prog="gpunet",
        description="Train k-layer fully connected networks, on CUDA where there is a GPU.",
        epilog="Example: gpunet train digits --layers 128,128 --epochs 20",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gpunet {gpunet.__version__}")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        metavar="SHELL",
        help=f"print a completion script for {', '.join(SHELLS)}",
    )
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    for name, summary in COMMANDS.items():
        add_command(commands, name, summary).module = f"gpunet.cli.{name}"
    return parser
