"""Options that several commands have."""

from __future__ import annotations

import argparse

from gpunet.cli.readers import whole_number
from gpunet.data import NAMED_SETS
from gpunet.data.splits import LARGEST_SEED
from gpunet.serialization import SUFFIXES

DATA_HELP = f"{', '.join(NAMED_SETS)}, a .csv file, or an .npz file with arrays X and y"
MODEL_HELP = f"a file that 'gpunet train' wrote ({' or '.join(SUFFIXES)})"


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1, ... (auto: CUDA where it works)"
    )


def add_seed(parser: argparse._ActionsContainer, of_what: str) -> None:
    """Add ``--seed``."""
    parser.add_argument(
        "--seed", type=whole_number(0, LARGEST_SEED), default=0, metavar="N", help=f"of {of_what} (default: 0)"
    )
