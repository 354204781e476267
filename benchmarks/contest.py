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

import numpy as np

from benchmarks.cases import Case
from benchmarks.contender import Contender, ContenderFailedError
from benchmarks.floor import demands, floor_seconds, working_set
from benchmarks.machine import commit, describe_machine, today
from benchmarks.problem import make_problem
from benchmarks.providers import CEILINGS, RATIOS_TO, REFERENCE, find_provider
from benchmarks.providers.base import Outputs
from benchmarks.tolerances import largest_error, tolerance
from gpunet.bench.results import Row, Spread, spread

# A square product and a copy of which a cache holds only a small part.
_CEILING_SIZES = {"cpu": (1536, 2**26), "cuda": (8192, 2**30)}
# Idle threads of BLAS and OpenMP libraries spin for some milliseconds before they sleep.
_PAUSE_SECONDS = 0.03
# A unit of work as long as this is timed once in a round, and needs no other before it; of the second length, in
# fewer rounds.
_LONG_SECONDS, _VERY_LONG_SECONDS = 0.25, 1.0
_ROUNDS_OF_THE_VERY_LONG = 3
_START_TIMEOUT, _PREPARE_TIMEOUT, _TIME_TIMEOUT = 180.0, 420.0, 120.0
_STEPS_ON_DEVICE = 200


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
    """

    device: str = "cpu"
    rounds: int = 5
    round_seconds: float = 0.1
    threads: int = 1
    smoke: bool = False


@dataclass
class Entry:
    """A provider in a contest."""

    contender: Contender
    row: Row
    repeats: int = 1
    is_long: bool = False
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
        self._ceilings: dict[str, Contender] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="gpunet-benchmark-")

    def close(self) -> None:
        """End all processes."""
        for contender in self._contenders.values():
            contender.stop()
        self._folder.cleanup()

    def run(self, case: Case, providers: Sequence[str]) -> list[Row]:
        """Run one case and return a row for each provider, in their order."""
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
            measure_ceilings = not self.plan.smoke
            rounds = self.plan.rounds
            if longest > _VERY_LONG_SECONDS:
                rounds = min(rounds, _ROUNDS_OF_THE_VERY_LONG)
            for number in range(rounds):
                turn = number % len(running)
                for entry in running[turn:] + running[:turn]:
                    self._take_turn(entry)
                if measure_ceilings:
                    self._measure_ceilings(case, ceilings)
        for entry in running:
            self._conclude(entry)
        self._add_numbers(case, entries, ceilings)
        return [entry.row for entry in entries]

    def _contender(self, name: str) -> Contender:
        return self._contenders.setdefault(name, Contender(name, self.plan.threads))

    def _reference(self, case: Case) -> Outputs:
        """Return the outputs in float64, by the NumPy operations that are gpunet's specification."""
        path = Path(self._folder.name) / "reference.npz"
        contender = self._contender(REFERENCE)
        contender.start(_START_TIMEOUT)
        double = case.replace(dtype="float64", precision="float32")
        contender.ask(_PREPARE_TIMEOUT, command="prepare", case=double.as_dict(), outputs=str(path))
        contender.ask(_TIME_TIMEOUT, command="finish")
        return _read(path)

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
            contender.start(_START_TIMEOUT)
            if contender.missing:
                row.status, row.reason = "missing", contender.missing
                return
            row.versions, row.blas, row.import_seconds = contender.versions, contender.blas, contender.import_seconds
            answer = contender.ask(_PREPARE_TIMEOUT, command="prepare", case=case.as_dict(), outputs=str(path))
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
        """Choose how often each provider does the work in a round; return the seconds of the slowest one's work."""
        longest = 0.0
        for entry in entries:
            if self.plan.smoke:
                continue
            with self._failing(entry):
                once = self._ask_time(entry, 1)[0]
                if once < _LONG_SECONDS:
                    once = min(once, self._ask_time(entry, 1)[0])
                longest = max(longest, once)
                entry.is_long = once > _LONG_SECONDS
                entry.repeats = 1 if entry.is_long else max(1, round(self.plan.round_seconds / once))
                if entry.row.on_device and not entry.is_long:
                    entry.repeats = max(_STEPS_ON_DEVICE, entry.repeats)
        return longest

    def _take_turn(self, entry: Entry) -> None:
        if entry.row.status != "ok":
            return
        with self._failing(entry):
            if not self.plan.smoke:
                time.sleep(_PAUSE_SECONDS)
                if not (entry.is_long or entry.row.on_device):
                    self._ask_time(entry, 1)  # caches and clocks, after the others had theirs
            host, device = self._ask_time(entry, entry.repeats)
            entry.host.append(host)
            if device is not None:
                entry.device.append(device)

    def _ask_time(self, entry: Entry, repeats: int) -> tuple[float, float | None]:
        answer = entry.contender.ask(_TIME_TIMEOUT, command="time", repeats=repeats)
        return answer["host"], answer["device"]

    def _conclude(self, entry: Entry) -> None:
        if entry.row.status == "ok":
            with self._failing(entry):
                answer = entry.contender.ask(_TIME_TIMEOUT, command="finish")
                entry.row.peak_bytes, entry.row.launches = answer["peak_bytes"], answer["launches"]

    @contextmanager
    def _failing(self, entry: Entry) -> Iterator[None]:
        """Let a provider's failure end its part in this contest, and nothing else."""
        try:
            yield
        except ContenderFailedError as error:
            entry.row.status, entry.row.reason = "failed", str(error)

    def _measure_ceilings(self, case: Case, samples: dict[str, list[float]]) -> None:
        """Add one sample of each ceiling, by the library that reached the higher one when the contests began."""
        if self._ceilings is None:
            self._ceilings = self._choose_ceilings()
        for kind, contender in self._ceilings.items():
            time.sleep(_PAUSE_SECONDS)
            ceiling = self._ceiling_case(kind, case)
            if not samples[kind]:
                contender.ask(_PREPARE_TIMEOUT, command="prepare", case=ceiling.as_dict(), outputs=None)
            seconds = contender.ask(_TIME_TIMEOUT, command="time", repeats=1)
            elapsed = seconds["host"] if seconds["device"] is None else seconds["device"]
            (demand,) = demands(ceiling)
            samples[kind].append((demand.operations if kind == "gemm" else demand.bytes) / elapsed)

    def _choose_ceilings(self) -> dict[str, Contender]:
        chosen: dict[str, Contender] = {}
        names = CEILINGS[self.plan.device]
        for kind in ("gemm", "copy"):
            best = math.inf
            for name in names:
                # A process for each kind: it holds one prepared case.
                contender = Contender(name, self.plan.threads)
                self._contenders[f"{name} {kind}"] = contender
                contender.start(_START_TIMEOUT)
                if contender.missing:
                    continue
                ceiling = self._ceiling_case(kind, None)
                contender.ask(_PREPARE_TIMEOUT, command="prepare", case=ceiling.as_dict(), outputs=None)
                elapsed = min(contender.ask(_TIME_TIMEOUT, command="time", repeats=1)["host"] for _ in range(3))
                if elapsed < best:
                    best, chosen[kind] = elapsed, contender
            for name in names:
                if self._contenders[f"{name} {kind}"] is not chosen.get(kind):
                    self._contenders.pop(f"{name} {kind}").stop()
        return chosen

    def _ceiling_case(self, kind: str, case: Case | None) -> Case:
        side, elements = _CEILING_SIZES[self.plan.device]
        sizes = (side, side) if kind == "gemm" else (elements,)
        dtype, precision = ("float32", "float32") if case is None else (case.dtype, case.precision)
        return Case(f"ceiling_{kind}", "forward", kind, side, sizes, dtype=dtype, precision=precision)

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
            if ceilings["gemm"] and row.on_device == on_device:
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
    return {name: np.asarray(value, np.float64) for name, value in make_problem(case).parameters.items()}


def _read(path: Path) -> Outputs:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}
