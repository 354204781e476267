"""The process of one peer: receives commands, each a method of :class:`Worker`, and sends back what it returned.

``python -m benchmarks.worker PEER DESCRIPTOR``; started by :class:`benchmarks.process.WorkerProcess`. Each peer has a
process of its own because the thread pools of two libraries in one process take each other's cores.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_STARTED = time.perf_counter()

import numpy as np  # noqa: E402

from benchmarks.peers import find_peer  # noqa: E402
from benchmarks.peers.peer import Peer, Work  # noqa: E402
from benchmarks.problem import make_problem  # noqa: E402
from benchmarks.report.results import Case  # noqa: E402

# Batches that a device works on in rotation are together larger than its cache of the second level.
_ROTATED_BYTES = 128 * 2**20
_MOST_BATCHES = 256
# Enough that all that a step keeps is there: gradients, moments, recordings.
_STEPS_OF_GROWTH = 4
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class Worker:
    """One peer and the case that it has in hand."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._work: Work | None = None

    def describe(self) -> str | dict[str, Any]:
        """Import the library; return why it is missing, or its versions and how long that took."""
        if reason := self.peer.missing():
            return reason
        versions = self.peer.versions()
        seconds = time.perf_counter() - _STARTED
        return {"versions": versions, "import_seconds": seconds, "blas": self.peer.blas()}

    def prepare(self, case: Case, outputs: Path | None) -> str | float:
        """Build a case, do it once, and write what it computed to ``outputs``; return why not, or how long it took."""
        self.release()
        if reason := self.peer.refuses(case):
            return reason
        problem = make_problem(case, _batches(case, self.peer.on_device))
        _forget_peak_memory()
        started = time.perf_counter()
        self._work = work = self.peer.prepare(case, problem)
        if outputs is None:
            work.run(1)
            work.device.synchronize()
        else:
            arrays: dict[str, Any] = work.outputs()
            np.savez(outputs, **arrays)
        return time.perf_counter() - started

    def growth(self, small: Case, case: Case) -> int | None:
        """Return by how many bytes steps of a case raise the process's memory at most.

        A small case comes first, so that what a library needs once is there; what only building takes does not count.
        """
        self.prepare(small, None)
        self.release()
        problem = make_problem(case)
        before = _memory("VmRSS:")
        work = self.peer.prepare(case, problem)
        _forget_peak_memory()
        work.run(_STEPS_OF_GROWTH)
        peak = _memory("VmHWM:")
        return None if before is None or peak is None else max(peak - before, 0)

    def time(self, repeats: int) -> tuple[float, float | None]:
        """Time the work in hand, by the host's clock and by the device's."""
        assert self._work is not None
        return self._work.time(repeats)

    def finish(self) -> tuple[int | None, int | None]:
        """Let go of the work; return what memory it took, and how many kernels one unit of it launches."""
        assert self._work is not None
        peak = self._work.device.peak_bytes() if self.peer.on_device else _memory("VmHWM:")
        found = peak, self._work.launches()
        self.release()
        return found

    def release(self) -> None:
        """Let go of the work."""
        self._work = None
        gc.collect()


def main(name: str, channel: Connection) -> None:
    """Do commands until the other side closes the channel."""
    worker = Worker(find_peer(name))
    with contextlib.suppress(EOFError, OSError):
        while True:
            command, arguments = channel.recv()
            try:
                answer, failure = getattr(worker, command)(*arguments), ""
            except Exception as error:  # whatever a library raises is an answer; the next case may work
                worker.release()
                answer, failure = None, f"{type(error).__name__}: {error}"
            channel.send((answer, failure))


def _batches(case: Case, on_device: bool) -> int | None:
    if not case.is_network or not on_device:
        return None
    one = case.rows * case.sizes[0] * np.dtype(case.dtype).itemsize
    return max(3, min(_MOST_BATCHES, -(-_ROTATED_BYTES // one)))


def _forget_peak_memory() -> None:
    """Start the process's peak of resident memory anew, where Linux allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _memory(name: str) -> int | None:
    """Return a number of bytes that Linux has of this process."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return None


if __name__ == "__main__":
    if sys.platform == "linux":  # end when the process that started this one is killed; elsewhere, at the next answer
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    channel = Connection(int(sys.argv[2]))
    main(sys.argv[1], channel)
