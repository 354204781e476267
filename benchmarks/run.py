"""A run of the comparison: case after case, until all are done or the time is over; its rows go to a result file."""

from __future__ import annotations

import fcntl
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.case_runner import CaseRunner, OutOfTimeError
from benchmarks.report.files import read_results
from benchmarks.report.results import Case, Results, Row
from gpunet import __version__
from gpunet.errors import InvalidValueError

# Of the time, after which no case is begun: one that is not done at its end is left to the next part.
_BEGIN_SHARE = 0.85


class ResultFile:
    """This machine's and version's result file in a folder, which no other run writes to meanwhile.

    Raises
    ------
    GpunetError, OSError
        The file is damaged, or another run's; the folder cannot be written to.
    """

    def __init__(self, folder: Path, machine: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # now, and not after the first minutes of measuring
        self._lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise InvalidValueError(
                f"{folder}: another run writes there. Two at once would measure each other; wait for it."
            ) from None
        self.results = Results(machine, __version__)
        self.path = folder / self.results.file_name
        if self.path.exists():
            self.results = read_results(self.path)
            self.results.machine = machine

    def add(self, rows: Sequence[Row]) -> None:
        """Add a case's rows and save."""
        self.results.merge(rows)
        self.results.save(self.path)

    def known(self, case: Case, peers: Sequence[str], commit: str) -> list[Row]:
        """Return a case's rows if the file has all of a commit, and nothing otherwise."""
        known = {row.peer: row for row in self.results.rows if row.key == case.key and row.commit == commit}
        return [known[name] for name in peers] if known.keys() >= set(peers) else []

    def close(self) -> None:
        """Let others write."""
        os.close(self._lock)


def run(
    runner: CaseRunner, selected: Mapping[Case, Sequence[str]], file: ResultFile | None, *, resume: bool
) -> Iterator[tuple[Case, list[Row]]]:
    """Yield each case with its rows, which the file has by then; with none where the plan's time is over.

    Where it is to ``resume``, rows that the file has of this commit are taken from there. An OSError says that the file
    cannot be written; what was saved before is whole.
    """
    started, seconds = time.monotonic(), runner.plan.seconds
    begins_until, ends_at = started + _BEGIN_SHARE * seconds, started + seconds
    is_first = True
    for case, peers in selected.items():
        if file is not None and resume and (rows := file.known(case, peers, runner.commit)):
            yield case, rows
            continue
        if time.monotonic() > begins_until:
            yield case, []
            continue
        try:
            rows = runner.run(case, peers, ends_at)
        except OutOfTimeError:
            begins_until = -math.inf
            if not is_first:
                yield case, []
                continue
            # It had all the time there was, and would have no more in the next part.
            rows = runner.give_up(case, peers, "the case took longer than --minutes allows")
        is_first = False
        if file is not None:
            file.add(rows)
        yield case, rows
