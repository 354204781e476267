"""``gpunet tune``: the constants of launch plans that are the fastest on this GPU, for every network from then on."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from gpunet.backends.selection import select_backend
from gpunet.backends.switches import TUNING
from gpunet.cli.arguments import Parser, set_command
from gpunet.cli.output import print_json, print_lines, print_table, require_rich
from gpunet.cli.progress import counting
from gpunet.errors import InvalidValueError

COLUMNS = ("constant", "estimate", "chosen", "candidates, and their time over the choice so far")


def declare(parser: Parser) -> None:
    """Declare the arguments of ``gpunet tune``."""
    set_command(parser, run, "gpunet tune --device cuda:1")
    parser.add_argument("--device", default="cuda", metavar="NAME", help="cuda, cuda:1, ... (default: cuda)")
    parser.add_argument("--dry-run", action="store_true", help="measure and print, and leave the plans as they are")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, and write the file that networks read.

    Raises
    ------
    DeviceError
        The device cannot be used; the message says what is missing.
    InvalidValueError
        It is no CUDA device.
    OSError
        The file cannot be written.
    """
    require_rich()
    backend = select_backend(arguments.device)
    from gpunet.backends.cuda import CudaBackend
    from gpunet.backends.cuda.tuning import CANDIDATES, save_tuning, tuning_path
    from gpunet.verification.tuning import measure

    if not isinstance(backend, CudaBackend):
        raise InvalidValueError(f"device: {arguments.device!r} has no launch plans. Expected a CUDA device.")
    with counting(len(CANDIDATES)) as count:
        tuning, choices = measure(backend, hasattr(backend.device, "model"), count)
    path = tuning_path(backend.device)
    if not arguments.dry_run:
        save_tuning(backend.device, tuning)
    if arguments.json:
        print_json({"tuning": asdict(tuning), "choices": [asdict(choice) for choice in choices], "path": str(path)})
        return
    rows = [
        [
            choice.name,
            str(choice.estimate),
            str(choice.chosen),
            ", ".join(f"{value}: {ratio:.2f}" for value, ratio in choice.ratios.items()),
        ]
        for choice in choices
    ]
    print_table(COLUMNS, rows)
    print_lines(f"not written, --dry-run: {path}" if arguments.dry_run else f"written: {path}")
    if not TUNING.is_on():
        print_lines(f"networks do not follow it: {TUNING.variable}=0")
