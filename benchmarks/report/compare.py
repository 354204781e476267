"""Two result files against each other: what got slower, faster, wrong, and whether that is beyond the noise.

A difference of one row counts when, with t the median, [p10, p90] the interval over the rounds and
h = (p90 - p10) / (2 t) its relative half-width,

- the intervals of the two runs do not overlap, and
- the ratio of the medians is above 1 + max(0.05, 2 sqrt(h_old^2 + h_new^2)), or below its inverse,

and when both hold again after the old times were scaled to the machine's state in the new run. That state is what the
peaks of the two runs say, a large matrix product and a large copy that ran between the same rounds: the roofline of the
case at the new peaks over that at the old ones. Where a roofline is missing, or moved further than its peaks (another
way of counting), both peaks take its place and both have to agree. With fewer than five rounds in either
run, percentiles say little, and the row is not judged.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gpunet.errors import InvalidValueError

from .results import Results, Row, Spread, spread
from .words import NOTHING, case_name, milliseconds, place, plural, precision, times

FASTER, SLOWER, UNCHANGED, UNJUDGED = "faster", "slower", "unchanged", "too few rounds"
NEW, GONE, REPAIRED, STILL = "new", "gone", "repaired", "still without a time"
WRONG, FAILED, REFUSED, MISSING = "now wrong", "now failed", "now refused", "now missing"
# What makes a new version of gpunet worse. A missing package is the machine's doing.
WORSE = (WRONG, FAILED, REFUSED, SLOWER)
VERDICTS = (*WORSE, MISSING, GONE, REPAIRED, FASTER, NEW, STILL, UNJUDGED, UNCHANGED)

_SMALLEST_CHANGE = 0.05
_HALF_WIDTHS = 2.0
_FEWEST_ROUNDS = 5
_QUIET_THRESHOLD = 1.15
# Files keep five digits.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Change:
    """What became of one peer in one case.

    Attributes
    ----------
    verdict : str
        One of ``VERDICTS``.
    old, new : Row or None
    ratio : float or None
        New median over old one.
    scaled : float or None
        The same after the old times were scaled to the machine's state in the new run; of several scales the one that
        says least.
    threshold : float or None
        What both have to be above, or below its inverse.
    """

    verdict: str
    old: Row | None
    new: Row | None
    ratio: float | None = None
    scaled: float | None = None
    threshold: float | None = None

    @property
    def row(self) -> Row:
        """The row, the new one where there are two."""
        row = self.new or self.old
        assert row is not None
        return row

    @property
    def is_worse(self) -> bool:
        """Whether gpunet itself got slower, wrong, or lost a case."""
        return self.row.is_ours and self.verdict in WORSE


@dataclass(frozen=True)
class Comparison:
    """What became of every row.

    Attributes
    ----------
    old, new : Results
    changes : list of Change
        gpunet's first, the worst first.
    warnings : list of str
        What makes this something else than a comparison of two versions of gpunet.
    notes : list of str
        What helps to judge it.
    """

    old: Results
    new: Results
    changes: list[Change]
    warnings: list[str]
    notes: list[str]

    @property
    def is_worse(self) -> bool:
        """Whether anything of gpunet got slower or wrong, or is no longer done."""
        return any(change.is_worse for change in self.changes)

    def count(self, verdict: str, *, ours: bool) -> int:
        """Return how many rows of gpunet, or of the peers, have a verdict."""
        return sum(change.verdict == verdict and change.row.is_ours == ours for change in self.changes)


def compare(old: Results, new: Results) -> Comparison:
    """Compare two files row by row, matched by case and peer.

    Raises
    ------
    InvalidValueError
        They have no row in common.
    """
    olds = {(row.key, row.peer): row for row in old.rows}
    news = {(row.key, row.peer): row for row in new.rows}
    if not olds.keys() & news.keys():
        raise InvalidValueError(
            f"{old.path} and {new.path} have no case of the same peer in common, of {len(olds)} and {len(news)} rows."
        )
    changes = [judge(olds.get(key), news.get(key)) for key in {**olds, **news}]
    changes.sort(key=lambda change: (not change.row.is_ours, VERDICTS.index(change.verdict), -_size(change)))
    pairs = [(olds[key], row) for key, row in news.items() if key in olds]
    warnings = [*_of_machine(old, new), *_of_rows([pair for pair in pairs if pair[1].is_ours])]
    return Comparison(old, new, changes, warnings, [*_notes(old, new, pairs), *_blindness(changes)])


def judge(old: Row | None, new: Row | None) -> Change:
    """Return what became of one row."""
    if new is None:
        return Change(GONE, old, None)
    no_time = {"wrong": WRONG, "failed": FAILED, "refused": REFUSED, "missing": MISSING}
    if old is None:
        return Change(no_time[new.status] if new.status in ("wrong", "failed") else NEW, None, new)
    if new.status != "ok":
        return Change(STILL if new.status == old.status else no_time[new.status], old, new)
    if old.status != "ok":
        return Change(REPAIRED, old, new)
    return _judge_times(old, new)


def _judge_times(old: Row, new: Row) -> Change:
    before, after = _interval(old), _interval(new)
    threshold = 1 + max(_SMALLEST_CHANGE, _HALF_WIDTHS * math.hypot(_half_width(before), _half_width(after)))
    ratio = after.median / before.median
    scales = machine_scales(old, new)
    scaled = min((ratio / scale for scale in scales), key=lambda value: abs(math.log(value)))

    def everywhere(holds: Callable[[float], bool]) -> bool:
        return all(map(holds, (1.0, *scales)))

    verdict = UNCHANGED
    if min(len(old.rounds), len(new.rounds)) < _FEWEST_ROUNDS:
        verdict = UNJUDGED
    elif everywhere(lambda scale: after.p10 > scale * before.p90 and ratio > scale * threshold):
        verdict = SLOWER
    elif everywhere(lambda scale: after.p90 < scale * before.p10 and ratio * threshold < scale):
        verdict = FASTER
    return Change(verdict, old, new, ratio, scaled, threshold)


def machine_scales(old: Row, new: Row) -> list[float]:
    """Return how many times as long the old work would have taken in the machine's state of the new run.

    One number where the case's rooflines tell; two, of arithmetic and of memory, where only the peaks do; 1 where
    nothing does.
    """
    by_peaks = [old.peaks[name] / new.peaks[name] for name in old.peaks if name in new.peaks]
    if old.roofline_milliseconds and new.roofline_milliseconds and by_peaks:
        by_roofline = new.roofline_milliseconds / old.roofline_milliseconds
        # A roofline is a mean of the times at the two peaks; outside of them, something else has changed.
        if min(by_peaks) * (1 - _ROUNDING) <= by_roofline <= max(by_peaks) * (1 + _ROUNDING):
            return [by_roofline]
    return by_peaks or [1.0]


def _of_machine(old: Results, new: Results) -> Iterator[str]:
    for name in ("name", "cpu", "cores", "gpu", "driver", "clocks", "python"):
        before, after = old.machine.get(name), new.machine.get(name)
        if before != after:
            yield f"machine's {name}: {_shown(before)} and {_shown(after)}"
    precisions = [sorted({precision(row.case) for row in results.rows}) for results in (old, new)]
    if precisions[0] != precisions[1]:
        yield f"precision: {' and '.join(', '.join(names) for names in precisions)}"


def _of_rows(pairs: Sequence[tuple[Row, Row]]) -> Iterator[str]:
    """Yield in which threads, libraries and versions the rows of the two runs differ, each difference once."""
    facts: dict[str, Callable[[Row], str]] = {
        "threads": lambda row: str(row.threads or ""),
        "BLAS": lambda row: row.blas,
        "versions": _other_versions,
    }
    for name, fact in facts.items():
        differing = {
            (fact(before), fact(after)): after.label
            for before, after in pairs
            if before.status == after.status == "ok" and fact(before) != fact(after)
        }
        for (first, second), label in differing.items():
            yield f"{name} of {label}: {_shown(first)} and {_shown(second)}"


def _notes(old: Results, new: Results, pairs: Sequence[tuple[Row, Row]]) -> Iterator[str]:
    commits = [{row.commit for row in results.rows if row.is_ours and row.commit} for results in (old, new)]
    if old.version == new.version and commits[0] == commits[1] and commits[0]:
        yield "Both are of the same version and commit of gpunet: what differs is the machine or the noise."
    peers = [pair for pair in pairs if not pair[1].is_ours]
    for difference in _of_rows(peers):
        yield f"A peer changed: {difference}."
    same = [
        after.median / before.median
        for before, after in peers
        if before.status == after.status == "ok" and _other_versions(before) == _other_versions(after)
    ]
    if same:
        middle = statistics.median(same)
        yield f"Peers whose versions did not change take {middle:.2f} times as long as before (median of {len(same)})."


def _blindness(changes: Sequence[Change]) -> Iterator[str]:
    """Yield how much of a change would go unnoticed, where that is more than a quiet machine allows."""
    thresholds = [change.threshold for change in changes if change.row.is_ours and change.threshold is not None]
    if thresholds and (middle := statistics.median(thresholds)) > _QUIET_THRESHOLD:
        yield (
            f"The rounds scatter so much that half of gpunet's cases could differ by a factor of {middle:.2f} and pass "
            "for unchanged: was the machine busy?"
        )


def _other_versions(row: Row) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(row.versions.items()) if name != "gpunet")


def _interval(row: Row) -> Spread:
    assert row.milliseconds is not None
    return spread(row.rounds) if row.rounds else row.milliseconds


def _half_width(interval: Spread) -> float:
    return (interval.p90 - interval.p10) / (2 * interval.median)


def _size(change: Change) -> float:
    return abs(math.log(change.ratio)) if change.ratio else 0.0


def _shown(value: object) -> str:
    return str(value) if value not in (None, "") else "nothing"


# --- what is said ---

RULE = (
    "Slower or faster: the intervals from the 10th to the 90th percentile of the rounds do not overlap, and the ratio "
    "of the medians is beyond the threshold, which is 5 % or twice the two runs' combined half-width, whichever is "
    "more; both as measured, and after scaling by what the machine reached between the rounds."
)
# Verdicts that are counted and not listed.
_QUIET = (UNCHANGED, STILL)


def comparison_text(comparison: Comparison, *, with_all: bool = False) -> str:
    """Return warnings, a table of what changed, counts and the verdict.

    Parameters
    ----------
    comparison : Comparison
    with_all : bool
        Whether rows that did not change are listed too.
    """
    import pandas as pd

    from .frame import markdown

    blocks = [f"# {comparison.old.title} against {comparison.new.title}"]
    if comparison.warnings:
        blocks.append("**Warning: this is no comparison of two versions of gpunet.** The two runs differ in:")
        blocks.append("\n".join(f"- {warning}" for warning in comparison.warnings))
    for ours, heading in ((True, "gpunet"), (False, "Peers")):
        changes = [change for change in comparison.changes if change.row.is_ours == ours]
        listed = [_line(change) for change in changes if with_all or change.verdict not in _QUIET]
        counts = [(comparison.count(name, ours=ours), name) for name in VERDICTS]
        if changes:
            blocks += [f"## {heading}", ", ".join(f"{count} {name}" for count, name in counts if count) + "."]
        if listed:
            blocks.append(markdown(pd.DataFrame(listed), left=3))
    blocks += [*comparison.notes, RULE, f"**{verdict(comparison)}**"]
    return "\n\n".join(blocks) + "\n"


def verdict(comparison: Comparison) -> str:
    """Return the outcome for gpunet in one sentence."""
    worse = [
        f"{plural(count, 'case')} {name.removeprefix('now ')}"
        for name in WORSE
        if (count := comparison.count(name, ours=True))
    ]
    faster = comparison.count(FASTER, ours=True)
    judged = sum(comparison.count(name, ours=True) for name in (SLOWER, FASTER, UNCHANGED))
    also = f"; {plural(faster, 'case')} faster" if faster else ""
    if worse:
        sentence = f"gpunet {comparison.new.version} got worse: {', '.join(worse)}{also}, of {judged} compared."
    elif faster:
        sentence = f"gpunet {comparison.new.version} got faster in {faster} of {judged} cases, and slower in none."
    elif judged:
        sentence = f"gpunet {comparison.new.version} is as fast as before within the noise, in {judged} cases."
    else:
        sentence = "No case of gpunet could be judged."
    if unjudged := comparison.count(UNJUDGED, ours=True):
        sentence += f" {plural(unjudged, 'case')} had too few rounds to be judged."
    return f"{sentence} But the two runs are not comparable." if comparison.warnings else sentence


def comparison_dict(comparison: Comparison) -> dict[str, Any]:
    """Return everything as JSON takes it."""
    return {
        **{
            name: {"path": str(results.path), "machine": results.machine["name"], "gpunet": results.version}
            for name, results in (("old", comparison.old), ("new", comparison.new))
        },
        "verdict": verdict(comparison),
        "worse": comparison.is_worse,
        "warnings": comparison.warnings,
        "notes": comparison.notes,
        "changes": [
            {
                "key": change.row.key,
                "peer": change.row.peer,
                "verdict": change.verdict,
                "worse": change.is_worse,
                "old_milliseconds": _median(change.old),
                "new_milliseconds": _median(change.new),
                "ratio": change.ratio,
                "scaled_ratio": change.scaled,
                "threshold": change.threshold,
                "reason": change.new.reason if change.new else "",
            }
            for change in comparison.changes
        ],
    }


def _line(change: Change) -> dict[str, str]:
    row = change.row
    return {
        "case": f"{case_name(row.case)} ({place(row)})",
        "peer": row.peer,
        "verdict": change.verdict,
        "old": _time(change.old),
        "new": _time(change.new),
        "new / old": times(change.ratio),
        "scaled": times(change.scaled),
        "threshold": times(change.threshold),
        "why": row.reason if change.new is not None else "",
    }


def _time(row: Row | None) -> str:
    if row is None:
        return NOTHING
    return milliseconds(row.median) if row.status == "ok" else row.status


def _median(row: Row | None) -> float | None:
    return row.milliseconds.median if row is not None and row.milliseconds is not None else None
