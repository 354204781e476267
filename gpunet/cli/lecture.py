"""``gpunet lecture``: the lecture's experiments, one with its figure and paragraph, or all of them with a page."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpunet.backends.selection import select_backend
from gpunet.cli.arguments import Parser, set_command
from gpunet.cli.folders import check_folder
from gpunet.cli.options import add_seed
from gpunet.cli.output import device_name, print_json, print_table, require_rich
from gpunet.cli.progress import counting, is_watched, note
from gpunet.cli.readers import folder, whole_number
from gpunet.cli.threads import one_blas_thread
from gpunet.environment import usable_cores
from gpunet.errors import InvalidValueError

if TYPE_CHECKING:
    from gpunet.lecture.building import Outcome
    from gpunet.lecture.experiment import Experiment, Settings

ALL, LIST = "all", "list"
EXIT_FAILED = 1
_NARROWEST_TEXT, _WIDEST_TEXT = 30, 100


def declare(parser: Parser) -> None:
    """Declare the arguments of ``gpunet lecture``."""
    set_command(parser, run, "gpunet lecture initialization --out runs/lecture")
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
    add_seed(parser, "everything drawn")
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="auto, cpu, cuda, ... (default: cpu, so that figures repeat)"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, in seconds; what is said need not show")
    parser.add_argument(
        "--jobs", type=whole_number(1), metavar="N", help="experiments at a time, for 'all' (default: the cores)"
    )


def run(arguments: argparse.Namespace) -> None:
    """List the experiments, run one, or run all.

    Raises
    ------
    GpunetError, OSError
    SystemExit
        One of all failed.
    """
    if arguments.name == LIST:
        _list(arguments)
    elif arguments.name == ALL:
        _run_all(arguments)
    else:
        _run_one(arguments)


# --- list ------------------------------------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace) -> None:
    from gpunet.lecture import catalogue

    found = catalogue.EXPERIMENTS
    if arguments.json:
        print_json({"experiments": [_named(experiment) | {"shows": experiment.shows} for experiment in found]})
        return
    width = max(len(experiment.command) for experiment in found)
    for experiment in found:
        print(_indented(f"{experiment.row:<4} {experiment.command:<{width}}  ", experiment.shows))


def _indented(start: str, text: str) -> str:
    """Return text beside its start; on a terminal it is broken to stay there, elsewhere it is one line."""
    if not sys.stdout.isatty():
        return start + text
    width = max(shutil.get_terminal_size().columns, len(start) + _NARROWEST_TEXT)
    return textwrap.fill(text, width, initial_indent=start, subsequent_indent=" " * len(start))


def _named(experiment: Experiment) -> dict[str, object]:
    return {
        "row": experiment.row,
        "name": experiment.name,
        "title": experiment.title,
        "command": experiment.command,
    }


# --- one -------------------------------------------------------------------------------------------------------------


def _run_one(arguments: argparse.Namespace) -> None:
    from gpunet.lecture.catalogue import find_experiment
    from gpunet.lecture.report import write_report

    experiment = find_experiment(arguments.name, (ALL, LIST))
    if arguments.jobs is not None:
        raise InvalidValueError(
            f"--jobs: one experiment is one process. Expected it with 'all', not {arguments.name!r}."
        )
    settings, device = _prepare(arguments, [experiment])
    if is_watched(quiet=False):
        note(f"running {experiment.row} {experiment.name}")
    started = time.perf_counter()
    with one_blas_thread():  # as the processes of all do: figures repeat only where sums keep their order
        report = write_report(experiment, settings, device, arguments.out)
    files = {suffix: str(path) for suffix, path in report.files.items()}
    if arguments.json:
        print_json(
            _named(experiment)
            | {"paragraph": report.paragraph, "files": files, "seed": settings.seed, "device": device}
            | {"quick": settings.quick, "seconds": time.perf_counter() - started}
        )
        return
    width = min(shutil.get_terminal_size().columns, _WIDEST_TEXT) if sys.stdout.isatty() else _WIDEST_TEXT
    print(f"{experiment.row}. {experiment.title}\n")
    print(textwrap.fill(report.paragraph, width, break_long_words=False, break_on_hyphens=False))
    print(f"\n{', '.join(files.values())}")


def _prepare(arguments: argparse.Namespace, experiments: Sequence[Experiment]) -> tuple[Settings, str]:
    """Return settings and the device's name once all that can be refused has been: nothing has run yet."""
    from gpunet.lecture.experiment import Settings
    from gpunet.lecture.report import require_packages

    require_packages(experiments)
    device = device_name(select_backend(arguments.device))
    check_folder(arguments.out)
    return Settings(seed=arguments.seed, device=arguments.device, quick=arguments.quick), device


# --- all -------------------------------------------------------------------------------------------------------------


def _run_all(arguments: argparse.Namespace) -> None:
    from gpunet.lecture import catalogue
    from gpunet.lecture.building import build, shell_command
    from gpunet.lecture.page import write_page

    require_rich()
    found = catalogue.EXPERIMENTS
    settings, device = _prepare(arguments, found)
    jobs = min(arguments.jobs or usable_cores(), len(found))
    arguments.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with counting(len(found)) as count:

        def show(done: int, running: Sequence[Experiment]) -> None:
            count(done, ", ".join(f"{experiment.row} {experiment.name}" for experiment in running))

        outcomes = build(found, shell_command(settings, str(arguments.out)), jobs, show)
    seconds = time.perf_counter() - started
    page = write_page(outcomes, settings, device, arguments.out)
    if arguments.json:
        print_json(
            {
                "page": str(page),
                "failed": sum(bool(outcome.error) for outcome in outcomes),
                "seed": settings.seed,
                "device": device,
                "quick": settings.quick,
                "jobs": jobs,
                "seconds": seconds,
                "experiments": [
                    _named(outcome.experiment) | {"seconds": outcome.seconds, "error": outcome.error or None}
                    for outcome in outcomes
                ],
            }
        )
    else:
        _print_outcomes(outcomes, f"{seconds:.0f} s, {jobs} at a time", page)
    if any(outcome.error for outcome in outcomes):
        raise SystemExit(EXIT_FAILED)


def _print_outcomes(outcomes: Sequence[Outcome], how: str, page: Path) -> None:
    failed = [outcome for outcome in outcomes if outcome.error]
    rows = [
        [f"{outcome.experiment.row:<4} {outcome.experiment.name}", f"{outcome.seconds:.1f}"] for outcome in outcomes
    ]
    print_table(["experiment", "seconds"], rows)
    for outcome in failed:
        print(f"{outcome.experiment.row} {outcome.experiment.name} failed: {outcome.error}")
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} experiments in {how}")
    print(page)
