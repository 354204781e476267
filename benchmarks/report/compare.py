"""Two result files against each other: what got slower, faster, wrong, and whether that is beyond the noise.

A difference of one row counts when, with t the median, [p10, p90] the interval over the rounds and
h = (p90 - p10) / (2 t) its relative half-width,

- the intervals of the two runs do not overlap, and
- the ratio of the medians is above 1 + max(0.05, 2 sqrt(h_old^2 + h_new^2)), or below its inverse,

as measured, and again after the old times were scaled by each of the machine's two rates, old over new: of a large
matrix product and of a large copy, which ran between the same rounds. With fewer than five rounds in either run,
percentiles say little, and the row is not judged.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from gpunet.errors import InvalidValueError

from .frame import markdown
from .results import Results, Row, Spread, spread
from .words import case_name, milliseconds, place, precision, times

FASTER, SLOWER, UNCHANGED, UNJUDGED = "faster", "slower", "unchanged", "too few rounds"
NEW, GONE, REPAIRED, STILL = "new", "gone", "repaired", "still without a time"
# What makes a new version of gpunet worse. A missing package is the machine's doing.
WORSE = ("now wrong", "now failed", "now refused", SLOWER)
VERDICTS = (*WORSE, "now missing", GONE, REPAIRED, FASTER, NEW, STILL, UNJUDGED, UNCHANGED)
# Verdicts that are counted and not listed.
_QUIET = (UNCHANGED, STILL)

_SMALLEST_CHANGE, _HALF_WIDTHS, _FEWEST_ROUNDS = 0.05, 2.0, 5

RULE = (
    "Slower or faster: the intervals from the 10th to the 90th percentile of the rounds do not overlap, and the ratio "
    "of the medians is beyond the threshold, which is 5 % or twice the two runs' combined half-width, whichever is "
    "more; both as measured, and after scaling by what the machine reached between the rounds."
)


@dataclass(frozen=True)
class Comparison:
    """What became of every row: gpunet's first, the worst first.

    ``changes`` has what :func:`judge` returns, ``warnings`` say what makes this something else than a comparison of two
    versions, ``notes`` help to judge it.
    """

    old: Results
    new: Results
    changes: list[dict[str, Any]]
    warnings: list[str]
    notes: list[str]

    @property
    def is_worse(self) -> bool:
        """Whether anything of gpunet got slower or wrong, or is no longer done."""
        return any(change["worse"] for change in self.changes)

    def counts(self, *, ours: bool) -> dict[str, int]:
        """Return how many rows of gpunet, or of the peers, have each verdict."""
        found = [change["verdict"] for change in self.changes if change["ours"] == ours]
        return {verdict: found.count(verdict) for verdict in VERDICTS}


def compare(old: Results, new: Results) -> Comparison:
    """Compare two files row by row, matched by case and peer.

    Raises
    ------
    InvalidValueError
        They have no row in common.
    """
    olds, news = ({(row.key, row.peer): row for row in results.rows} for results in (old, new))
    pairs = [(olds[key], row) for key, row in news.items() if key in olds]
    if not pairs:
        raise InvalidValueError(
            f"{old.path} and {new.path} have no case of the same peer in common, of {len(olds)} and {len(news)} rows."
        )
    changes = [judge(olds.get(key), news.get(key)) for key in {**olds, **news}]
    changes.sort(key=lambda c: (not c["ours"], VERDICTS.index(c["verdict"]), -abs(math.log(c["ratio"] or 1))))
    warnings = [
        *_differences(_machine(old), _machine(new), "machine's {}"),
        *_of_rows([pair for pair in pairs if pair[1].is_ours]),
    ]
    return Comparison(old, new, changes, warnings, list(_notes(old, new, pairs)))


def judge(old: Row | None, new: Row | None) -> dict[str, Any]:
    """Return what became of one peer in one case, as JSON takes it.

    ``ratio`` is the new median over the old one, ``scaled_ratio`` that after scaling the old times (of the scales the
    one that says least), ``threshold`` what both have to be above, or below its inverse.
    """
    row = new or old
    assert row is not None
    numbers: dict[str, float | None] = dict.fromkeys(("ratio", "scaled_ratio", "threshold"))
    if new is None:
        verdict = GONE
    elif old is None:
        verdict = f"now {new.status}" if new.status in ("wrong", "failed") else NEW
    elif new.status != "ok":
        verdict = STILL if new.status == old.status else f"now {new.status}"
    elif old.status != "ok":
        verdict = REPAIRED
    else:
        verdict, numbers = _judge_times(old, new)
    return {
        "key": row.key,
        "case": f"{case_name(row.case)} ({place(row)})",
        "peer": row.peer,
        "ours": row.is_ours,
        "verdict": verdict,
        "worse": row.is_ours and verdict in WORSE,
        "old_milliseconds": old.median if old and old.status == "ok" else None,
        "new_milliseconds": new.median if new and new.status == "ok" else None,
        **numbers,
        "reason": new.reason if new else "",
    }


def _judge_times(old: Row, new: Row) -> tuple[str, dict[str, float | None]]:
    before, after = _interval(old), _interval(new)
    half_widths = [(interval.p90 - interval.p10) / (2 * interval.median) for interval in (before, after)]
    threshold = 1 + max(_SMALLEST_CHANGE, _HALF_WIDTHS * math.hypot(*half_widths))
    ratio = after.median / before.median
    scales = [1.0, *(old.peaks[name] / new.peaks[name] for name in old.peaks if name in new.peaks)]
    verdict = UNCHANGED
    if min(len(old.rounds), len(new.rounds)) < _FEWEST_ROUNDS:
        verdict = UNJUDGED
    elif all(after.p10 > scale * before.p90 and ratio > scale * threshold for scale in scales):
        verdict = SLOWER
    elif all(after.p90 < scale * before.p10 and ratio * threshold < scale for scale in scales):
        verdict = FASTER
    scaled = min((ratio / scale for scale in scales[1:] or scales), key=lambda value: abs(math.log(value)))
    return verdict, {"ratio": ratio, "scaled_ratio": scaled, "threshold": threshold}


def _interval(row: Row) -> Spread:
    assert row.milliseconds is not None
    return spread(row.rounds) if row.rounds else row.milliseconds


# --- what else differs ---


def _differences(before: dict[str, Any], after: dict[str, Any], where: str) -> Iterator[str]:
    for name in dict.fromkeys((*before, *after)):
        first, second = before.get(name) or "nothing", after.get(name) or "nothing"
        if first != second:
            yield f"{where.format(name)}: {first} and {second}"


def _machine(results: Results) -> dict[str, Any]:
    known = {name: results.machine.get(name) for name in ("name", "cpu", "cores", "gpu", "driver", "clocks", "python")}
    return known | {"precision": ", ".join(sorted({precision(row.case) for row in results.rows}))}


def _libraries(row: Row) -> dict[str, Any]:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(row.versions.items()) if name != "gpunet")
    return {"threads": row.threads, "BLAS": row.blas, "versions": versions}


def _of_rows(pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    """Return in which threads, libraries and versions the rows of the two runs differ, each difference once."""
    measured = [(old, new) for old, new in pairs if old.status == new.status == "ok"]
    found = (_differences(_libraries(old), _libraries(new), f"{{}} of {new.label}") for old, new in measured)
    return list(dict.fromkeys(chain.from_iterable(found)))


def _notes(old: Results, new: Results, pairs: Sequence[tuple[Row, Row]]) -> Iterator[str]:
    commits = [{row.commit for row in results.rows if row.is_ours and row.commit} for results in (old, new)]
    if old.version == new.version and commits[0] == commits[1] and commits[0]:
        yield "Both are of the same version and commit of gpunet: what differs is the machine or the noise."
    peers = [pair for pair in pairs if not pair[1].is_ours]
    for difference in _of_rows(peers):
        yield f"A peer changed: {difference}."
    same = [b.median / a.median for a, b in peers if a.status == b.status == "ok" and _libraries(a) == _libraries(b)]
    if same:
        middle = statistics.median(same)
        yield f"Peers that did not change take {middle:.2f} times as long as before (median of {len(same)})."


# --- what is said ---


def comparison_text(comparison: Comparison, *, with_all: bool = False) -> str:
    """Return warnings, a table of what changed (of all rows ``with_all``), counts and the verdict."""
    import pandas as pd

    blocks = [f"# {comparison.old.title} against {comparison.new.title}"]
    if comparison.warnings:
        blocks.append("**Warning: this is no comparison of two versions of gpunet.** The two runs differ in:")
        blocks.append("\n".join(f"- {warning}" for warning in comparison.warnings))
    for ours, heading in ((True, "gpunet"), (False, "Peers")):
        counts = [f"{count} {name}" for name, count in comparison.counts(ours=ours).items() if count]
        changes = [change for change in comparison.changes if change["ours"] == ours]
        listed = [_line(change) for change in changes if with_all or change["verdict"] not in _QUIET]
        blocks += [f"## {heading}", f"{', '.join(counts)}."] if counts else []
        blocks += [markdown(pd.DataFrame(listed), left=3)] if listed else []
    blocks += [*comparison.notes, RULE, f"**{verdict(comparison)}**"]
    return "\n\n".join(blocks) + "\n"


def _line(change: dict[str, Any]) -> dict[str, str]:
    return {
        **{name: change[name] for name in ("case", "peer", "verdict")},
        **{name: milliseconds(change[f"{name}_milliseconds"]) for name in ("old", "new")},
        "new / old": times(change["ratio"]),
        "scaled": times(change["scaled_ratio"]),
        "threshold": times(change["threshold"]),
        "why": change["reason"],
    }


def verdict(comparison: Comparison) -> str:
    """Return the outcome for gpunet in one sentence."""
    counts = comparison.counts(ours=True)
    judged = any(counts[name] for name in (SLOWER, FASTER, UNCHANGED))
    outcome = "got worse" if comparison.is_worse else "got no worse" if judged else "could not be judged"
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    sentence = f"gpunet {comparison.new.version} {outcome}: {told or 'no case of it'}."
    return f"{sentence} But the two runs are not comparable." if comparison.warnings else sentence


def comparison_dict(comparison: Comparison) -> dict[str, Any]:
    """Return everything as JSON takes it."""
    files = {"old": comparison.old, "new": comparison.new}
    return {
        **{
            name: {"path": str(results.path), "machine": results.machine["name"], "gpunet": results.version}
            for name, results in files.items()
        },
        "verdict": verdict(comparison),
        "worse": comparison.is_worse,
        "warnings": comparison.warnings,
        "notes": comparison.notes,
        "changes": comparison.changes,
    }
