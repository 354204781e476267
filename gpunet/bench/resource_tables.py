"""Memory, kernel launches, cold start, what was not measured, the ceilings, and all columns of every row."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from gpunet.bench.contests import NETWORK, Contest, case_name, contests, device, place, precision, providers, sweep
from gpunet.bench.markdown import (
    NOTHING,
    megabytes,
    milliseconds,
    percent,
    plural,
    seconds,
    significant,
    table,
    times_with_spread,
)
from gpunet.bench.results import Results
from gpunet.bench.rows import Row, Spread
from gpunet.bench.time_tables import grouped

# Cases of one reason that are named one by one.
_NAMED_CASES = 3


def memory(results: Results) -> list[str]:
    """Return the peak memory of the network configurations: of the process on a CPU, of the device on a GPU."""
    return _across(
        results,
        "**Peak memory** on the {device}, {precision}: of the process on a CPU, of the device's memory on a GPU.",
        lambda row: megabytes(row.peak_bytes),
        lambda row: row.peak_bytes is not None and row.case["operation"] == NETWORK,
    )


def launches(results: Results) -> list[str]:
    """Return the kernels of one unit of work, and the time by the device's own clock."""

    def shown(row: Row) -> str:
        count = NOTHING if row.launches is None else plural(row.launches, "kernel")
        return f"{count}, {milliseconds(row.device_milliseconds.median)}" if row.device_milliseconds else count

    return _across(
        results,
        "**Kernel launches and device time** of one unit of work on the {device}, {precision}.",
        shown,
        lambda row: row.launches is not None or row.device_milliseconds is not None,
    )


def cold_start(results: Results) -> list[str]:
    """Return how long importing takes, and building and running a case for the first time."""
    rows = []
    for provider in providers(contests(results)):
        ours = [row for row in results.rows if row.provider == provider.provider and row.status == "ok"]
        imports = [row.import_seconds for row in ours if row.import_seconds is not None]
        firsts = [(row.first_seconds, row) for row in ours if row.first_seconds is not None]
        if imports or firsts:
            longest = max(firsts, key=lambda pair: pair[0], default=None)
            rows.append(
                [
                    provider.label,
                    seconds(statistics.median(imports) if imports else None),
                    seconds(statistics.median(first for first, _ in firsts) if firsts else None),
                    seconds(longest[0] if longest else None),
                    f"{case_name(longest[1])} ({place(longest[1])})" if longest else NOTHING,
                ]
            )
    if not rows:
        return []
    columns = ["provider", "import, median", "first unit of work, median", "longest", "where"]
    return ["**Cold start**: importing, then building, compiling and the first unit of work.", table(columns, rows)]


def not_measured(results: Results) -> list[str]:
    """Return which provider has no time in which cases, and why; wrong and failed ones first."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in results.rows:
        if row.status != "ok":
            found.setdefault((row.status, row.label, row.reason), []).append(row)
    order = ("wrong", "failed", "refused", "missing")
    rows = [
        [label, status, _cases(rows), reason or NOTHING]
        for (status, label, reason), rows in sorted(found.items(), key=lambda entry: order.index(entry[0][0]))
    ]
    return [table(["provider", "status", "cases", "reason"], rows, left=4)] if rows else []


def ceilings(results: Results) -> list[str]:
    """Return the rates of a large matrix product and a large copy, measured in the contests themselves."""
    rows = []
    for group in grouped(contests(results), lambda row: (row.on_device, precision(row))):
        measured = [found for contest in group if (found := _ceilings(contest))]
        products = [found["gigaflops"] for found in measured if "gigaflops" in found]
        copies = [found["gigabytes_per_second"] for found in measured if "gigabytes_per_second" in found]
        if measured:
            first = group[0].any_row
            threads = sorted({row.threads for contest in group for row in contest.measured if row.threads})
            counted = "" if first.on_device else f", {' or '.join(map(str, threads))} threads" if threads else ""
            rows.append(
                [
                    f"{place(first)}{counted}",
                    _span(products, "GFLOP/s"),
                    _span(copies, "GB/s"),
                    str(len(measured)),
                ]
            )
    if not rows:
        return []
    return [
        "Median over the contests, with the least and the most: the machine was not always in the same state. "
        "A contest's floor takes its own.",
        table(["where", "matrix product", "copy", "contests"], rows),
    ]


def details(results: Results) -> list[str]:
    """Return every row with all that it has."""
    names = ["provider", "case", "status", *_DETAILS, "versions", "BLAS", "commit", "date", "reason"]
    rows = []
    for row in results.rows:
        last = [
            ", ".join(f"{name} {version}" for name, version in row.versions.items()),
            row.blas,
            row.commit,
            row.date,
        ]
        rows.append(
            [row.provider, row.key, row.status, *(shown(row) for shown in _DETAILS.values()), *last, row.reason]
        )
    return [table(names, rows, left=3)] if rows else []


def _number(value: float | None) -> str:
    return NOTHING if value is None else significant(value)


def _spread(value: Spread | None, part: str) -> str:
    return NOTHING if value is None else significant(getattr(value, part), 4)


_DETAILS: dict[str, Callable[[Row], str]] = {
    "ms": lambda row: _spread(row.milliseconds, "median"),
    "ms p10": lambda row: _spread(row.milliseconds, "p10"),
    "ms p90": lambda row: _spread(row.milliseconds, "p90"),
    "device ms": lambda row: _spread(row.device_milliseconds, "median"),
    "device ms p10": lambda row: _spread(row.device_milliseconds, "p10"),
    "device ms p90": lambda row: _spread(row.device_milliseconds, "p90"),
    "rounds x repeats": lambda row: f"{len(row.rounds)} x {row.repeats}" if row.rounds else NOTHING,
    "ratio": lambda row: times_with_spread(row.ratio) if row.ratio else NOTHING,
    "to": lambda row: row.ratio_to or NOTHING,
    "samples/s": lambda row: _number(row.samples_per_second),
    "GFLOP/s": lambda row: _number(row.gigaflops),
    "GB/s": lambda row: _number(row.gigabytes_per_second),
    "floor ms": lambda row: _number(row.floor_milliseconds),
    "of floor": lambda row: percent(row.floor_percent, cached=row.cached),
    "in cache": lambda row: "yes" if row.cached else "no",
    "ceiling GFLOP/s": lambda row: _number(row.ceilings.get("gigaflops")),
    "ceiling GB/s": lambda row: _number(row.ceilings.get("gigabytes_per_second")),
    "error": lambda row: NOTHING if row.error is None else f"{row.error:.1e}",
    "allowed": lambda row: NOTHING if row.tolerance is None else f"{row.tolerance:.1e}",
    "peak memory": lambda row: megabytes(row.peak_bytes),
    "launches": lambda row: NOTHING if row.launches is None else str(row.launches),
    "import": lambda row: seconds(row.import_seconds),
    "first": lambda row: seconds(row.first_seconds),
    "threads": lambda row: str(row.threads) if row.threads else NOTHING,
}


def _across(results: Results, title: str, shown: Callable[[Row], str], has: Callable[[Row], bool]) -> list[str]:
    """Return a table with cases down and providers across for each device and precision, sweeps left out."""
    found = [
        contest
        for contest in contests(results)
        if sweep(contest.any_row) is None and any(has(row) for row in contest.measured)
    ]
    blocks = []
    for group in grouped(found, lambda row: (row.on_device, precision(row))):
        across = [
            provider
            for provider in providers(group)
            if any(has(row) for contest in group for row in contest.measured if row.provider == provider.provider)
        ]
        rows = []
        for contest in group:
            cells = [contest.rows.get(provider.provider) for provider in across]
            rows.append([case_name(contest.any_row), *(shown(row) if row and has(row) else NOTHING for row in cells)])
        first = group[0].any_row
        blocks.append(title.format(device=device(first), precision=precision(first)))
        blocks.append(table(["case", *(provider.label for provider in across)], rows))
    return blocks


def _ceilings(contest: Contest) -> dict[str, float]:
    return next((row.ceilings for row in contest.measured if row.ceilings), {})


def _span(values: Iterable[float], unit: str) -> str:
    found = sorted(values)
    if not found:
        return NOTHING
    middle = f"{significant(statistics.median(found))} {unit}"
    return middle if len(found) == 1 else f"{middle} ({significant(found[0])} to {significant(found[-1])})"


def _cases(rows: Sequence[Row]) -> str:
    names = [f"{case_name(row)} ({place(row)})" for row in rows]
    return "; ".join(names) if len(names) <= _NAMED_CASES else f"{len(names)}, such as {names[0]}"
