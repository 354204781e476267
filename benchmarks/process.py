"""A worker process as the comparison sees it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.machine import ROOT
from gpunet.errors import GpunetError

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_SHOWN_LINES = 3


class PeerFailedError(GpunetError):
    """A peer raised, crashed or hung; its process is gone unless it raised."""


class WorkerProcess:
    """Starts a worker and talks to it.

    Parameters
    ----------
    peer : str
        Its name.
    threads : int
        Cores that the process may use and threads that it is told to take.

    Attributes
    ----------
    missing : str or None
        Why this machine cannot run the peer.
    description : dict
        ``versions``, ``import_seconds`` and ``blas`` of the worker, once it has started.
    """

    def __init__(self, peer: str, threads: int) -> None:
        self.peer = peer
        self.threads = threads
        self.missing: str | None = None
        self.description: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None

    def start(self, timeout: float) -> None:
        """Start the process unless it runs, and learn what it is.

        Raises
        ------
        PeerFailedError
        """
        if self._process is not None or self.missing:
            return
        self._errors = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(self.threads))}
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", self.peer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        if hasattr(os, "sched_setaffinity"):  # what counts cores and not variables, such as XLA, gets them too
            with contextlib.suppress(OSError):
                cores = sorted(os.sched_getaffinity(0))[: self.threads]
                os.sched_setaffinity(self._process.pid, cores)
        answer = self.ask(timeout, command="describe")
        self.missing = answer.get("missing")
        if self.missing:
            self.stop()
        else:
            self.description = answer

    def ask(self, timeout: float, **command: Any) -> dict[str, Any]:
        """Send a command and return the answer.

        Raises
        ------
        PeerFailedError
            The peer raised; or the process ended or did not answer in time, and has been stopped.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(command, default=dataclasses.asdict) + "\n")
            process.stdin.flush()
        except OSError:
            raise self._crashed() from None
        answer: dict[str, Any] = json.loads(self._read_line(process, timeout))
        if "failed" in answer:
            raise PeerFailedError(answer["failed"])
        return answer

    def dismiss(self) -> None:
        """Tell the process to end, and do not wait for it."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def stop(self) -> None:
        """End the process."""
        self.dismiss()
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdout is not None:
            with contextlib.suppress(OSError):
                process.stdout.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._errors.close()

    def _read_line(self, process: subprocess.Popen[str], timeout: float) -> str:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout):
                process.kill()
                self.stop()
                raise PeerFailedError(f"did not answer within {timeout:.0f} s")
        line = process.stdout.readline()  # a worker writes whole lines at once
        if not line.endswith("\n"):  # nothing more will come: it died, perhaps within the line
            raise self._crashed()
        return line

    def _crashed(self) -> PeerFailedError:
        assert self._process is not None
        status = self._process.wait()
        self._errors.seek(0)
        said = [line.strip() for line in self._errors.read().splitlines() if line.strip()][-_SHOWN_LINES:]
        self.stop()
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return PeerFailedError(f"the process {how}{': ' if said else ''}{' | '.join(said)}")
