"""Building many experiments: a process for each, some at a time, so that one that fails or crashes stops no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

from gpunet.lecture.experiment import Experiment, Settings

# Experiments compute with small matrices, for which threads cost more than they bring; and with one, sums are always
# taken in the same order, so that figures repeat.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_SECONDS_BETWEEN_LOOKS = 0.05
_SECONDS_TO_STOP = 5.0

Command = Callable[[Experiment], Sequence[str]]


@dataclass(frozen=True)
class Outcome:
    """How the process of one experiment ended.

    Attributes
    ----------
    experiment : Experiment
    seconds : float
    error : str
        One line; empty where it did what it should.
    """

    experiment: Experiment
    seconds: float
    error: str


@dataclass
class _Child:
    experiment: Experiment
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    started: float

    def outcome(self) -> Outcome:
        self.errors.seek(0)
        told = self.errors.read().decode("utf-8", "replace").strip()
        return Outcome(self.experiment, time.perf_counter() - self.started, _error(self.process.returncode, told))


def shell_command(settings: Settings, folder: str) -> Command:
    """Return what makes the command ``gpunet lecture NAME`` that runs an experiment with these settings."""
    options = ["--out", folder, "--seed", str(settings.seed), "--device", settings.device]
    if settings.quick:
        options.append("--quick")
    return lambda experiment: [sys.executable, "-m", "gpunet", "lecture", experiment.name, *options]


def build(
    experiments: Sequence[Experiment],
    command: Command,
    jobs: int,
    on_change: Callable[[int, Sequence[Experiment]], None] = lambda done, running: None,
) -> list[Outcome]:
    """Run a process for each experiment, ``jobs`` at a time, and return how they ended, in the experiments' order.

    Every process has one BLAS thread. An interrupt, and anything else that ``on_change`` raises, ends those that run.

    Parameters
    ----------
    experiments : sequence of Experiment
    command : callable, Experiment -> sequence of str
        The program and its arguments.
    jobs : int
        At least 1.
    on_change : callable, (int, sequence of Experiment) -> None
        Called, with the number of experiments that have ended and those that run, when either changes.
    """
    waiting = list(experiments)
    running: list[_Child] = []
    ended: dict[str, Outcome] = {}
    with ExitStack() as files:
        try:
            while waiting or running:
                finished = [child for child in running if child.process.poll() is not None]
                for child in finished:
                    running.remove(child)
                    ended[child.experiment.row] = child.outcome()
                started = waiting[: jobs - len(running)]
                for experiment in started:
                    waiting.remove(experiment)
                    errors = files.enter_context(tempfile.TemporaryFile())
                    running.append(_start(experiment, command(experiment), errors))
                if finished or started:
                    on_change(len(ended), [child.experiment for child in running])
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            _stop(running)
    return [ended[experiment.row] for experiment in experiments]


def _start(experiment: Experiment, command: Sequence[str], errors: IO[bytes]) -> _Child:
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=os.environ | ONE_THREAD
    )
    return _Child(experiment, process, errors, time.perf_counter())


def _stop(children: Sequence[_Child]) -> None:
    for child in children:
        child.process.terminate()
    for child in children:
        try:
            child.process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def _error(status: int, told: str) -> str:
    """Return in one line why a process failed; the last line of a traceback names the exception."""
    if status == 0:
        return ""
    last = told.splitlines()[-1].strip().removeprefix("gpunet: ") if told else ""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = str(-status)
        return f"ended by signal {name}. {last}".strip()
    return last or f"ended with status {status}"
