"""The two rates that the roofline is computed from, of a large matrix product and of a large copy."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

from benchmarks.problem import PEAK
from benchmarks.process import PeerFailedError, WorkerProcess
from benchmarks.report.results import Case
from benchmarks.roofline import demands

# Peers whose product and copy may be the best ones.
CANDIDATES = {"cpu": ("gpunet-numpy", "torch-tuned"), "cuda": ("gpunet-cuda",)}
# A square product and a copy of which a cache holds only a small part.
_SIZES = {"cpu": (1536, 2**26), "cuda": (8192, 2**28)}
# A GPU raises its clock while it works, within milliseconds: what is timed comes after as much that is not.
_REPEATS = {"cpu": 1, "cuda": 4}
_TRIALS = 3


class Peaks:
    """Measures both, each by the library that is the best at it; a machine on which that fails has none.

    Parameters
    ----------
    device : str
    start : callable
        Starts a peer and returns its process.
    ask : callable
        Sends a process a command and returns the answer.
    """

    def __init__(self, device: str, start: Callable[[str], WorkerProcess], ask: Callable[..., dict[str, Any]]) -> None:
        self.device = device
        self._start = start
        self._ask = ask
        self._chosen: dict[str, WorkerProcess] | None = None
        self._prepared: dict[str, Case] = {}

    def measure(self, case: Case) -> dict[str, float]:
        """Return ``gigaflops`` and ``gigabytes_per_second``, one sample each; nothing where one cannot be measured."""
        try:
            if self._chosen is None:
                self._chosen = {operation: self._choose(operation) for operation in ("gemm", "copy")}
            rates = {operation: self._rate(operation, worker, case) for operation, worker in self._chosen.items()}
        except PeerFailedError:
            # If one was chosen it worked before: begin anew. Else nobody can.
            self._chosen, self._prepared = None if self._chosen else {}, {}
            return {}
        return {"gigaflops": rates["gemm"] / 1e9, "gigabytes_per_second": rates["copy"] / 1e9} if rates else {}

    def _choose(self, operation: str) -> WorkerProcess:
        """Return a process for one operation (it holds one prepared case) of the fastest peer."""
        timed: list[tuple[float, WorkerProcess]] = []
        for name in CANDIDATES[self.device]:
            with contextlib.suppress(PeerFailedError):
                worker = self._start(name)
                if not worker.missing:
                    self._prepare(worker, _large_case(operation, self.device, None))
                    timed.append((min(self._time(worker) for _ in range(_TRIALS)), worker))
        if not timed:
            raise PeerFailedError(f"no library measures the peak of {operation}")
        (_, fastest), *slower = sorted(timed, key=lambda pair: pair[0])
        for _, worker in slower:
            worker.stop()
        return fastest

    def _rate(self, operation: str, worker: WorkerProcess, case: Case) -> float:
        large = _large_case(operation, self.device, case)
        if self._prepared.get(operation) != large:
            self._prepare(worker, large)
            self._prepared[operation] = large
        (demand,) = demands(large)
        return (demand.operations or demand.bytes) / self._time(worker)

    def _prepare(self, worker: WorkerProcess, large: Case) -> None:
        self._ask(worker, command="prepare", case=large, outputs=None)

    def _time(self, worker: WorkerProcess) -> float:
        repeats = _REPEATS[self.device]
        if self.device == "cuda":
            self._ask(worker, command="time", repeats=repeats)
        seconds = self._ask(worker, command="time", repeats=repeats)
        elapsed: float = seconds["host"] if seconds["device"] is None else seconds["device"]
        return elapsed if elapsed > 0 else math.inf


def _large_case(operation: str, device: str, case: Case | None) -> Case:
    side, elements = _SIZES[device]
    dtype = "float32" if case is None else case.dtype
    if operation == "copy":
        return Case("copy", "forward", PEAK, 1, (elements,), dtype=dtype)
    precision = "float32" if case is None else case.precision
    return Case("gemm", "forward", PEAK, side, (side, side), dtype=dtype, precision=precision)
