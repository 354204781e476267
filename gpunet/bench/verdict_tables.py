"""What a reader asks first: gpunet against each peer, where it loses, and from which size on a GPU pays."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpunet.bench.contests import (
    NETWORK,
    NETWORK_MODES,
    Contest,
    case_name,
    contests,
    device,
    mode,
    operation,
    precision,
    providers,
    shape,
    shared_and_own,
    sweep,
    traits,
)
from gpunet.bench.machine import machine_in_words
from gpunet.bench.markdown import NOTHING, milliseconds, plural, significant, table, times, times_with_spread
from gpunet.bench.results import Results
from gpunet.bench.rows import Row
from gpunet.bench.time_tables import cell, grouped

NO_GPU = "No GPU has run these benchmarks."


def summary(results: Results) -> list[str]:
    """Return the table of a README: the configurations' training steps, with machine and date."""
    found = [
        contest
        for contest in contests(results)
        if contest.any_row.case["operation"] == NETWORK and sweep(contest.any_row) is None
    ]
    wanted = next((name for name in NETWORK_MODES if any(one.any_row.case["mode"] == name for one in found)), None)
    blocks = []
    for group in grouped(
        [contest for contest in found if contest.any_row.case["mode"] == wanted],
        lambda row: (row.on_device, precision(row)),
    ):
        first = group[0].any_row
        shared, own = shared_and_own([contest.any_row for contest in group])
        blocks.append(
            f"{mode(first)} on the {device(first)} ({', '.join(shared)}): median time, and in parentheses how many "
            "times as long as gpunet a library takes."
        )
        across = providers(group)
        rows = []
        for contest, extra in zip(group, own, strict=True):
            reference = contest.reference
            rate = NOTHING
            if reference is not None and reference.samples_per_second is not None:
                rate = significant(reference.samples_per_second)
            cells = [cell(contest.rows.get(provider.provider), contest, short=True) for provider in across]
            rows.append([", ".join([shape(contest.any_row), *extra]), *cells, rate])
        blocks.append(table(["batch x layer sizes", *(row.label for row in across), "gpunet, samples/s"], rows))
    if not blocks:
        return []
    blocks.append(f"Measured on {machine_in_words(results)}.{'' if _has_gpu(results) else f' {NO_GPU}'}")
    return blocks


def peers(results: Results) -> list[str]:
    """Return how often gpunet is faster than each peer and by how much, and every case in which it is slower."""
    found = contests(results)
    blocks = []
    for group in grouped(found, lambda row: (row.on_device, row.case["operation"] == NETWORK, precision(row))):
        rows = [row for provider in providers(group) if (row := _peer_row(provider, group))]
        if rows:
            first = group[0].any_row
            kind = "Networks" if first.case["operation"] == NETWORK else "Single operations"
            blocks.append(f"**{kind}** on the {device(first)}, {precision(first)}: a peer's time over gpunet's.")
            columns = ["peer", "cases", "gpunet faster", "even", "slower", "geometric mean", "least", "where"]
            blocks += [table(columns, rows), *_losses(group)]
    return blocks


def crossover(results: Results) -> list[str]:
    """Return gpunet on the CPU beside gpunet on the GPU, and below which size the CPU wins."""
    if not _has_gpu(results):
        return [f"{NO_GPU} So nobody knows yet below which size the CPU is faster."]
    pairs = _device_pairs(results)
    if not pairs:
        return ["No case has run on both the CPU and the GPU at the same precision."]
    blocks = []
    for operation_name, mode_name in dict.fromkeys(_kind(cpu) for cpu, _ in pairs):
        ours = [(cpu, gpu) for cpu, gpu in pairs if _kind(cpu) == (operation_name, mode_name)]
        first = ours[0][0]
        blocks.append(f"**{_title(first)}**, {precision(first)}: gpunet on the CPU and on the GPU.")
        rows = [
            [
                _size(cpu),
                _fastest(cpu.median, cpu, gpu),
                _fastest(gpu.median, cpu, gpu),
                times(cpu.median / gpu.median),
            ]
            for cpu, gpu in ours
        ]
        blocks.append(table(["case", "CPU", "GPU", "CPU over GPU"], rows))
        blocks += [sentence for sentence in _crossings(ours) if sentence]
    return blocks


def _peer_row(peer: Row, group: Sequence[Contest]) -> list[str] | None:
    if peer.is_ours:
        return None
    ratios = []
    for contest in group:
        row = contest.rows.get(peer.provider)
        if row is not None and row.status == "ok" and (ratio := contest.ratio(row)) is not None:
            ratios.append((ratio, row))
    if not ratios:
        return None
    faster = sum(ratio.p10 > 1 for ratio, _ in ratios)
    slower = sum(ratio.p90 < 1 for ratio, _ in ratios)
    mean = math.exp(math.fsum(math.log(ratio.median) for ratio, _ in ratios) / len(ratios))
    least, where = min(ratios, key=lambda pair: pair[0].median)
    counts = map(str, (len(ratios), faster, len(ratios) - faster - slower, slower))
    return [peer.label, *counts, times(mean), times_with_spread(least), case_name(where)]


def _losses(found: Sequence[Contest]) -> list[str]:
    lost = [
        (ratio, row, contest.reference)
        for contest in found
        for row in contest.measured
        if not row.is_ours and (ratio := contest.ratio(row)) is not None and ratio.p90 < 1
    ]
    if not lost:
        return ["gpunet is slower in none of them."]
    rows = [
        [
            case_name(row),
            row.label,
            times_with_spread(ratio),
            milliseconds(row.median),
            milliseconds(reference.median if reference else None),
        ]
        for ratio, row, reference in sorted(lost, key=lambda entry: entry[0].median)
    ]
    head = f"**Where gpunet is slower**: {plural(len(rows), 'case')}, the worst first."
    return [head, table(["case", "peer", "its time over gpunet's", "peer", "gpunet"], rows, left=2)]


def _device_pairs(results: Results) -> list[tuple[Row, Row]]:
    """Return gpunet's fastest row on the CPU and on the GPU, of every case that has both."""
    fastest: dict[tuple[str, bool], Row] = {}
    for row in results.rows:
        if row.is_ours and row.status == "ok":
            known = fastest.setdefault((row.key, row.on_device), row)
            fastest[row.key, row.on_device] = min(known, row, key=lambda one: one.median)
    keys = dict.fromkeys(contest.key for contest in contests(results))
    return [
        (fastest[key, False], fastest[key, True]) for key in keys if (key, False) in fastest and (key, True) in fastest
    ]


def _crossings(pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    """Return a sentence for each sweep in which one side wins below some size and the other from there on."""
    swept: dict[str, list[tuple[int, bool]]] = {}
    for cpu, gpu in pairs:
        if (place := sweep(cpu)) is not None:
            swept.setdefault(place[0], []).append((place[1], cpu.median <= gpu.median))
    return [_crossing(varied, sorted(points)) for varied, points in swept.items() if len(points) > 1]


def _crossing(varied: str, points: Sequence[tuple[int, bool]]) -> str:
    cpu_wins = [wins for _, wins in points]
    span = f"{varied} {points[0][0]} to {points[-1][0]}"
    if all(cpu_wins) or not any(cpu_wins):
        return f"From {span} the {'CPU' if cpu_wins[0] else 'GPU'} is always faster."
    first_loss = cpu_wins.index(False)
    if any(cpu_wins[first_loss:]):
        return f"From {span} neither is faster on one side of a single size."
    return (
        f"The CPU is faster up to {varied} {points[first_loss - 1][0]}, the GPU from {varied} {points[first_loss][0]}."
    )


def _kind(row: Row) -> tuple[str, str]:
    return row.case["operation"], row.case["mode"]


def _title(row: Row) -> str:
    return mode(row) if row.case["operation"] == NETWORK else f"{operation(row)}, {row.case['mode']}"


def _size(row: Row) -> str:
    label = f"{row.case['label']}: " if row.case["operation"] == NETWORK else ""
    return ", ".join([f"{label}{shape(row)}", *traits(row)[:-1]])


def _fastest(value: float, cpu: Row, gpu: Row) -> str:
    text = milliseconds(value)
    return f"**{text}**" if value == min(cpu.median, gpu.median) else text


def _has_gpu(results: Results) -> bool:
    return any(row.on_device and row.status == "ok" for row in results.rows)
