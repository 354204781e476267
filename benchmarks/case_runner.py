"""A case: every peer does it, in rounds in each of which all do it one after the other.

Rounds make the ratios honest on a machine whose speed changes from one second to the next: round i of one peer ran
beside round i of the others, and beside the two rates that the roofline is computed from.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.cases import shrink
from benchmarks.machine import commit, describe_machine, gpu_clock, now
from benchmarks.neighbour import busy_neighbour
from benchmarks.peaks import PEAKS, Peaks
from benchmarks.peers import RATIOS_TO, REFERENCE, find_peer
from benchmarks.peers.peer import Outputs
from benchmarks.problem import make_problem
from benchmarks.process import PeerFailedError, WorkerProcess
from benchmarks.report.results import OURS, Case, Row, spread
from benchmarks.report.roofline import demands, roofline_seconds, working_set
from benchmarks.tolerances import largest_error, tolerance

T = TypeVar("T")

# A unit of work as long as this is timed once in a round, and needs no other before it; of the second length, in
# fewer rounds.
_LONG_SECONDS, _VERY_LONG_SECONDS = 0.25, 1.0
_ROUNDS_OF_THE_VERY_LONG = 3
_START_TIMEOUT, _PREPARE_TIMEOUT, _TIME_TIMEOUT = 180.0, 420.0, 120.0
# Rounds beside a busy program are so many times as long: units of a tenth of a second differ by a factor of two there.
_BUSY_ROUND = 10
# Where time is short, the share of it that a peer may take to prepare: a compiler that takes longer has failed.
_PREPARE_SHARE = 1 / 3
# Steps that a GPU does in a round, unless they take longer than this; and at least, in all rounds together.
_STEPS_ON_DEVICE, _LONGEST_ROUND = 200, 0.5
# Of the units of a round on a GPU, how many more are done before it, untimed: its clock rises within milliseconds.
_WARM_UP_SHARE = 0.1
# Whose memory is compared in steps of which configurations: processes of their own, so that nothing is left of others.
_GROWTH_OF, _GROWTH_LABELS = (OURS, "torch-eager", "torch-tuned"), ("b", "d")


class OutOfTimeError(Exception):
    """The time for a case was over before it was done."""


@dataclass(frozen=True)
class Plan:
    """How cases are compared."""

    device: str = "cpu"  # or "cuda"
    rounds: int = 5
    round_seconds: float = 0.05  # about how long a peer works in a round
    threads: int = 1
    smoke: bool = False  # every case is run once, small, and nothing is worth reading
    seconds: float = math.inf  # how long all of it may take


@dataclass
class Entry:
    """A peer in a case: its process, its row, and the seconds of its unit of work, by two clocks, round by round."""

    worker: WorkerProcess
    row: Row
    repeats: int = 1
    once: float = 0.0
    host: list[float] = field(default_factory=list)
    device: list[float] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        """Whether nothing has spoken against timing the peer yet."""
        return self.row.status == "ok"

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Let a failure of the peer end its part in this case, and nothing else."""
        try:
            yield
        except PeerFailedError as error:
            self.row.status, self.row.reason = "failed", str(error)


class CaseRunner:
    """Runs cases by a plan, keeping the peers' processes between them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.machine = describe_machine(plan.device)
        self.commit = commit()
        self._workers: dict[str, WorkerProcess] = {}
        self._last: WorkerProcess | None = None  # that was asked something
        self._peaks = Peaks(plan.device, self._start_another, self._ask)
        self._ends_at = math.inf
        self._known_reference: tuple[Case, Outputs] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="gpunet-benchmark-")

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers.values():
            worker.dismiss()
        for worker in self._workers.values():
            worker.stop()
        self._folder.cleanup()

    def run(self, case: Case, peers: Sequence[str], ends_at: float = math.inf) -> list[Row]:
        """Run one case and return a row for each peer, in their order.

        Raises
        ------
        OutOfTimeError
            It was not done at ``ends_at``, by ``time.monotonic()``. The runner can only be closed then.
        """
        self._ends_at = ends_at
        try:
            reference = self._reference(case)
        except PeerFailedError as error:
            return self.give_up(case, peers, f"no reference to compare with: {error}")
        entries = [Entry(self._worker(name), self._new_row(case, name)) for name in peers]
        for entry in entries:
            with entry.failing():
                self._enter(case, entry, reference)
        running = [entry for entry in entries if entry.goes_on]
        peaks: dict[str, list[float]] = {}
        if running:
            with busy_neighbour(self.plan.threads) if case.busy else contextlib.nullcontext():
                peaks = self._run_rounds(case, running)
        self._add_numbers(case, [entry for entry in running if entry.goes_on], peaks)
        return [entry.row for entry in entries]

    def give_up(self, case: Case, peers: Sequence[str], reason: str) -> list[Row]:
        """Return the rows of a case that was not done."""
        rows = [self._new_row(case, name) for name in peers]
        for row in rows:
            row.status, row.reason = "failed", reason
        return rows

    # --- processes ---

    def _worker(self, name: str) -> WorkerProcess:
        return self._workers.setdefault(name, WorkerProcess(name, self.plan.threads))

    def _start_another(self, name: str) -> WorkerProcess:
        """Start a process of a peer beside the one that takes part."""
        worker = self._workers[f"{name} {len(self._workers)}"] = WorkerProcess(name, self.plan.threads)
        self._in_time(_START_TIMEOUT, worker.start)
        return worker

    def _ask(self, worker: WorkerProcess, command: str, *arguments: Any) -> Any:
        """Return the answer to a command, which may not take longer than its kind does or than there is time."""
        seconds = _TIME_TIMEOUT
        if command == "prepare":
            seconds = min(_PREPARE_TIMEOUT, _PREPARE_SHARE * self.plan.seconds)
        if self._last is not None and self._last is not worker and not self.plan.smoke:
            self._last.rest()
        self._last = worker
        return self._in_time(seconds, lambda timeout: worker.ask(timeout, command, *arguments))

    def _in_time(self, seconds: float, call: Callable[[float], T]) -> T:
        """Call with how long it may take; what fails because the time is over is no failure of the peer."""
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise OutOfTimeError
        try:
            return call(min(seconds, left))
        except PeerFailedError:
            if time.monotonic() >= self._ends_at:
                raise OutOfTimeError from None
            raise

    def _do_once(self, worker: WorkerProcess, case: Case) -> tuple[str | float, Outputs]:
        """Return the answer to ``prepare``, and what the peer computed; nothing where it refuses."""
        path = Path(self._folder.name) / "outputs.npz"
        answer: str | float = self._ask(worker, "prepare", case, path)
        if isinstance(answer, str):
            return answer, {}
        with np.load(path) as archive:
            return answer, dict(archive)

    # --- before the rounds ---

    def _reference(self, case: Case) -> Outputs:
        """Return the outputs in float64, by the NumPy operations that are gpunet's specification."""
        double = case.replace(dtype="float64", precision="float32")
        if self._known_reference is None or self._known_reference[0] != double:
            worker = self._worker(REFERENCE)
            self._in_time(_START_TIMEOUT, worker.start)
            _, outputs = self._do_once(worker, double)
            self._ask(worker, "finish")
            self._known_reference = double, outputs
        return self._known_reference[1]

    def _new_row(self, case: Case, name: str) -> Row:
        peer = find_peer(name)
        threads = peer.threads or self.plan.threads
        return Row(case, name, peer.label, on_device=peer.on_device, threads=threads, commit=self.commit, date=now())

    def _enter(self, case: Case, entry: Entry, reference: Outputs) -> None:
        """Let a peer build the case and do it once; its row says whether it may be timed."""
        worker, row = entry.worker, entry.row
        self._in_time(_START_TIMEOUT, worker.start)
        if worker.missing:
            row.status, row.reason = "missing", worker.missing
            return
        for name, value in worker.description.items():
            setattr(row, name, value)
        answer, outputs = self._do_once(worker, case)
        if isinstance(answer, str):
            row.status, row.reason = "refused", answer
            return
        row.first_seconds, row.tolerance = answer, tolerance(case)
        before: Outputs = {}
        if case.mode in ("step", "epoch"):
            before = {
                name: np.asarray(value, np.float64) for name, value in make_problem(case, batches=0).parameters.items()
            }
        error, where = largest_error(outputs, reference, before)
        row.error = error if math.isfinite(error) else None
        if not error <= row.tolerance:
            row.status = "wrong"
            row.reason = f"{where}: relative error {error:.2g}, and rounding explains {row.tolerance:.2g}"

    # --- the rounds ---

    def _run_rounds(self, case: Case, running: list[Entry]) -> dict[str, list[float]]:
        """Time the peers; return samples of the machine's two rates, taken in every second round."""
        self._calibrate(running)
        rounds = self.plan.rounds
        if any(entry.once > _VERY_LONG_SECONDS for entry in running):
            rounds = min(rounds, _ROUNDS_OF_THE_VERY_LONG)
        for entry in running:
            entry.repeats = self._repeats(case, entry, rounds)
        peaks: dict[str, list[float]] = {}
        for number in range(rounds):
            start = number % len(running)
            for entry in running[start:] + running[:start]:
                if entry.goes_on:
                    with entry.failing():
                        self._work(entry)
            if number % 2 == 0 and not self.plan.smoke and not case.busy:
                self._measure_peaks(case, running, peaks)
        megahertz = gpu_clock() if self.plan.device == "cuda" else 0
        for entry in running:
            entry.row.gpu_megahertz = megahertz if entry.row.on_device else 0
            if entry.goes_on:
                self._conclude(entry)
            if entry.goes_on and self._has_growth(entry.row):
                self._measure_growth(entry.row)
        return peaks

    def _calibrate(self, entries: list[Entry]) -> None:
        """Measure each peer's unit of work."""
        for entry in entries if not self.plan.smoke else ():
            with entry.failing():
                entry.once = self._time(entry, 1)[0]
                if entry.once < _LONG_SECONDS:
                    entry.once = min(entry.once, self._time(entry, 1)[0])

    def _repeats(self, case: Case, entry: Entry, rounds: int) -> int:
        """Return how often a peer does the work in a round."""
        if self.plan.smoke:
            return 1
        seconds = self.plan.round_seconds * (_BUSY_ROUND if case.busy else 1)
        repeats = math.ceil(seconds / entry.once) if entry.once else 1
        if not entry.row.on_device:
            return 1 if entry.once > _LONG_SECONDS else repeats
        steps_of_unit = max(1, case.examples // case.rows)
        units = math.ceil(_STEPS_ON_DEVICE / steps_of_unit)
        in_round = min(units, math.ceil(_LONGEST_ROUND / entry.once)) if entry.once else units
        return max(repeats, in_round, math.ceil(units / rounds))

    def _work(self, entry: Entry) -> None:
        """Let a peer do its share of a round."""
        if not self.plan.smoke:
            # Caches and clocks, after the others had theirs.
            if entry.row.on_device:
                self._time(entry, math.ceil(_WARM_UP_SHARE * entry.repeats))
            elif entry.once <= _LONG_SECONDS:
                self._time(entry, 1)
        host, device = self._time(entry, entry.repeats)
        entry.host.append(host)
        if device is not None:
            entry.device.append(device)

    def _time(self, entry: Entry, repeats: int) -> tuple[float, float | None]:
        seconds: tuple[float, float | None] = self._ask(entry.worker, "time", repeats)
        return seconds

    def _measure_peaks(self, case: Case, running: list[Entry], samples: dict[str, list[float]]) -> None:
        best, products = self._peaks.measure(case, [entry.row.peer for entry in running])
        for name, rate in (best | products).items():
            samples.setdefault(name, []).append(rate)

    # --- after them ---

    def _conclude(self, entry: Entry) -> None:
        """Ask for what is not a time; a peer that fails at it keeps its times."""
        try:
            entry.row.peak_bytes, entry.row.launches = self._ask(entry.worker, "finish")
        except PeerFailedError:
            entry.worker.stop()  # what broke off may have left the library in any state

    def _has_growth(self, row: Row) -> bool:
        case = row.case
        is_step = case.is_network and case.mode == "step" and case.label in _GROWTH_LABELS
        return is_step and self.plan.device == "cpu" and row.peer.startswith(_GROWTH_OF)

    def _measure_growth(self, row: Row) -> None:
        """Let a fresh process of the peer do the case's steps; one that fails leaves no number."""
        worker = WorkerProcess(row.peer, self.plan.threads)
        try:
            self._in_time(_START_TIMEOUT, worker.start)
            row.growth_bytes = self._ask(worker, "growth", shrink(row.case), row.case)
        except PeerFailedError:
            pass
        finally:
            worker.stop()

    def _add_numbers(self, case: Case, entries: list[Entry], peaks: dict[str, list[float]]) -> None:
        """Complete the rows: spreads, rates, ratios to gpunet, share of the roofline."""
        base = next((entry for name in RATIOS_TO for entry in entries if entry.row.peer == name), None)
        operations = math.fsum(demand.operations for demand in demands(case))
        moved = math.fsum(demand.bytes for demand in demands(case))
        for entry in entries:
            row = entry.row
            row.milliseconds = spread(1e3 * seconds for seconds in entry.host)
            row.rounds, row.repeats = [1e3 * seconds for seconds in entry.host], entry.repeats
            row.device_milliseconds = spread(1e3 * seconds for seconds in entry.device) if entry.device else None
            seconds = row.milliseconds.median / 1e3
            row.samples_per_second = case.samples / seconds
            row.gigaflops = operations / seconds / 1e9 if operations else None
            row.gigabytes_per_second = moved / seconds / 1e9
            if base is not None:
                row.ratio = spread(one / other for one, other in zip(entry.host, base.host, strict=True))
                row.ratio_to = base.row.peer
            if peaks and row.on_device == (self.plan.device == "cuda"):
                rates = {name: float(np.median(samples)) for name, samples in peaks.items()}
                row.product_gigaflops = rates.get(row.peer)
                row.peaks = {name: rates[name] for name in PEAKS if name in rates}
            if row.peaks:
                row.roofline_milliseconds = 1e3 * roofline_seconds(case, *(1e9 * rate for rate in row.peaks.values()))
                row.roofline_percent = 100 * row.roofline_milliseconds / row.milliseconds.median
                cache = self.machine.get("gpu_cache_bytes" if row.on_device else "cache_bytes", 0)
                row.cached = working_set(case) < cache
