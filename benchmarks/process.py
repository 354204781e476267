"""A worker process as the comparison sees it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.peers import find_peer
from gpunet.errors import GpunetError, InvalidValueError

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_SHOWN_LINES = 3
# Three of the ticks in which Linux counts the time of processes; and longer than any library's threads spin.
_REST, _LONGEST_REST = 0.03, 1.0


class PeerFailedError(GpunetError):
    """A peer raised, crashed or hung; its process is gone unless it raised."""


class WorkerProcess:
    """Starts a worker and talks to it.

    ``missing`` says why this machine cannot run the peer; ``description`` has the worker's ``versions``,
    ``import_seconds`` and ``blas`` once it has started.

    Parameters
    ----------
    peer : str
        Its name.
    threads : int
        Cores that the process may use and threads that it is told to take.
    """

    def __init__(self, peer: str, threads: int) -> None:
        self.peer = peer
        self.threads = threads
        self.missing: str | None = None
        self.description: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float) -> None:
        """Start the process unless it runs, and learn what it is, or raise PeerFailedError."""
        if self._process is not None or self.missing:
            return
        try:
            peer = find_peer(self.peer)
        except InvalidValueError as error:
            raise PeerFailedError(str(error)) from None
        self._said = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(peer.threads or self.threads))}
        environment |= peer.environment
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
        self._channel, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", self.peer, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                cwd=ROOT,
                env=environment,
                pass_fds=[theirs.fileno()],
            )
        if hasattr(os, "sched_setaffinity"):  # what counts cores and not variables, such as XLA, gets them too
            with contextlib.suppress(OSError):
                cores = sorted(os.sched_getaffinity(0))[: self.threads]
                os.sched_setaffinity(self._process.pid, cores)
        described = self.ask(timeout, "describe")
        if isinstance(described, str):
            self.missing = described
            self.stop()
        else:
            self.description = described

    def ask(self, timeout: float, command: str, *arguments: Any) -> Any:
        """Send a command, a method of :class:`benchmarks.worker.Worker`, and return the answer.

        PeerFailedError says that the peer raised; or that the process ended or did not answer in time, and was stopped.
        """
        assert self._process is not None
        try:
            self._channel.send((command, arguments))
            if not self._channel.poll(timeout):
                self._process.kill()
                self.stop()
                raise PeerFailedError(f"did not answer within {timeout:.0f} s")
            answer, failure = self._channel.recv()
        except (EOFError, OSError):  # it died, perhaps within the answer
            raise self._crashed(self._process) from None
        if failure:
            raise PeerFailedError(failure)
        return answer

    def rest(self) -> None:
        """Wait until the process computes no more: idle threads of BLAS and OpenMP libraries spin before they sleep."""
        ends_at, used = time.monotonic() + _LONGEST_REST, -1.0
        while used != (used := self._cpu_seconds()) and time.monotonic() < ends_at:
            time.sleep(_REST)

    def _cpu_seconds(self) -> float:
        """Return what time its threads have had on cores; 0 where the system does not say."""
        with contextlib.suppress(OSError):
            if self._process is None:
                return 0.0
            numbers = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(numbers[11]) + int(numbers[12])) / float(os.sysconf("SC_CLK_TCK"))
        return 0.0

    def dismiss(self) -> None:
        """Tell the process to end, and do not wait for it."""
        if self._process is not None:
            self._channel.close()

    def stop(self) -> None:
        """End the process."""
        self.dismiss()
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._said.close()

    def _crashed(self, process: subprocess.Popen[bytes]) -> PeerFailedError:
        status = process.wait()
        self._said.seek(0)
        said = [line.strip() for line in self._said.read().splitlines() if line.strip()][-_SHOWN_LINES:]
        self.stop()
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return PeerFailedError(f"the process {how}{': ' if said else ''}{' | '.join(said)}")
