"""The arguments of the shell commands."""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import gpunet
from gpunet.cli import evaluate, info, predict, train
from gpunet.data import NAMED_SETS
from gpunet.data.targets import TASKS
from gpunet.errors import InvalidValueError
from gpunet.optimizers import OPTIMIZERS
from gpunet.serialization import SUFFIXES

DATA_HELP = f"{', '.join(NAMED_SETS)}, a .csv file, or an .npz file with arrays X and y"
MODEL_HELP = f"a file that 'gpunet train' wrote ({' or '.join(SUFFIXES)})"
DEVICE_HELP = "auto, cpu, cuda, cuda:1, ... (auto: CUDA where it works)"
# scikit-learn's random_state takes no more.
LARGEST_SEED = 2**32 - 1
LARGEST_WIDTH = 1_000_000


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are exceptions: ``main`` prints them in one line."""

    def error(self, message: str) -> NoReturn:
        raise InvalidValueError(f"{message} (see {self.prog} --help)")


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; a flag that does not exist is answered with the nearest one that does.

    Raises
    ------
    InvalidValueError
    """
    arguments, unknown = parser.parse_known_args(argv)
    if not unknown:
        return arguments
    command: argparse.ArgumentParser = arguments.parser
    flags = [flag for flag in command._option_string_actions if flag.startswith("--")]
    near = difflib.get_close_matches(unknown[0].split("=")[0], flags, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    command.error(f"the argument {unknown[0]!r} is not known.{hint}")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; a parsed namespace has ``run``, the function of its command."""
    parser = _Parser(
        prog="gpunet",
        description="Train k-layer fully connected networks, on CUDA where there is a GPU.",
        epilog="Example: gpunet train digits --layers 128,128 --epochs 20",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gpunet {gpunet.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
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
    _command(commands, "info", info.run, "print versions, devices, and what is missing for a GPU", "gpunet info --json")
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
        "--initializer", metavar="NAME", help="he_normal, xavier_uniform, normal(0.01), ... (default: by activation)"
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
    files.add_argument("--out", type=Path, metavar="DIR", help="for model and history (default: runs/NAME of the data)")
    files.add_argument("--checkpoint", action="store_true", help="write DIR/checkpoint.safetensors after each epoch")
    files.add_argument(
        "--resume", action="store_true", help="go on from DIR/checkpoint.safetensors, with the same options"
    )


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("data", metavar="DATA", help=f"{DATA_HELP}; the targets may be missing")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="write a table instead of printing")
    parser.add_argument("--probabilities", action="store_true", help="add a column per class")
    parser.add_argument("--device", default="auto", metavar="NAME", help=DEVICE_HELP)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "--all", action="store_true", help="also the rows it was trained on (default: of the training data, the rest)"
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help=DEVICE_HELP)


def whole_number(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return a reader of integers in a range, for ``type=``."""
    expected = f"an integer of at least {minimum}" if maximum is None else f"an integer from {minimum} to {maximum}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}") from None
        if value < minimum or (maximum is not None and value > maximum):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return read


def number(minimum: float, *, above: bool = False, below: float = math.inf) -> Callable[[str], float]:
    """Return a reader of finite numbers of at least (or above) a minimum and below a maximum, for ``type=``."""
    expected = f"a finite number {'above' if above else 'of at least'} {minimum:g}"
    if below < math.inf:
        expected += f" and below {below:g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}") from None
        # A comparison with NaN is False, so NaN fails the first one.
        if not minimum <= value < below or (above and value == minimum):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return read


def widths(text: str) -> list[int]:
    """Read ``--layers``: ``"128,64"``."""
    read = whole_number(1, LARGEST_WIDTH)
    try:
        return [read(part) for part in text.split(",")]
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}. Expected hidden widths such as 128,64") from None
