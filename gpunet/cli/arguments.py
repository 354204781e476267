"""The arguments of the shell commands."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import gpunet
from gpunet.cli import bench, evaluate, info, kernels, lecture, predict, train
from gpunet.cli.readers import csv_file, folder, names, number, whole_number, widths
from gpunet.data import NAMED_SETS
from gpunet.data.splits import LARGEST_SEED
from gpunet.data.targets import TASKS
from gpunet.errors import InvalidValueError
from gpunet.optimizers import OPTIMIZERS
from gpunet.serialization import SUFFIXES

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

DATA_HELP = f"{', '.join(NAMED_SETS)}, a .csv file, or an .npz file with arrays X and y"
MODEL_HELP = f"a file that 'gpunet train' wrote ({' or '.join(SUFFIXES)})"
DEVICE_HELP = "auto, cpu, cuda, cuda:1, ... (auto: CUDA where it works)"
EXIT_NOTHING_ASKED = 2
# What others call some flags, where the names are too far apart for a comparison of letters.
OTHER_NAMES = {"--lr": "--learning-rate", "--hidden": "--layers", "--bs": "--batch-size"}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are exceptions: ``main`` prints them in one line."""

    def error(self, message: str) -> NoReturn:
        raise InvalidValueError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        # argparse drops the errors of writing help and version, so that a closed pipe would go unnoticed.
        print(message, end="", file=file)


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; a flag that does not exist is answered with the nearest one that does.

    Raises
    ------
    InvalidValueError
    SystemExit
        After the help, which also answers a call without a command.
    """
    arguments, unknown = parser.parse_known_args(argv)
    command: argparse.ArgumentParser = getattr(arguments, "parser", parser)
    if unknown:
        command.error(f"the argument {unknown[0]!r} is not known.{_nearest_flag(command, unknown[0])}")
    if not hasattr(arguments, "run"):
        command.print_help()
        raise SystemExit(EXIT_NOTHING_ASKED)
    return arguments


def in_options(message: str, command: argparse.ArgumentParser) -> str:
    """Return a message of the library, which speaks of arguments, with the options that set them here.

    ``batch_size: 1 is`` becomes ``--batch-size: 1 is``, and ``task="regression"`` becomes ``--task regression``; where
    an argument has no option, as the name of an experiment, ``name: 'x' is`` becomes ``NAME: 'x' is``.
    """
    for action in command._get_positional_actions():
        message = re.sub(rf"^{action.dest}(?=: )", str(action.metavar or action.dest), message)
    for flag in command._option_string_actions:
        argument = re.escape(flag.removeprefix("--").replace("-", "_"))
        message = re.sub(rf"^{argument}(?=: )", flag, message)
        message = re.sub(rf'\b{argument}="(\w+)"', rf"{flag} \1", message)
    return message


def _nearest_flag(command: argparse.ArgumentParser, unknown: str) -> str:
    wrong = unknown.split("=")[0]
    flags = [flag for flag in command._option_string_actions if flag.startswith("--")]
    near = difflib.get_close_matches(wrong, flags, n=1)
    if OTHER_NAMES.get(wrong) in flags:
        near = [OTHER_NAMES[wrong]]
    return f" Did you mean {near[0]}?" if near else ""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; a parsed namespace has ``run``, the function of its command."""
    parser = _Parser(
        prog="gpunet",
        description="Train k-layer fully connected networks, on CUDA where there is a GPU.",
        epilog="Example: gpunet train digits --layers 128,128 --epochs 20",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gpunet {gpunet.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    _add_train(_command(commands, "train", train.run, "train a network", "gpunet train iris.csv --target species"))
    _add_predict(
        _command(
            commands,
            "predict",
            predict.run,
            "print a model's predictions",
            "gpunet predict runs/iris/model.safetensors new.csv --out predictions.csv",
        )
    )
    _add_evaluate(
        _command(
            commands,
            "evaluate",
            evaluate.run,
            "print a model's loss, accuracy and confusions",
            "gpunet evaluate runs/digits/model.safetensors digits",
        )
    )
    _add_lecture(
        _command(
            commands,
            "lecture",
            lecture.run,
            "run the experiments of the lecture on k-layer networks",
            "gpunet lecture initialization --out runs/lecture",
        )
    )
    _add_info(
        _command(
            commands,
            "info",
            info.run,
            "print versions, devices, and what is missing for a GPU; of a FILE, what it holds and whether it is whole",
            "gpunet info runs/digits/model.safetensors",
        )
    )
    _add_kernels(commands)
    _add_bench(commands)
    return parser


def _command(
    commands: argparse._SubParsersAction[_Parser],
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"Example: {example}",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run, parser=parser)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no notes")
    parser.add_argument("--compare-sklearn", action="store_true", help="train scikit-learn's MLP on the same rows too")

    parser.add_argument(
        "--diagnose",
        action="store_true",
        help="write figures of activations, gradients, dead and saturated units, and say what looks wrong",
    )

    data = parser.add_argument_group("data")
    data.add_argument("--target", metavar="NAME", help="the target column of a .csv file")
    data.add_argument("--task", choices=TASKS, help="numbers as targets need it (default: classification)")
    data.add_argument(
        "--seed",
        type=whole_number(0, LARGEST_SEED),
        default=0,
        metavar="N",
        help="of split, weights and order (default: 0)",
    )

    network = parser.add_argument_group("network")
    network.add_argument(
        "--layers", type=widths, default=[128, 128], metavar="M1,M2,...", help="hidden widths (default: 128,128)"
    )
    network.add_argument(
        "--activation", default="relu", metavar="NAME", help="relu, leaky_relu(0.1), elu, tanh, ... (default: relu)"
    )
    network.add_argument("--no-batch-norm", action="store_true", help="biases instead of batch normalisation")
    network.add_argument(
        "--dropout", type=number(0, below=1), default=0.0, metavar="RATE", help="after each hidden layer (default: 0)"
    )
    network.add_argument(
        "--initializer",
        metavar="NAME",
        help="he_normal, xavier_uniform, normal(0.01), orthogonal, random_walk, lsuv, data_dependent, ... "
        "(default: by activation)",
    )
    network.add_argument("--device", default="auto", metavar="NAME", help=DEVICE_HELP)
    network.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="default: float32")

    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=whole_number(1), default=30, metavar="N", help="default: 30")
    training.add_argument("--batch-size", type=whole_number(1), default=32, metavar="N", help="default: 32")
    training.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="adam", help="default: adam")
    training.add_argument(
        "--learning-rate",
        type=number(0),
        metavar="RATE",
        help="the schedule's largest (default: 0.003; 0.1 with sgd)",
    )
    training.add_argument("--momentum", type=number(0, below=1), metavar="M", help="of sgd (default: 0.9)")
    training.add_argument(
        "--schedule",
        choices=tuple(train.SCHEDULES),
        default="cosine",
        help="step: a tenth after each third of the run; cyclical: three cycles, down to a tenth (default: cosine)",
    )
    training.add_argument(
        "--l2",
        type=number(0),
        metavar="LAMBDA",
        help="adds LAMBDA sum ||W||^2 to the loss (default: 0.001; 0 with adamw, which decays its weights by 0.01)",
    )
    training.add_argument(
        "--patience",
        type=whole_number(1),
        metavar="N",
        help="stop after N epochs without a better validation loss and keep the best weights (default: do not)",
    )
    training.add_argument(
        "--clip-norm", type=number(0, above=True), metavar="NORM", help="the gradient's largest norm (default: none)"
    )
    training.add_argument("--class-weight", choices=("balanced",), help="rare classes count more")

    files = parser.add_argument_group("files")
    files.add_argument(
        "--out", type=folder, metavar="DIR", help="for model and history (default: runs/NAME of the data)"
    )
    files.add_argument("--checkpoint", action="store_true", help="write DIR/checkpoint.safetensors after each epoch")
    files.add_argument(
        "--resume", action="store_true", help="go on from DIR/checkpoint.safetensors, with the same options"
    )


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("data", metavar="DATA", help=f"{DATA_HELP}; the targets may be missing")
    parser.add_argument("--out", type=csv_file, metavar="FILE.csv", help="write a table instead of printing")
    parser.add_argument("--probabilities", action="store_true", help="add a column per class")
    parser.add_argument("--device", default="auto", metavar="NAME", help=DEVICE_HELP)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "--all", action="store_true", help="also the rows it was trained on (default: of the training data, the rest)"
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help=DEVICE_HELP)


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help=f"a model or a checkpoint ({' or '.join(SUFFIXES)}); status 1 if it does not fit its digest",
    )


def _add_lecture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", help="an experiment's name or row (L19); 'list' shows them; 'all' also builds a page"
    )
    parser.add_argument(
        "--out",
        type=folder,
        default=Path("runs") / "lecture",
        metavar="DIR",
        help="for figures, numbers and text (default: runs/lecture)",
    )
    parser.add_argument(
        "--seed", type=whole_number(0, LARGEST_SEED), default=0, metavar="N", help="of everything drawn (default: 0)"
    )
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="auto, cpu, cuda, ... (default: cpu, so that figures repeat)"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, in seconds; what is said need not show")
    parser.add_argument(
        "--jobs", type=whole_number(1), metavar="N", help="experiments at a time, for 'all' (default: the cores)"
    )


def _add_kernels(commands: argparse._SubParsersAction[_Parser]) -> None:
    summary = "check the CUDA kernels, on a machine that needs no GPU"
    parser = commands.add_parser(
        "kernels", help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
    )
    parser.set_defaults(parser=parser)
    check = _command(
        parser.add_subparsers(metavar="COMMAND", dest="kernels_command"),
        "check",
        kernels.run,
        "compile every kernel for every architecture; status 1 where one fails, spills or needs too many registers",
        "gpunet kernels check --arch 80,90 --module batch_norm",
    )
    check.add_argument("--arch", type=names, metavar="LIST", help="compute capabilities such as 80,90 (default: all)")
    check.add_argument("--module", type=names, metavar="LIST", help="files such as batch_norm,dropout (default: all)")
    check.add_argument("--quick", action="store_true", help="of the activations, relu and tanh: a third of the time")
    check.add_argument("--all", action="store_true", help="a line for every kernel")
    check.add_argument("--sass", action="store_true", help="also count the wide memory accesses of the machine code")
    check.add_argument("--update-budgets", action="store_true", help="set the budgets to what is found")
    check.add_argument("--budgets", type=Path, metavar="FILE", help="default: budgets.json beside the kernels")


def _add_bench(commands: argparse._SubParsersAction[_Parser]) -> None:
    summary = "show and compare the benchmarks' results; `make benchmark` in a checkout measures"
    parser = commands.add_parser(
        "bench", help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
    )
    parser.set_defaults(parser=parser)
    subcommands = parser.add_subparsers(metavar="COMMAND", dest="bench_command")
    report = _command(
        subcommands,
        "report",
        bench.run_report,
        "print result files as Markdown: gpunet against each peer, and where it is slower",
        "gpunet bench report --plots figures",
    )
    report.add_argument(
        "files",
        type=Path,
        nargs="*",
        metavar="FILES",
        help="result files (default: the newest of each machine that come with gpunet)",
    )
    report.add_argument("--details", action="store_true", help="also a table of every row with all its numbers")
    report.add_argument("--plots", type=folder, metavar="DIR", help="draw figures there, as PNG and SVG")
    report.add_argument(
        "--update",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE.md",
        help="write the tables between the markers of these files instead of printing them",
    )
    compare = _command(
        subcommands,
        "compare",
        bench.run_compare,
        "say what got slower, faster or wrong between two result files; status 1 if something of gpunet did",
        "gpunet bench compare old.json new.json",
    )
    compare.add_argument("old", type=Path, metavar="OLD", help="a result file")
    compare.add_argument("new", type=Path, metavar="NEW", help="another one of the same machine")
    compare.add_argument("--all", action="store_true", help="list the rows that did not change too")
    for command in (report, compare):
        for flag, example in (("--provider", "torch-eager"), ("--configuration", "a"), ("--mode", "step")):
            command.add_argument(
                flag, action="append", metavar="LIST", help=f"only rows of it, such as {example}; may be repeated"
            )
