"""What the CPU step is to reach beside the peers, what it has reached, and what bounds it where it misses.

All numbers are of one result file: ratios of medians, and the floor of a network's work, its floating-point operations
in matrix products at the rate of a large product in the same rounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from gpunet.errors import counted

from .frame import frame, markdown
from .results import BESIDE, SHORT_COMMIT, Case, Results, Row
from .roofline import demands
from .words import NOTHING, case_name, milliseconds, significant, times, work

if TYPE_CHECKING:
    import pandas as pd

NUMPY, COMPILED, MKL = "gpunet-numpy", "gpunet-compiled", "gpunet-compiled-mkl"
EAGER, TUNED = "torch-eager", "torch-tuned"
CONFIGURATIONS = "abcde"
AGAINST_PYTORCH = "PyTorch (tuned or compiled)"
Goals: TypeAlias = tuple[float | None, ...]  # at a to e, None for none
_OF_SKLEARN: Goals = (3.0, None, None, None, 4.0)
_OF_JAX: Goals = (1.1, 1.05, 1.0, 1.1, 2.0)
# What stands at the head of a line; the peers, of whom the fastest counts; with or without batch norm; the targets.
_AGAINST: list[tuple[str, tuple[str, ...], bool, dict[str, Goals]]] = [
    (
        AGAINST_PYTORCH,
        (TUNED, "torch-compile"),
        True,
        {MKL: (1.3, 1.1, 1.05, 1.1, 1.5), COMPILED: (1.1, 0.9, 1.0, 1.0, 1.2)},
    ),
    ("PyTorch (eager)", (EAGER,), True, {}),
    ("JAX", ("jax",), True, {MKL: _OF_JAX, COMPILED: _OF_JAX}),
    ("scikit-learn, no batch norm", ("sklearn",), False, {MKL: _OF_SKLEARN, COMPILED: _OF_SKLEARN}),
]
# At most so many times the floor.
_OF_FLOOR: dict[str, Goals] = {MKL: (1.6, 1.35, 1.15, 1.3, 1.9)}
_BATCH_NORM, _EVEN, _OF_BEST_THREADS = 2.0, 1.0, 0.9
# By case and peer.
Rows: TypeAlias = dict[Case, dict[str, Row]]


@dataclass(frozen=True)
class Check:
    """A number that was reached, and its target; ``bound`` is what it would be if products alone took time."""

    claim: str
    where: str
    reached: float
    target: float | None = None
    at_most: bool = False
    bound: float | None = None

    @property
    def shortfall(self) -> float:
        """By what share the target is missed; not above 0 where there is none or it was reached."""
        if self.target is None:
            return 0.0
        return self.reached / self.target - 1 if self.at_most else 1 - self.reached / self.target

    @property
    def is_met(self) -> bool:
        """Whether the target, if there is one, was reached."""
        return self.shortfall <= 0

    @property
    def miss(self) -> str:
        """By how much the target is missed: ``"4.5 %"``."""
        return f"{significant(100 * self.shortfall)} %"

    @property
    def in_words(self) -> str:
        """The number with its target: ``"1.05x (1.1, missed by 4.55 %)"``."""
        if self.target is None:
            return times(self.reached)
        return f"{times(self.reached)} ({self.target:g}{'' if self.is_met else f', missed by {self.miss}'})"


def targets(results: Results, table: pd.DataFrame) -> list[str]:
    """Return what each way to use gpunet on a CPU has reached; nothing without a compiled one."""
    contenders = _contenders(table)
    if all(one.name == NUMPY for one in contenders):
        return []
    return [block for one in contenders for block in one.blocks()]


def machines(files: Sequence[Results]) -> list[str]:
    """Return what the compiled training steps have reached on every machine that results are of."""
    rows = []
    for results in files:
        for one in _contenders(frame(results)):
            reached = {check.where: check.in_words for check in one.steps() if check.claim == AGAINST_PYTORCH}
            if one.name != NUMPY and reached:
                machine = f"{results.machine['cpu']}, {counted(results.machine['cores'], 'core')}"
                cells = [reached.get(label, NOTHING) for label in CONFIGURATIONS]
                rows.append([machine, one.label, *cells, one.commit[:SHORT_COMMIT]])
    if not rows:
        return []
    return [
        "Training step: how many times as long as gpunet PyTorch takes, tuned or compiled, whichever is faster, and in "
        "parentheses the target.",
        _table(["machine", "", *CONFIGURATIONS, "commit"], rows, left=2),
    ]


def _contenders(table: pd.DataFrame) -> list[_Contender]:
    """Return the ways to use gpunet on a CPU that took part."""
    lines = table[(table.device == "CPU") & (table.precision == "float32") & table.measured]
    rows: Rows = {}
    for row in lines.row:
        rows.setdefault(row.case, {})[row.peer] = row
    labels = {row.peer: row.label for row in lines.row}
    return [_Contender(name, labels[name], rows) for name in (NUMPY, COMPILED, MKL) if name in labels]


class _Contender:
    """A way to use gpunet on a CPU, and what it has reached."""

    def __init__(self, name: str, label: str, rows: Rows) -> None:
        self.name, self.label = name, label
        self.rows = {case: peers for case, peers in rows.items() if name in peers}

    @property
    def commit(self) -> str:
        """Of its newest row."""
        return max((peers[self.name] for peers in self.rows.values()), key=lambda row: row.date).commit

    def blocks(self) -> list[str]:
        """Return its paragraphs and tables."""
        steps, others = list(self.steps()), [] if self.name == NUMPY else list(self._others())
        blocks = []
        if steps:
            cells = {claim: dict.fromkeys(CONFIGURATIONS, NOTHING) for claim in _claims(steps)}
            for check in steps:
                cells[check.claim][check.where] = check.in_words
            bounds = ["", "products", "best rate", "floor", "own rate", "products at it", "step", "all but them"]
            blocks = [
                f"**{self.label}**, training step: how many times as long as gpunet a peer takes, by medians, and in "
                "parentheses the target. The last line is gpunet's own time over the floor; its target is a limit.",
                _table(["against", *CONFIGURATIONS], [[claim, *line.values()] for claim, line in cells.items()]),
                "The floor: the products' operations at the best rate that a large product reached in the rounds; "
                f"small ones reach less. {self.label} multiplies at its own.",
                _table(bounds, [self._bound(case) for case in self._configurations(batch_norm=True)]),
            ]
        if others:
            grouped = [[check for check in others if check.claim == claim] for claim in _claims(others)]
            blocks += [
                f"**{self.label}**, all else that has a target.",
                _table(["what", "target", "cases", "reached", "worst", "where"], [*map(_summary, grouped)]),
            ]
        missed = [check for check in (*steps, *others) if not check.is_met]
        if missed:
            blocks += [
                f"**What {self.label} misses**: {counted(len(missed), 'target')}. *With products alone* is what the "
                "number would be if all but its matrix products took no time: where that misses too, its BLAS library "
                "bounds it.",
                _table(
                    ["what", "where", "reached", "target", "missed by", "with products alone"],
                    [
                        [one.claim, one.where, times(one.reached), f"{one.target:g}", one.miss, times(one.bound)]
                        for one in missed
                    ],
                    left=2,
                ),
            ]
        elif any(check.target for check in (*steps, *others)):
            blocks.append(f"{self.label} misses none of the targets that were measured.")
        return blocks

    def _configurations(self, *, batch_norm: bool) -> list[Case]:
        cases = [case for case in self.rows if case.is_network and case.mode == "step" and case.label in CONFIGURATIONS]
        return sorted((case for case in cases if case.batch_norm == batch_norm), key=lambda case: case.label)

    def steps(self) -> Iterator[Check]:
        """Yield what the training steps of the configurations have reached."""
        for claim, names, batch_norm, goals in _AGAINST:
            for case in self._configurations(batch_norm=batch_norm):
                yield from self._against(claim, case.label, case, names, _goal(goals.get(self.name), case))
        for case in self._configurations(batch_norm=True):
            row = self.rows[case][self.name]
            if floor := _product_milliseconds(case, row.peaks.get("gigaflops")):
                own = _product_milliseconds(case, row.product_gigaflops)
                goal, bound = _goal(_OF_FLOOR.get(self.name), case), own / floor if own else None
                yield Check("the floor", case.label, row.median / floor, goal, at_most=True, bound=bound)

    def _others(self) -> Iterator[Check]:
        """Yield what else has a target."""
        for case, peers in self.rows.items():
            where, theirs = case_name(case), [name for name, row in peers.items() if not row.is_ours]
            if case.label == BESIDE:
                yield from self._threads(case)
            elif case.sweep:
                yield from self._against("step of a sweep, PyTorch (eager)", where, case, [EAGER], _EVEN)
            elif case.operation == "batch_norm_activation":
                yield from self._against(f"{work(case)}, PyTorch", where, case, [EAGER, TUNED], _BATCH_NORM)
            elif case.is_network and case.mode in ("forward", "epoch"):
                yield from self._against(f"{work(case).lower()}, best peer", where, case, theirs, _EVEN)
            else:
                yield from self._memory(case)

    def _against(self, claim: str, where: str, case: Case, names: Sequence[str], goal: float | None) -> Iterator[Check]:
        """Yield the time of the fastest of some peers over this one's, if any took part."""
        row = self.rows[case][self.name]
        found = [self.rows[case][name].median for name in names if name in self.rows[case]]
        if found:
            own = _product_milliseconds(case, row.product_gigaflops)
            yield Check(claim, where, min(found) / row.median, goal, bound=min(found) / own if own else None)

    def _threads(self, case: Case) -> Iterator[Check]:
        """Yield how near its own choice of threads comes to the best of those it was told."""
        told = [row.median for name, row in self.rows[case].items() if name.startswith(f"{self.name}@")]
        if told:
            reached = min(told) / self.rows[case][self.name].median
            yield Check("own choice of threads, the best number", case_name(case), reached, _OF_BEST_THREADS)

    def _memory(self, case: Case) -> Iterator[Check]:
        """Yield what a step adds to a process, over the least that it adds to PyTorch's."""
        peers = self.rows[case]
        ours = peers[self.name].growth_bytes
        theirs = [grown for name in (EAGER, TUNED) if name in peers and (grown := peers[name].growth_bytes)]
        if ours and theirs:
            yield Check("memory of a step, PyTorch's", case_name(case), ours / min(theirs), _EVEN, at_most=True)

    def _bound(self, case: Case) -> list[str]:
        """Return a configuration's floor, and what of its step is not products."""
        row = self.rows[case][self.name]
        own = _product_milliseconds(case, row.product_gigaflops)
        return [
            case.label,
            significant(_operations(case) / 1e9, "GFLOP"),
            significant(row.peaks.get("gigaflops"), "GFLOP/s"),
            milliseconds(_product_milliseconds(case, row.peaks.get("gigaflops"))),
            significant(row.product_gigaflops, "GFLOP/s"),
            milliseconds(own),
            milliseconds(row.median),
            milliseconds(max(row.median - own, 0.0) if own else None),
        ]


def _goal(goals: Goals | None, case: Case) -> float | None:
    return None if goals is None else goals[CONFIGURATIONS.index(case.label)]


def _operations(case: Case) -> float:
    """Return the floating-point operations of a case's matrix products."""
    return math.fsum(demand.operations for demand in demands(case))


def _product_milliseconds(case: Case, gigaflops: float | None) -> float | None:
    """Return how long a case's products take at a rate; None where there are none or it is unknown."""
    return 1e-6 * _operations(case) / gigaflops if gigaflops and _operations(case) else None


def _claims(checks: Sequence[Check]) -> list[str]:
    return list(dict.fromkeys(check.claim for check in checks))


def _summary(checks: Sequence[Check]) -> list[str]:
    """Return a line on checks of one claim."""
    worst = max(checks, key=lambda check: check.shortfall)
    met = sum(check.is_met for check in checks)
    goal = f"{'at most ' if worst.at_most else ''}{worst.target:g}"
    return [worst.claim, goal, str(len(checks)), str(met), times(worst.reached), worst.where]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    import pandas as pd

    return markdown(pd.DataFrame(rows, columns=columns), left=left)
