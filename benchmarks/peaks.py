"""The two rates that the roofline is computed from, of a large matrix product and of a large copy."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from benchmarks.problem import PEAK
from benchmarks.process import PeerFailedError, WorkerProcess
from benchmarks.report.results import OURS, Case
from benchmarks.report.roofline import demands

# Peers whose product and copy may be the best ones.
# Other peers have their own rates of the product measured where they take part.
CANDIDATES = {"cpu": ("gpunet-numpy", "torch-tuned"), "cuda": ("gpunet-cuda",)}
# What a roofline is computed from.
PEAKS = ("gigaflops", "gigabytes_per_second")
# A square product and a copy of which a cache holds only a small part.
_SIZES = {"cpu": (1536, 2**26), "cuda": (8192, 2**28)}
# A GPU raises its clock while it works, within milliseconds: what is timed comes after as much that is not.
_REPEATS = {"cpu": 1, "cuda": 4}


class Peaks:
    """Measures both, each by the library that is the best at it, in processes that keep their arrays.

    ``start`` starts a peer and returns its process, ``ask`` sends it a command and returns the answer.
    """

    def __init__(self, device: str, start: Callable[[str], WorkerProcess], ask: Callable[..., Any]) -> None:
        self.device, self._start, self._ask = device, start, ask
        # By candidate and operation: its process, and the case that this has ready; None where there is none to ask.
        self._ready: dict[tuple[str, str], tuple[WorkerProcess, Case] | None] = {}

    def measure(self, case: Case, peers: Collection[str] = ()) -> tuple[dict[str, float], dict[str, float]]:
        """Return ``gigaflops`` and ``gigabytes_per_second``, one sample each; nothing where one cannot be measured.

        And the gigaflops of the product by each candidate and each of gpunet's peers.
        """
        side, elements = _SIZES[self.device]
        product = Case("gemm", "forward", PEAK, side, (side, side), dtype=case.dtype, precision=case.precision)
        copy = Case("copy", "forward", PEAK, 1, (elements,), dtype=case.dtype)
        candidates = CANDIDATES[self.device]
        ours = [name for name in peers if name.startswith(OURS) and ("cuda" in name) == (self.device == "cuda")]
        products = {name: self._rate(name, product) for name in dict.fromkeys((*candidates, *ours))}
        rates = max(products.values()), max(self._rate(name, copy) for name in candidates)
        best = dict(zip(PEAKS, rates, strict=True)) if all(rates) else {}
        return best, {name: rate for name, rate in products.items() if rate}

    def _rate(self, name: str, large: Case) -> float:
        """Return how many thousand millions of operations or bytes a candidate does in a second; 0 where it fails."""
        place = name, large.operation
        try:
            if place not in self._ready:
                self._ready[place] = None  # unless it works now
                self._prepare(place, self._start(name), large)
            if (ready := self._ready[place]) is None:
                return 0.0
            worker, prepared = ready
            if prepared != large:
                self._prepare(place, worker, large)
            if self.device == "cuda":
                self._ask(worker, "time", _REPEATS[self.device])
            host, device = self._ask(worker, "time", _REPEATS[self.device])
        except PeerFailedError:
            if broken := self._ready[place]:  # it worked before: begin anew
                broken[0].stop()
                del self._ready[place]
            return 0.0
        (demand,) = demands(large)
        return (demand.operations or demand.bytes) / (host if device is None else device) / 1e9

    def _prepare(self, place: tuple[str, str], worker: WorkerProcess, large: Case) -> None:
        if not worker.missing:
            self._ask(worker, "prepare", large, None)
            self._ready[place] = worker, large
