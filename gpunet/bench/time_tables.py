"""Tables of times: networks, sweeps, operations and activations, gpunet beside each peer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gpunet.bench.contests import (
    NETWORK,
    Contest,
    contests,
    device,
    mode,
    operation,
    precision,
    providers,
    shape,
    shared_and_own,
    sweep,
)
from gpunet.bench.markdown import NOTHING, milliseconds, percent, table, times, times_with_spread
from gpunet.bench.results import Results
from gpunet.bench.rows import Row

# The activation that others are compared with: the cheapest one that bends.
_CHEAP = "relu"
# Points of a sweep below which an exponent says little.
_FEWEST_POINTS = 3


def networks(results: Results) -> list[str]:
    """Return a table for each mode: configurations down, providers across."""
    found = [contest for contest in contests(results) if _is_network(contest) and sweep(contest.any_row) is None]
    blocks = []
    for group in grouped(found, lambda row: (row.on_device, row.case["mode"], precision(row))):
        shared, own = shared_and_own([contest.any_row for contest in group])
        first = group[0].any_row
        blocks.append(f"**{mode(first)}** on the {device(first)}: {', '.join(shared)}.")
        names = [
            ", ".join([f"{contest.any_row.case['label']}: {shape(contest.any_row)}", *extra])
            for contest, extra in zip(group, own, strict=True)
        ]
        blocks.append(_time_table("batch x layer sizes", names, group))
    return blocks


def sweeps(results: Results) -> list[str]:
    """Return a table for each quantity that is varied and mode, with the exponent of each provider's growth."""
    found = [contest for contest in contests(results) if _is_network(contest) and sweep(contest.any_row) is not None]
    blocks = []
    for group in grouped(found, lambda row: (row.on_device, _swept(row)[0], row.case["mode"], precision(row))):
        first = group[0].any_row
        varied = _swept(first)[0]
        shared, _ = shared_and_own([contest.any_row for contest in group])
        blocks.append(
            f"**{mode(first)} against {varied}** on the {device(first)}: {', '.join(shared)}; "
            f"the first is {shape(first)}."
        )
        names = [str(_swept(contest.any_row)[1]) for contest in group]
        exponents = [exponent(group, provider.provider) for provider in providers(group)]
        growth = ["growth", *(NOTHING if power is None else f"^{power:.2f}" for power in exponents)]
        blocks.append(_time_table(varied, names, group, extra=growth))
    return blocks


def operations(results: Results) -> list[str]:
    """Return a table for each operation; several activations of one shape are in :func:`activations`."""
    found = [contest for contest in contests(results) if not _is_network(contest)]
    varied = {contest.key for group in _activation_groups(found) for contest in group}
    shown = [contest for contest in found if contest.key not in varied]
    blocks = []
    for group in grouped(shown, lambda row: (row.on_device, row.case["operation"], row.case["mode"], precision(row))):
        first = group[0].any_row
        shared, own = shared_and_own([contest.any_row for contest in group])
        blocks.append(f"**{operation(first)}, {first.case['mode']}** on the {device(first)}: {', '.join(shared)}.")
        names = [", ".join([shape(contest.any_row), *extra]) for contest, extra in zip(group, own, strict=True)]
        blocks.append(_time_table("shape", names, group))
    return blocks


def activations(results: Results) -> list[str]:
    """Return what each activation costs where everything else is the same (lecture, row L16: exp is expensive)."""
    blocks = []
    for group in _activation_groups(contests(results)):
        first = group[0].any_row
        subject = mode(first) if _is_network(group[0]) else f"{operation(first)}, {first.case['mode']}"
        blocks.append(f"**{subject}** on the {device(first)}: {shape(first)}, {precision(first)}.")
        ordered = sorted(group, key=lambda contest: contest.reference.median if contest.reference else math.inf)
        cheap = next((contest for contest in group if contest.any_row.case["activation"] == _CHEAP), ordered[0])
        names = [contest.any_row.case["activation"] for contest in ordered]
        last = [f"gpunet, to {cheap.any_row.case['activation']}"]
        for contest in ordered:
            both = contest.reference, cheap.reference
            last.append(f"{both[0].median / both[1].median:.2f} times" if both[0] and both[1] else NOTHING)
        blocks.append(_time_table("activation", names, ordered, last=last))
    return blocks


def exponent(group: Sequence[Contest], provider: str) -> float | None:
    """Return p where a provider's times in a sweep grow like the p-th power, by least squares of the logarithms."""
    import numpy as np

    points = [
        (_swept(row)[1], row.median)
        for contest in group
        if (row := contest.rows.get(provider)) is not None and row.status == "ok"
    ]
    if len(points) < _FEWEST_POINTS or min(points)[0] == 0:
        return None
    values, times = np.log(np.array(points, dtype=np.float64)).T
    values -= values.mean()
    return float(values @ times / (values @ values))


def grouped(found: Iterable[Contest], key: Callable[[Row], Any]) -> list[list[Contest]]:
    """Return contests with the same key together, in their order."""
    groups: dict[Any, list[Contest]] = {}
    for contest in found:
        groups.setdefault(key(contest.any_row), []).append(contest)
    return list(groups.values())


def cell(row: Row | None, contest: Contest, *, short: bool = False) -> str:
    """Return a provider's time, in bold where it is the fastest, and its ratio to gpunet's with or without spread."""
    if row is None:
        return NOTHING
    if row.status != "ok":
        return row.status
    text = milliseconds(row.median)
    if (ratio := contest.ratio(row)) is not None:
        text += f" ({times(ratio.median) if short else times_with_spread(ratio)})"
    return f"**{text}**" if len(contest.measured) > 1 and row is contest.measured[0] else text


def _time_table(
    head: str,
    names: Sequence[str],
    group: Sequence[Contest],
    extra: Sequence[str] | None = None,
    last: Sequence[str] | None = None,
) -> str:
    """Return a table of contests.

    Parameters
    ----------
    head, names
        Of the first column.
    extra : list of str, or None
        One more row, of the first column and the providers.
    last : list of str, or None
        One more column, with its head.
    """
    across = providers(group)
    columns = [head, *(row.label for row in across), "of floor: gpunet / best peer", *(last[:1] if last else [])]
    rows = []
    for place, (name, contest) in enumerate(zip(names, group, strict=True)):
        cells = [cell(contest.rows.get(provider.provider), contest) for provider in across]
        rows.append([name, *cells, _floor(contest), *(last[place + 1 : place + 2] if last else [])])
    if extra is not None:
        rows.append([*extra, *[""] * (len(columns) - len(extra))])
    return table(columns, rows)


def _floor(contest: Contest) -> str:
    shown = [
        NOTHING if row is None else percent(row.floor_percent, cached=row.cached)
        for row in (contest.reference, contest.best_peer)
    ]
    return " / ".join(shown)


def _activation_groups(found: Iterable[Contest]) -> list[list[Contest]]:
    """Return contests that differ in their activation alone, where there are several."""

    def all_else(row: Row) -> tuple[Any, ...]:
        case = {**row.case, "activation": "", "label": row.case["label"].replace(row.case["activation"], "")}
        return (row.on_device, *(str(case[name]) for name in sorted(case)))

    return [group for group in grouped(found, all_else) if len(group) > 1]


def _is_network(contest: Contest) -> bool:
    return bool(contest.any_row.case["operation"] == NETWORK)


def _swept(row: Row) -> tuple[str, int]:
    found = sweep(row)
    assert found is not None
    return found
