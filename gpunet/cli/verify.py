"""``gpunet verify``: all operations of a device against the specification, and how fast it is; under mpiexec, ranks."""

from __future__ import annotations

import argparse
import math
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpunet.backends.selection import select_backend
from gpunet.cli.arguments import Parser, set_command
from gpunet.cli.folders import check_folder
from gpunet.cli.output import print_json, print_lines, print_table, require_rich
from gpunet.cli.progress import counting
from gpunet.cli.readers import names, number
from gpunet.cli.streams import complain
from gpunet.distributed.launcher import find_launch
from gpunet.errors import InvalidValueError
from gpunet.training.distribution import together

if TYPE_CHECKING:
    from gpunet.verification.report import Report
    from gpunet.verification.run import Verification
    from gpunet.verification.subject import Subject

EXIT_WRONG = 1
DEFAULT_MINUTES = 5
# A check takes a second at most; what has not come back after so many waits for something that will not come.
LONGEST_CHECK = 120.0


def declare(parser: Parser) -> None:
    """Declare the arguments of ``gpunet verify``."""
    set_command(parser, run, "gpunet verify --out report.json")
    parser.add_argument("--device", default="cuda", metavar="NAME", help="cuda, cuda:1, ... or cpu (default: cuda)")
    parser.add_argument(
        "--only", type=names, default=[], metavar="WORDS", help="only the checks whose name has all of these words"
    )
    parser.add_argument(
        "--speed", action="store_true", help="also measure: every kernel beside a copy, steps of five networks"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the report there, as JSON")
    parser.add_argument(
        "--minutes",
        type=number(0, above=True),
        default=DEFAULT_MINUTES,
        metavar="N",
        help=f"begin no further check after so many (default: {DEFAULT_MINUTES}; under mpiexec, all are done)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Verify, print, and leave with status 1 where something is wrong. Under mpiexec, what the ranks do together.

    Raises
    ------
    DeviceError
        The device cannot be used; the message says what is missing.
    GpunetError, OSError
    SystemExit
        A check found something, or was not done.
    """
    require_rich()
    from gpunet.verification.ranks import SHARDS_EACH
    from gpunet.verification.report import report
    from gpunet.verification.speed import measure, steps
    from gpunet.verification.subject import Cuda

    company, size = arguments.company, find_launch().size
    ranks = company.join(SHARDS_EACH * size if size > 1 else None)
    device = arguments.device if ranks is None else ranks.own_device(arguments.device)
    with together(ranks):
        verification = _prepare(arguments, device)
    found: Report | None = None
    speed: dict[str, Any] = {}

    def so_far() -> Report:
        now = found or report(verification, with_advice=False)
        model = (
            now.device["model"]
            if ranks is None
            else f"{now.device['model']}, {size} ranks by {ranks.communicator.name}"
        )
        return replace(now, speed=speed, device=now.device | {"model": model})

    def show() -> None:
        if not company.is_silent:
            _show(so_far(), arguments)

    def give_up(what: str) -> None:
        if not company.is_silent:
            complain(f"{what}: does not come back since {LONGEST_CHECK:.0f} s")
        if found is None:
            verification.ending = f"{what} does not come back"
        else:
            speed["ending"] = f"{what} does not come back"
        show()

    # Ranks begin the same checks, whatever the clock of each says.
    seconds = 60 * arguments.minutes if ranks is None else math.inf
    subject = verification.subject
    try:
        # The rank that tells gives up first, and the launcher ends the others.
        with _watched(give_up, LONGEST_CHECK * (2 if company.is_silent else 1)) as begin:
            with counting(verification.steps, quiet=company.is_silent) as count:
                verification.run(_both(begin, count), seconds)
            begin("the first failure, repeated,")
            found = report(verification)
            if isinstance(subject, Cuda) and arguments.speed:
                begin("a copy")
                with counting(steps(subject)) as count:
                    measure(subject, speed, _both(begin, count), seconds - verification.seconds)
    except BaseException:  # whatever ends it, what was found is told
        show()
        raise
    show()
    if not found.is_right:
        raise SystemExit(EXIT_WRONG)


def _prepare(arguments: argparse.Namespace, device: str) -> Verification:
    """Return what is to be verified, of the ranks if there are several."""
    from gpunet.verification import ranks as of_ranks
    from gpunet.verification.run import Verification, all_checks
    from gpunet.verification.subject import Cuda

    if arguments.out is not None:
        if arguments.out.is_dir():
            raise InvalidValueError(f"out: {str(arguments.out)!r} is a folder. Expected a file.")
        check_folder(arguments.out.parent)
    subject, ranks = make_subject(device), arguments.company.ranks
    if arguments.speed and not isinstance(subject, Cuda):
        raise InvalidValueError("speed: the speed of a CPU is what benchmarks tell. Expected a CUDA device.")
    if arguments.speed and ranks is not None:
        raise InvalidValueError("speed: is of one process. Expected --speed without mpiexec.")
    words = arguments.only
    found = all_checks(subject, words) if ranks is None else of_ranks.all_checks(ranks, subject, words)
    if not found:
        raise InvalidValueError(f"only: no check has all of {', '.join(arguments.only)} in its name.")
    return Verification(subject, found)


def _both(begin: Callable[[str], object], count: Callable[[int, str], object]) -> Callable[[int, str], None]:
    """Return what tells those who watch, and those who look on, how much is done and what begins."""

    def show(done: int, what: str) -> None:
        begin(what)
        count(done, what)

    return show


def make_subject(device: str) -> Subject:
    """Return what is verified.

    Raises
    ------
    DeviceError, InvalidValueError
    """
    from gpunet.backends.cuda import CudaBackend
    from gpunet.verification.subject import Cpu, Cuda

    def new_backend(precision: str) -> CudaBackend:
        backend = select_backend(device, precision)
        assert isinstance(backend, CudaBackend)
        return backend

    return Cuda(new_backend) if isinstance(select_backend(device), CudaBackend) else Cpu()


def _show(found: Report, arguments: argparse.Namespace) -> None:
    """Write and print a report."""
    from gpunet.verification.report import COLUMNS
    from gpunet.verification.speed import tables

    try:
        if arguments.json:
            print_json(found.as_dict())
            return
        print_table(COLUMNS, [row.cells for row in found.rows])
        for title, columns, rows in tables(found.speed):
            print_lines("", title)
            print_table(columns, rows)
        print_lines("", *found.lines, *filter(None, [found.speed.get("ending")]))
    finally:
        if arguments.out is not None:
            found.save(arguments.out)


@contextmanager
def _watched(give_up: Callable[[str], object], longest: float) -> Iterator[Callable[[str], object]]:
    """Yield what has to be told whatever begins; if that does not come back, ``give_up`` is, and the process ends.

    Nothing else ends it: a thread that waits for the device in a library does not see Ctrl-C.
    """
    beginnings: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def watch() -> None:
        what = beginnings.get()
        while what is not None:
            try:
                following = beginnings.get(timeout=longest)
            except queue.Empty:
                try:
                    give_up(what)
                    sys.stdout.flush()
                finally:
                    os._exit(EXIT_WRONG)
            what = following

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield beginnings.put
    finally:
        beginnings.put(None)
        thread.join()
