"""A comparison as Markdown, as one sentence, and as JSON."""

from __future__ import annotations

from typing import Any

from gpunet.bench.compare import (
    FAILED,
    FASTER,
    REFUSED,
    SLOWER,
    STILL,
    UNCHANGED,
    UNJUDGED,
    VERDICTS,
    WRONG,
    Change,
    Comparison,
)
from gpunet.bench.contests import case_name, place
from gpunet.bench.markdown import NOTHING, milliseconds, plural, table, times
from gpunet.bench.rows import Row

RULE = (
    "Slower or faster: the intervals from the 10th to the 90th percentile of the rounds do not overlap, and the ratio "
    "of the medians is beyond the threshold, which is 5 % or twice the two runs' combined half-width, whichever is "
    "more; both as measured, and after scaling by the ceilings of each contest."
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
    old, new = comparison.old, comparison.new
    blocks = [f"# {old.machine['name']}, gpunet {old.version} against {new.machine['name']}, gpunet {new.version}"]
    if comparison.warnings:
        blocks.append("**Warning: this is no comparison of two versions of gpunet.** The two runs differ in:")
        blocks.append("\n".join(f"- {warning}" for warning in comparison.warnings))
    for ours, heading in ((True, "gpunet"), (False, "Peers")):
        changes = [change for change in comparison.changes if change.row.is_ours == ours]
        listed = [change for change in changes if with_all or change.verdict not in _QUIET]
        if changes:
            blocks += [f"## {heading}", _counts(comparison, ours=ours)]
        if listed:
            columns = ["case", "provider", "verdict", "old", "new", "new / old", "scaled", "threshold", "why"]
            blocks.append(table(columns, [_line(change) for change in listed], left=3))
    blocks += [*comparison.notes, RULE, f"**{verdict(comparison)}**"]
    return "\n\n".join(blocks) + "\n"


def verdict(comparison: Comparison) -> str:
    """Return the outcome for gpunet in one sentence."""
    worse = [
        f"{plural(count, 'case')} {name.removeprefix('now ')}"
        for name in (WRONG, FAILED, REFUSED, SLOWER)
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
        "old": _file(comparison, new=False),
        "new": _file(comparison, new=True),
        "verdict": verdict(comparison),
        "worse": comparison.is_worse,
        "warnings": comparison.warnings,
        "notes": comparison.notes,
        "changes": [
            {
                "key": change.row.key,
                "provider": change.row.provider,
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


def _file(comparison: Comparison, *, new: bool) -> dict[str, Any]:
    results = comparison.new if new else comparison.old
    return {"path": str(results.path), "machine": results.machine["name"], "gpunet": results.version}


def _counts(comparison: Comparison, *, ours: bool) -> str:
    found = [(name, comparison.count(name, ours=ours)) for name in VERDICTS]
    return ", ".join(f"{count} {name}" for name, count in found if count) + "."


def _line(change: Change) -> list[str]:
    row = change.row
    numbers = [NOTHING if value is None else times(value) for value in (change.ratio, change.scaled, change.threshold)]
    why = row.reason if change.new is not None else ""
    return [
        f"{case_name(row)} ({place(row)})",
        row.provider,
        change.verdict,
        _time(change.old),
        _time(change.new),
        *numbers,
        why,
    ]


def _time(row: Row | None) -> str:
    if row is None:
        return NOTHING
    return milliseconds(row.median) if row.status == "ok" else row.status


def _median(row: Row | None) -> float | None:
    return row.milliseconds.median if row is not None and row.milliseconds is not None else None
