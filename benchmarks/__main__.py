"""``python -m benchmarks``: gpunet and its peers do the same cases, in processes of their own, in rounds."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.case_runner import CaseRunner, Plan
from benchmarks.cases import choose_cases, smoke
from benchmarks.peers import find_peer, is_worth, peers_for
from benchmarks.report.results import OURS, Case, Row
from benchmarks.report.words import milliseconds, times
from benchmarks.run import ResultFile, run
from gpunet.backends.devices.probe import probe_gpu
from gpunet.environment import usable_cores
from gpunet.errors import GpunetError, InvalidValueError, unknown_name
from gpunet.verification.configurations import CONFIGURATIONS

EXIT_FAILED, EXIT_USAGE = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, and return 0; 1 if something of gpunet is wrong or failed; 2 where nothing could be done.

    In a ``--smoke`` run, a peer that is wrong or failed counts too: it would show that its code here is broken.
    """
    arguments = _parser().parse_args(argv)
    try:
        selected = _select(arguments)
        if arguments.list:
            print("\n".join(case.key for case in selected))
            return 0
        return _run(arguments, selected)
    except (GpunetError, OSError) as error:
        print(f"python -m benchmarks: {error}", file=sys.stderr)
        return EXIT_USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, allow_abbrev=False)
    parser.add_argument("-k", metavar="WORDS", default="", help="only cases with all these words in their names")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and measure nothing")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="which cases and peers (default: cpu)")
    parser.add_argument("--peers", type=_names, default=[], metavar="LIST", help="only these: gpunet-numpy,torch-eager")
    parser.add_argument("--configurations", type=_names, default=[], metavar="LIST", help="of the networks only a,e")
    parser.add_argument("--rounds", type=int, metavar="N", help="in which each peer does a case (default: 5, cuda 9)")
    parser.add_argument("--threads", type=int, metavar="N", help="of each peer (default: the cores there are)")
    parser.add_argument("--results", type=Path, metavar="DIR", help="add the rows to this machine's file in DIR")
    parser.add_argument("--resume", action="store_true", help="leave out what that file has of this commit")
    parser.add_argument("--minutes", type=float, metavar="M", help="end after M minutes; --resume goes on there")
    parser.add_argument("--smoke", action="store_true", help="every case once, small: shows that it runs")
    return parser


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _select(arguments: argparse.Namespace) -> dict[Case, list[str]]:
    """Check the options; return the peers of each case."""
    for name in arguments.configurations:
        if name not in CONFIGURATIONS:
            raise unknown_name("--configurations", name, CONFIGURATIONS)
    for option in ("rounds", "threads"):
        number = getattr(arguments, option)
        if number is not None and number < 1:
            raise InvalidValueError(f"--{option}: got {number}. Expected at least 1.")
    if (arguments.threads or 1) > usable_cores():  # libraries that count cores would take fewer than the others
        raise InvalidValueError(
            f"--threads: got {arguments.threads}. Expected at most {usable_cores()}, the cores there are."
        )
    if arguments.minutes is not None and not 0 < arguments.minutes < math.inf:
        raise InvalidValueError(f"--minutes: got {arguments.minutes}. Expected a number above 0.")
    if arguments.resume and arguments.results is None:
        raise InvalidValueError("--resume: goes on with a result file. Expected --results too.")
    if arguments.device == "cuda" and not arguments.smoke and (reason := probe_gpu().problem):
        raise InvalidValueError(f"--device cuda: {reason}.")
    cases = choose_cases(arguments.device, arguments.k.split(), arguments.configurations)
    threads = arguments.threads or usable_cores()
    peers = {name: find_peer(name) for name in arguments.peers or peers_for(arguments.device)}
    chosen = {
        case: names
        for case in (smoke(cases) if arguments.smoke else cases)
        if (names := [name for name, peer in peers.items() if is_worth(peer, case, threads)])
    }
    if not chosen:
        raise InvalidValueError(f"-k: these peers have no case with all of {arguments.k!r}; --list names the cases.")
    return chosen


def _run(arguments: argparse.Namespace, selected: dict[Case, list[str]]) -> int:
    plan = Plan(
        device=arguments.device,
        rounds=1 if arguments.smoke else arguments.rounds or (9 if arguments.device == "cuda" else 5),
        threads=arguments.threads or usable_cores(),
        smoke=arguments.smoke,
        seconds=math.inf if arguments.minutes is None else 60 * arguments.minutes,
    )
    failed, left = 0, 0
    with contextlib.ExitStack() as stack:
        runner = stack.enter_context(contextlib.closing(CaseRunner(plan)))
        file = None
        if arguments.results is not None and not arguments.smoke:
            file = stack.enter_context(contextlib.closing(ResultFile(arguments.results, runner.machine)))
        for case, rows in run(runner, selected, file, resume=arguments.resume):
            left += not rows
            bad = [row for row in rows if row.status in ("wrong", "failed")]
            failed += sum(arguments.smoke or row.peer.startswith(OURS) for row in bad)
            if rows:
                print(f"{case.key}: {', '.join(map(_in_words, rows))}", flush=True)
    if left:
        print(f"The minutes are over with {left} of {len(selected)} cases left; --resume goes on there.")
    return EXIT_FAILED if failed else 0


def _in_words(row: Row) -> str:
    if row.status != "ok":
        return f"{row.peer} {row.status} ({row.reason})"
    return f"{row.peer} {milliseconds(row.median)}" + (f" {times(row.ratio.median)}" if row.ratio else "")


if __name__ == "__main__":
    sys.exit(main())
