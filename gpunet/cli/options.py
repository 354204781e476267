"""Options that several commands have."""

from __future__ import annotations

import argparse

from gpunet.cli.readers import names, whole_number
from gpunet.data import NAMED_SETS, TableOptions
from gpunet.data.splits import LARGEST_SEED
from gpunet.serialization import SUFFIXES

DATA_HELP = f"{', '.join(NAMED_SETS)}, a table (.csv, .tsv, .txt, .gz, .parquet), or an .npz file with arrays X and y"
MODEL_HELP = f"a file that 'gpunet train' wrote ({' or '.join(SUFFIXES)})"


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1, ... (auto: CUDA where it works)"
    )


def add_table(parser: argparse._ActionsContainer) -> None:
    """Add the options of how a table is read; :func:`table_options` reads them."""
    parser.add_argument("--columns", type=names, metavar="A,B,...", help="the features (default: all but the target)")
    parser.add_argument("--drop", type=names, default=[], metavar="A,B,...", help="columns to leave out")
    parser.add_argument(
        "--sep", metavar="CHARACTER", help="between values; also tab, whitespace (default: comma; tab in .tsv)"
    )
    parser.add_argument("--decimal", default=".", metavar="CHARACTER", help="point or comma in numbers (default: .)")
    parser.add_argument("--encoding", default="utf-8", metavar="NAME", help="utf-8, cp1252, ... (default: utf-8)")
    parser.add_argument("--no-header", action="store_true", help="no names in the first line; columns are 1, 2, ...")


def table_options(arguments: argparse.Namespace) -> TableOptions:
    """Return what the arguments say of how a table is read.

    Raises
    ------
    InvalidValueError
    """
    return TableOptions(
        arguments.columns, arguments.drop, arguments.sep, arguments.decimal, arguments.encoding, arguments.no_header
    )


def add_seed(parser: argparse._ActionsContainer, of_what: str) -> None:
    """Add ``--seed``."""
    parser.add_argument(
        "--seed", type=whole_number(0, LARGEST_SEED), default=0, metavar="N", help=f"of {of_what} (default: 0)"
    )
