"""The parser of the shell commands: how one is declared, and what it says to arguments that it does not know."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from gpunet.errors import InvalidValueError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

EXIT_NOTHING_ASKED = 2
# What others call some flags, where the names are too far apart for a comparison of letters.
OTHER_NAMES = {"--lr": "--learning-rate", "--hidden": "--layers", "--bs": "--batch-size"}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are exceptions, which ``main`` prints in one line.

    Attributes
    ----------
    module : str
        What is imported when it is this parser's turn: its function ``declare`` adds the arguments.
    """

    module = ""

    def declare(self) -> None:
        """Add the arguments, if they are not there yet."""
        if self.module:
            import_module(self.module).declare(self)
            self.module = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.declare()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise InvalidValueError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        # argparse drops the errors of writing help and version, so that a closed pipe would go unnoticed.
        print(message, end="", file=file)


def add_command(commands: argparse._SubParsersAction[Parser], name: str, summary: str) -> Parser:
    """Add a command to those of a parser, the object that ``add_subparsers`` returned."""
    parser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
    )
    parser.set_defaults(parser=parser)
    return parser


def set_command(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], None], example: str) -> None:
    """Make a parser that of one command, which ``run`` runs and ``example`` shows."""
    parser.epilog = f"Example: {example}"
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run)


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

    ``batch_size: 1 is`` becomes ``--batch-size: 1 is``, ``task="regression"`` becomes ``--task regression``, and
    ``no_header=True`` becomes ``--no-header``; where an argument has no option, as the name of an experiment,
    ``name: 'x' is`` becomes ``NAME: 'x' is``.
    """
    for action in command._get_positional_actions():
        message = re.sub(rf"^{action.dest}(?=: )", str(action.metavar or action.dest), message)
    for flag in command._option_string_actions:
        argument = flag.removeprefix("--").replace("-", "_")
        message = re.sub(rf"^{argument}(?=: )", flag, message)
        for found in re.finditer(rf"""\b{argument}=(["'])(.+?)\1""", message):
            message = message.replace(found[0], f"{flag} {shlex.quote(found[2])}")
        message = message.replace(f"{argument}=True", flag)
    return message


def _nearest_flag(command: argparse.ArgumentParser, unknown: str) -> str:
    wrong = unknown.split("=")[0]
    flags = [flag for flag in command._option_string_actions if flag.startswith("--")]
    near = difflib.get_close_matches(wrong, flags, n=1)
    if OTHER_NAMES.get(wrong) in flags:
        near = [OTHER_NAMES[wrong]]
    return f" Did you mean {near[0]}?" if near else ""
