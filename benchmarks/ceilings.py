"""The two rates that the floor is computed from: of a large matrix product and of a large copy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from benchmarks.cases import Case
from benchmarks.contender import Contender, ContenderFailedError
from benchmarks.floor import demands
from benchmarks.providers import CEILINGS

# A square product and a copy of which a cache holds only a small part.
_SIZES = {"cpu": (1536, 2**26), "cuda": (8192, 2**30)}
# A GPU raises its clock while it works, within milliseconds: what is timed comes after as much that is not.
_REPEATS = {"cpu": 1, "cuda": 4}
_TRIALS = 3

# Sends a command to a contender; starts one.
Ask = Callable[..., dict[str, Any]]


class Ceilings:
    """Measures both, each by the library that is the best at it; a machine on which that fails has none.

    Parameters
    ----------
    device : str
    start : callable
        Starts a contender and returns it.
    ask : callable
        Sends a contender a command and returns the answer.
    """

    def __init__(self, device: str, start: Callable[[str], Contender], ask: Ask) -> None:
        self.device = device
        self._start = start
        self._ask = ask
        self._chosen: dict[str, Contender] | None = None
        self._prepared: dict[str, Case] = {}

    def measure(self, case: Case) -> dict[str, float]:
        """Return one sample of each, in operations and in bytes a second; nothing where one cannot be measured."""
        if self._chosen is None:
            try:
                self._chosen = {kind: self._choose(kind) for kind in ("gemm", "copy")}
            except ContenderFailedError:
                self._chosen = {}
        try:
            return {kind: self._rate(kind, contender, case) for kind, contender in self._chosen.items()}
        except ContenderFailedError:
            self._chosen, self._prepared = None, {}  # it worked before: begin anew
            return {}

    def _choose(self, kind: str) -> Contender:
        """Return a process for one kind (it holds one prepared case) of the fastest library."""
        best: tuple[float, Contender] | None = None
        for name in CEILINGS[self.device]:
            try:
                contender = self._start(name)
                if contender.missing:
                    continue
                self._prepare(contender, _ceiling_case(kind, self.device, None))
                elapsed = min(self._time(contender) for _ in range(_TRIALS))
            except ContenderFailedError:
                continue
            if best is None or elapsed < best[0]:
                if best is not None:
                    best[1].stop()
                best = elapsed, contender
            else:
                contender.stop()
        if best is None:
            raise ContenderFailedError(f"no library measures the ceiling of {kind}")
        return best[1]

    def _rate(self, kind: str, contender: Contender, case: Case) -> float:
        ceiling = _ceiling_case(kind, self.device, case)
        if self._prepared.get(kind) != ceiling:
            self._prepare(contender, ceiling)
            self._prepared[kind] = ceiling
        (demand,) = demands(ceiling)
        return (demand.operations if kind == "gemm" else demand.bytes) / self._time(contender)

    def _prepare(self, contender: Contender, ceiling: Case) -> None:
        self._ask(contender, command="prepare", case=ceiling.as_dict(), outputs=None)

    def _time(self, contender: Contender) -> float:
        repeats = _REPEATS[self.device]
        if self.device == "cuda":
            self._ask(contender, command="time", repeats=repeats)
        seconds = self._ask(contender, command="time", repeats=repeats)
        elapsed: float = seconds["host"] if seconds["device"] is None else seconds["device"]
        return elapsed if elapsed > 0 else math.inf


def _ceiling_case(kind: str, device: str, case: Case | None) -> Case:
    side, elements = _SIZES[device]
    sizes = (side, side) if kind == "gemm" else (elements,)
    dtype = "float32" if case is None else case.dtype
    precision = "float32" if case is None or kind == "copy" else case.precision
    return Case(f"ceiling_{kind}", "forward", kind, side, sizes, dtype=dtype, precision=precision)
