"""A contest: every provider does one case, in rounds in which each has its turn.

Rounds make the ratios honest on a machine whose speed changes from one second to the next: round i of one provider ran
beside round i of the others, and beside the two ceilings that the floor is computed from.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.ceilings import Ceilings
from benchmarks.contender import Contender, ContenderFailedError
from benchmarks.floor import demands, floor_seconds, working_set
from benchmarks.machine import commit, describe_machine, gpu_clock, today
from benchmarks.problem import make_problem
from benchmarks.providers import RATIOS_TO, REFERENCE, find_provider
from benchmarks.providers.base import Outputs
from benchmarks.tolerances import largest_error, tolerance
from gpunet.bench.results import Row, Spread, spread

# Idle threads of BLAS and OpenMP libraries spin for some milliseconds before they sleep.
_PAUSE_SECONDS = 0.03
# A unit of work as long as this is timed once in a round, and needs no other before it; of the second length, in
# fewer rounds.
_LONG_SECONDS, _VERY_LONG_SECONDS = 0.25, 1.0
_ROUNDS_OF_THE_VERY_LONG = 3
_START_TIMEOUT, _PREPARE_TIMEOUT, _TIME_TIMEOUT = 180.0, 420.0, 120.0
# Where time is short, the share of it that a provider may take to prepare: a compiler that takes longer has failed.
_PREPARE_SHARE = 1 / 3
# Steps that a GPU does in a turn, unless they take longer than this; and at least, in all turns together.
_STEPS_ON_DEVICE, _LONGEST_TURN = 200, 0.5
# Of the units of a turn on a GPU, how many more are done before it, untimed: its clock rises within milliseconds.
_WARM_UP_SHARE = 0.1


class OutOfTimeError(Exception):
    """The time for a case was over before it was done."""


@dataclass(frozen=True)
class Plan:
    """How contests are run.

    Attributes
    ----------
    device : str
        ``"cpu"`` or ``"cuda"``.
    rounds : int
    round_seconds : float
        About how long a provider's turn in a round lasts.
    threads : int
    smoke : bool
        Every case is run once, small, and nothing is worth reading.
    seconds : float
        How long all of it may take.
    """

    device: str = "cpu"
    rounds: int = 5
    round_seconds: float = 0.05
    threads: int = 1
    smoke: bool = False
    seconds: float = math.inf


@dataclass
class Entry:
    """A provider in a contest."""

    contender: Contender
    row: Row
    repeats: int = 1
    once: float = 0.0
    host: list[float] = field(default_factory=list)
    device: list[float] = field(default_factory=list)


class Contest:
    """Runs cases, keeping the providers' processes between them.

    Parameters
    ----------
    plan : Plan
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.machine = describe_machine(plan.device)
        self.commit = commit()
        self._contenders: dict[str, Contender] = {}
        self._ceilings = Ceilings(plan.device, self._start_ceiling, self._ask)
        self._ends_at = math.inf
        self._known_reference: tuple[Case, Outputs] | None = None
        self._uncounted: set[str] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="gpunet-benchmark-")

    def close(self) -> None:
        """End all processes."""
        for contender in self._contenders.values():
            contender.dismiss()
        for contender in self._contenders.values():
            contender.stop()
        self._folder.cleanup()

    def run(self, case: Case, providers: Sequence[str], ends_at: float = math.inf) -> list[Row]:
        """Run one case and return a row for each provider, in their order.

        Parameters
        ----------
        case : Case
        providers : sequence of str
        ends_at : float
            When it has to be done, by ``time.monotonic()``.

        Raises
        ------
        OutOfTimeError
            It was not. The contest can only be closed then.
        """
        self._ends_at = ends_at
        entries = [self._entry(case, name) for name in providers]
        try:
            reference = self._reference(case)
        except ContenderFailedError as error:
            for entry in entries:
                entry.row.status, entry.row.reason = "failed", f"no reference to compare with: {error}"
            return [entry.row for entry in entries]
        for entry in entries:
            self._enter(case, entry, reference)
        running = [entry for entry in entries if entry.row.status == "ok"]
        ceilings: dict[str, list[float]] = {"gemm": [], "copy": []}
        if running:
            longest = self._calibrate(running)
            first, rounds = 0, self.plan.rounds
            if longest > _VERY_LONG_SECONDS:
                rounds = min(rounds, _ROUNDS_OF_THE_VERY_LONG)
                if self.plan.device == "cpu":  # a unit this long needs none before it: the calibration was a round
                    first = 1
                    for entry in running:
                        entry.host.append(entry.once)
            for entry in running:
                entry.repeats = self._repeats(case, entry, rounds)
            for number in range(first, rounds):
                turn = number % len(running)
                for entry in running[turn:] + running[:turn]:
                    self._take_turn(entry)
                if number % 2 == first and not self.plan.smoke:
                    self._measure_ceilings(case, ceilings)
            megahertz = gpu_clock() if self.plan.device == "cuda" else 0
            for entry in running:
                entry.row.gpu_megahertz = megahertz if entry.row.on_device else 0
                self._conclude(entry)
        self._add_numbers(case, entries, ceilings)
        return [entry.row for entry in entries]

    def give_up(self, case: Case, providers: Sequence[str], reason: str) -> list[Row]:
        """Return the rows of a case that was not done."""
        rows = [self._entry(case, name).row for name in providers]
        for row in rows:
            row.status, row.reason = "failed", reason
        return rows

    def _contender(self, name: str) -> Contender:
        return self._contenders.setdefault(name, Contender(name, self.plan.threads))

    def _start_ceiling(self, name: str) -> Contender:
        contender = self._contenders[f"{name} {len(self._contenders)}"] = Contender(name, self.plan.threads)
        self._start(contender)
        return contender

    def _start(self, contender: Contender) -> None:
        try:
            contender.start(self._limited(_START_TIMEOUT))
        except ContenderFailedError:
            self._check_time()
            raise

    def _ask(self, contender: Contender, **command: Any) -> dict[str, Any]:
        """Return the answer to a command, which may not take longer than its kind does or than there is time."""
        timeout = _TIME_TIMEOUT
        if command["command"] == "prepare":
            timeout = min(_PREPARE_TIMEOUT, _PREPARE_SHARE * self.plan.seconds)
        try:
            return contender.ask(self._limited(timeout), **command)
        except ContenderFailedError:
            self._check_time()
            raise

    def _limited(self, timeout: float) -> float:
        self._check_time()
        return min(timeout, self._ends_at - time.monotonic())

    def _check_time(self) -> None:
        if time.monotonic() >= self._ends_at:
            raise OutOfTimeError

    def _reference(self, case: Case) -> Outputs:
        """Return the outputs in float64, by the NumPy operations that are gpunet's specification."""
        double = case.replace(dtype="float64", precision="float32")
        if self._known_reference is None or self._known_reference[0] != double:
            path = Path(self._folder.name) / "reference.npz"
            contender = self._contender(REFERENCE)
            self._start(contender)
            self._ask(contender, command="prepare", case=double.as_dict(), outputs=str(path))
            self._ask(contender, command="release")
            self._known_reference = double, _read(path)
        return self._known_reference[1]

    def _entry(self, case: Case, name: str) -> Entry:
        provider = find_provider(name)
        row = Row(
            case=case.as_dict(),
            key=case.key,
            provider=name,
            label=provider.label,
            on_device=provider.on_device,
            threads=self.plan.threads,
            commit=self.commit,
            date=today(),
        )
        return Entry(self._contender(name), row)

    def _enter(self, case: Case, entry: Entry, reference: Outputs) -> None:
        """Let a provider build the case and do it once; its row says whether it may be timed."""
        contender, row = entry.contender, entry.row
        path = Path(self._folder.name) / "outputs.npz"
        try:
            self._start(contender)
            if contender.missing:
                row.status, row.reason = "missing", contender.missing
                return
            row.versions, row.blas, row.import_seconds = contender.versions, contender.blas, contender.import_seconds
            answer = self._ask(contender, command="prepare", case=case.as_dict(), outputs=str(path))
        except ContenderFailedError as error:
            row.status, row.reason = "failed", str(error)
            return
        if "refused" in answer:
            row.status, row.reason = "refused", answer["refused"]
            return
        row.first_seconds = answer["first_seconds"]
        row.tolerance = tolerance(case)
        error, where = largest_error(_read(path), reference, _before(case))
        row.error = error if math.isfinite(error) else None
        if not error <= row.tolerance:
            row.status = "wrong"
            row.reason = f"{where}: relative error {error:.2g}, and rounding explains {row.tolerance:.2g}"

    def _calibrate(self, entries: list[Entry]) -> float:
        """Measure each provider's unit of work; return the seconds of the slowest."""
        for entry in entries:
            if self.plan.smoke:
                continue
            with self._failing(entry):
                entry.once = self._ask_time(entry, 1)[0]
                if entry.once < _LONG_SECONDS:
                    entry.once = min(entry.once, self._ask_time(entry, 1)[0])
        return max(entry.once for entry in entries)

    def _repeats(self, case: Case, entry: Entry, rounds: int) -> int:
        """Return how often a provider does the work in a turn."""
        if self.plan.smoke:
            return 1
        repeats = math.ceil(self.plan.round_seconds / entry.once) if entry.once else 1
        if not entry.row.on_device:
            return 1 if entry.once > _LONG_SECONDS else repeats
        steps_of_unit = max(1, case.examples // case.rows)
        units = math.ceil(_STEPS_ON_DEVICE / steps_of_unit)
        in_turn = min(units, math.ceil(_LONGEST_TURN / entry.once)) if entry.once else units
        return max(repeats, in_turn, math.ceil(units / rounds))

    def _take_turn(self, entry: Entry) -> None:
        if entry.row.status != "ok":
            return
        with self._failing(entry):
            if not self.plan.smoke:
                time.sleep(_PAUSE_SECONDS)
                # Caches and clocks, after the others had theirs.
                if entry.row.on_device:
                    self._ask_time(entry, math.ceil(_WARM_UP_SHARE * entry.repeats))
                elif entry.once <= _LONG_SECONDS:
                    self._ask_time(entry, 1)
            host, device = self._ask_time(entry, entry.repeats)
            entry.host.append(host)
            if device is not None:
                entry.device.append(device)

    def _ask_time(self, entry: Entry, repeats: int) -> tuple[float, float | None]:
        answer = self._ask(entry.contender, command="time", repeats=repeats)
        return answer["host"], answer["device"]

    def _conclude(self, entry: Entry) -> None:
        """Ask for what is not a time. A provider that fails at it keeps its times, and is not asked again."""
        row, contender = entry.row, entry.contender
        if row.status != "ok":
            return
        try:
            row.peak_bytes = self._ask(contender, command="peak")["peak_bytes"]
            if row.provider not in self._uncounted:
                row.launches = self._ask(contender, command="launches")["launches"]
            self._ask(contender, command="release")
        except ContenderFailedError:
            self._uncounted.add(row.provider)
            contender.stop()  # what broke off may have left the library in any state

    @contextmanager
    def _failing(self, entry: Entry) -> Iterator[None]:
        """Let a provider's failure end its part in this contest, and nothing else."""
        try:
            yield
        except ContenderFailedError as error:
            entry.row.status, entry.row.reason = "failed", str(error)

    def _measure_ceilings(self, case: Case, samples: dict[str, list[float]]) -> None:
        time.sleep(_PAUSE_SECONDS)
        for kind, rate in self._ceilings.measure(case).items():
            samples[kind].append(rate)

    def _add_numbers(self, case: Case, entries: list[Entry], ceilings: dict[str, list[float]]) -> None:
        """Complete the rows: spreads, rates, ratios to gpunet, share of the floor."""
        on_device = self.plan.device == "cuda"
        finished = {entry.row.provider: entry for entry in entries if entry.row.status == "ok"}
        base = next((finished[name] for name in RATIOS_TO if name in finished), None)
        operations = math.fsum(demand.operations for demand in demands(case))
        moved = math.fsum(demand.bytes for demand in demands(case))
        for entry in finished.values():
            row = entry.row
            row.milliseconds = spread(1e3 * seconds for seconds in entry.host)
            row.rounds, row.repeats = [1e3 * seconds for seconds in entry.host], entry.repeats
            row.device_milliseconds = spread(1e3 * seconds for seconds in entry.device) if entry.device else None
            seconds = row.milliseconds.median / 1e3
            row.samples_per_second = case.samples / seconds
            row.gigaflops = operations / seconds / 1e9 if operations else None
            row.gigabytes_per_second = moved / seconds / 1e9
            if base is not None:
                row.ratio = _ratio(entry.host, base.host)
                row.ratio_to = base.row.provider
            if ceilings["gemm"] and ceilings["copy"] and row.on_device == on_device:
                gemm, copy = (float(np.median(ceilings[kind])) for kind in ("gemm", "copy"))
                row.ceilings = {"gigaflops": gemm / 1e9, "gigabytes_per_second": copy / 1e9}
                row.floor_milliseconds = 1e3 * floor_seconds(case, gemm, copy)
                row.floor_percent = 100 * row.floor_milliseconds / row.milliseconds.median
                cache = self.machine.get("gpu_cache_bytes" if row.on_device else "cache_bytes", 0)
                row.cached = working_set(case) < cache


def _ratio(host: list[float], base: list[float]) -> Spread:
    return spread(one / other for one, other in zip(host, base, strict=True))


def _before(case: Case) -> Outputs:
    """Return the parameters that steps start from."""
    if case.mode not in ("step", "epoch"):
        return {}
    return {name: np.asarray(value, np.float64) for name, value in make_problem(case, batches=0).parameters.items()}


def _read(path: Path) -> Outputs:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}
