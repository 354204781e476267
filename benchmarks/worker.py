"""The process of one peer: reads commands, a JSON object on each line, and answers on another line.

``python -m benchmarks.worker PEER``; started by :class:`benchmarks.process.WorkerProcess`. Each peer has a process of
its own because the thread pools of two libraries in one process take each other's cores.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

_STARTED = time.perf_counter()

import numpy as np  # noqa: E402

from benchmarks.peers import find_peer  # noqa: E402
from benchmarks.peers.peer import Peer, Work  # noqa: E402
from benchmarks.problem import make_problem  # noqa: E402
from benchmarks.report.files import from_json  # noqa: E402
from benchmarks.report.results import Case  # noqa: E402

# Batches that a device works on in rotation are together larger than its cache of the second level.
_ROTATED_BYTES = 128 * 2**20
_MOST_BATCHES = 256
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class Worker:
    """One peer and the case that it has in hand."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.work: Work | None = None

    def describe(self) -> dict[str, Any]:
        """Import the library; say why it is missing, or its versions and how long that took."""
        if reason := self.peer.missing():
            return {"missing": reason}
        versions = self.peer.versions()
        seconds = time.perf_counter() - _STARTED
        return {"versions": versions, "import_seconds": seconds, "blas": self.peer.blas()}

    def prepare(self, case: dict[str, Any], outputs: str | None) -> dict[str, Any]:
        """Build a case, do it once, and write what it computed to the file ``outputs``."""
        self.release()
        parsed: Case = from_json(Case, case)
        if reason := self.peer.refuses(parsed):
            return {"refused": reason}
        problem = make_problem(parsed, _batches(parsed, self.peer.on_device))
        _forget_peak_memory()
        started = time.perf_counter()
        self.work = self.peer.prepare(parsed, problem)
        if outputs is None:
            self.work.run(1)
            self.work.device.synchronize()
        else:
            arrays: dict[str, Any] = self.work.outputs()
            np.savez(outputs, **arrays)
        return {"first_seconds": time.perf_counter() - started}

    def time(self, repeats: int) -> dict[str, Any]:
        """Time the work in hand."""
        assert self.work is not None
        host, device = self.work.time(repeats)
        return {"host": host, "device": device}

    def peak(self) -> dict[str, Any]:
        """Say what memory the work took."""
        assert self.work is not None
        return {"peak_bytes": self.work.device.peak_bytes() if self.peer.on_device else _peak_memory()}

    def launches(self) -> dict[str, Any]:
        """Say how many kernels one unit of the work launches; nothing else can be done with the work after that."""
        assert self.work is not None
        return {"launches": self.work.launches()}

    def release(self) -> dict[str, Any]:
        """Let go of the work."""
        self.work = None
        gc.collect()
        return {}


def main(name: str, answers: TextIO) -> None:
    """Answer commands until the input ends."""
    worker = Worker(find_peer(name))
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("command"))(**command)
        except Exception as error:  # whatever a library raises is an answer; the next case may work
            worker.work = None
            answer = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def _batches(case: Case, on_device: bool) -> int | None:
    if not case.is_network or not on_device:
        return None
    one = case.rows * case.sizes[0] * np.dtype(case.dtype).itemsize
    return max(3, min(_MOST_BATCHES, -(-_ROTATED_BYTES // one)))


def _forget_peak_memory() -> None:
    """Start the process's peak of resident memory anew, where Linux allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak_memory() -> int | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _end_with_parent() -> None:
    """Ask Linux to end this process when the one that started it is killed; elsewhere the input's end has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    _end_with_parent()
    # The answers keep the real standard output to themselves; what a library prints goes to standard error.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    main(sys.argv[1], channel)
