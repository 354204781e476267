"""The sections of the report: each returns the paragraphs and tables that it makes of the rows of one file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gpunet.errors import counted

from .frame import across, markdown, peers_of
from .results import BESIDE, SHORT_COMMIT, Case, Results, Row, Spread
from .words import (
    NETWORK_MODES,
    NOTHING,
    case_name,
    megabytes,
    milliseconds,
    place,
    precision,
    roofline_share,
    shape,
    significant,
    times,
    times_with_spread,
    traits,
)

if TYPE_CHECKING:
    import pandas as pd

NO_GPU = "No GPU has run these benchmarks."
# The activation that others are compared with: the cheapest one that bends.
_CHEAP = "relu"
# Points of a sweep below which an exponent says little.
_FEWEST_POINTS = 3
# Cases of one reason that are named one by one.
_NAMED_CASES = 3
_FACTS = {
    "cpu": "CPU",
    "cores": "cores",
    "memory_bytes": "memory",
    "cache_bytes": "last-level cache",
    "gpu": "GPU",
    "gpu_memory_bytes": "GPU memory",
    "gpu_cache_bytes": "GPU cache",
    "driver": "GPU driver",
    "clocks": "GPU clocks",
    "system": "system",
    "python": "Python",
}


def summary(results: Results, table: pd.DataFrame) -> list[str]:
    """Return the table of a README: the configurations' training steps, with machine and date."""
    steps = table[(table.kind == "network") & (table.work == NETWORK_MODES["step"])]
    blocks = []
    for group, where in _split(steps, "device", "precision"):
        cells = [_time(line, lambda ratio: times(ratio.median)) for line in group.itertuples()]
        shared, shown = across(group, cells, "batch x layer sizes", shape)
        shown["gpunet, samples/s"] = [
            significant(row.samples_per_second if row else None) for row in group.drop_duplicates("key").reference
        ]
        blocks.append(
            f"{where.work} on the {where.device} ({shared}): median time, and in parentheses how many "
            f"times as long as {_reference_label(group)} it takes, the median of rounds."
        )
        blocks.append(markdown(shown))
    if blocks:
        blocks.append(f"Measured on {_machine_in_words(results)}.{'' if _has_gpu(results) else f' {NO_GPU}'}")
    return blocks


def machine(results: Results, table: pd.DataFrame) -> list[str]:
    """Return a table of machine, threads, libraries, versions, commit and dates."""
    rows = [row for row in results.rows if row.status == "ok" and row.case.label != BESIDE]
    facts = {title: _fact(name, results.machine[name]) for name, title in _FACTS.items() if results.machine.get(name)}
    versions = _gathered(pair for row in rows for pair in row.versions.items())
    libraries = _gathered((row.blas, row.label) for row in rows if row.blas)
    pools = libraries if len(libraries) == 1 else [f"{', '.join(labels)}: {name}" for name, labels in libraries.items()]
    commits = [commit[:SHORT_COMMIT] + plus + rest for commit, plus, rest in (r.commit.partition("+") for r in rows)]
    facts |= {
        "threads": _threads(rows),
        "GPU clock after the rounds": _range([row.gpu_megahertz for row in rows if row.gpu_megahertz], " MHz"),
        "BLAS and thread pools": "; ".join(pools),
        "versions": _listed(f"{package} {' and '.join(found)}" for package, found in versions.items()),
        "gpunet": _listed([results.version, *commits]),
        "measured": _range([row.date[:10] for row in rows if row.date]),
        "precision": _listed(precision(row.case) for row in rows),
    }
    return [_table(["what", "here"], [[name, fact] for name, fact in facts.items() if fact], left=2)]


def peers(results: Results, table: pd.DataFrame) -> list[str]:
    """Return how often gpunet is faster than each peer and by how much, and every case in which it is slower."""
    table = table[table.kind != BESIDE]
    table = table.assign(theme=table.kind.map({"operation": "Single operations"}).fillna("Networks"))
    blocks = []
    for group, where in _split(table, "device", "theme", "precision"):
        compared = group[group.ratio.notna()]
        rows = []
        for name, label in peers_of(group):
            lines = list(compared[compared.peer == name].itertuples())
            if lines:
                faster, slower = (sum(line.ratio.p10 > 1 for line in lines), sum(line.ratio.p90 < 1 for line in lines))
                mean = math.exp(math.fsum(math.log(line.ratio.median) for line in lines) / len(lines))
                least = min(lines, key=lambda line: line.ratio.median)
                counts = [len(lines), faster, len(lines) - faster - slower, slower]
                rows.append([label, *counts, times(mean), times_with_spread(least.ratio), case_name(least.case)])
        if not rows:
            continue
        columns = ["peer", "cases", "gpunet faster", "even", "slower", "geometric mean", "least", "where"]
        blocks.append(f"**{where.theme}** on the {where.device}, {where.precision}: a peer's time over gpunet's.")
        blocks.append(_table(columns, rows))
        lost = [
            [case_name(line.case), line.row.label, times_with_spread(line.ratio), *map(milliseconds, both)]
            for line in sorted(compared.itertuples(), key=lambda line: line.ratio.median)
            if line.ratio.p90 < 1 and not line.ours and (both := (line.median, line.reference.median))
        ]
        if lost:
            columns = ["case", "peer", "its time over gpunet's", "peer's", "gpunet's"]
            count = counted(len(lost), "case")
            blocks.append(f"**Where gpunet is slower than another library**: {count}, the worst first.")
            blocks.append(_table(columns, lost, left=2))
        else:
            blocks.append("gpunet is slower in none of them.")
    return blocks


def networks(results: Results, table: pd.DataFrame) -> list[str]:
    """Return a table for each mode: configurations down, peers across."""
    return _by_work(table[table.kind == "network"], "batch x layer sizes", lambda case: f"{case.label}: {shape(case)}")


def operations(results: Results, table: pd.DataFrame) -> list[str]:
    """Return a table for each operation; several activations of one shape are in :func:`activations`."""
    varied = {key for group, _ in _activation_groups(table) for key in group.key}
    return _by_work(table[(table.kind == "operation") & ~table.key.isin(varied)], "shape", shape)


def sweeps(results: Results, table: pd.DataFrame) -> list[str]:
    """Return a table for each quantity that is varied and mode, with the exponent of each peer's growth."""
    table = table[table.kind == "sweep"]
    table = table.assign(varied=[case.sweep[0] for case in table["case"]])
    blocks = []
    for group, where in _split(table, "device", "varied", "work", "precision"):
        shared, shown = _times(group, where.varied, lambda case: case.label.split()[-1], own=False)
        powers = [exponent(group, name) for name, _ in peers_of(group)]
        shown.loc["growth"] = ["growth", *(NOTHING if power is None else f"^{power:.2f}" for power in powers), ""]
        blocks.append(
            f"**{where.work} against {where.varied}** on the {where.device}: {shared}; "
            f"the first is {shape(where.case)}."
        )
        blocks.append(markdown(shown))
    return blocks


def activations(results: Results, table: pd.DataFrame) -> list[str]:
    """Return what each activation costs where everything else is the same (lecture, row L16: exp is expensive)."""
    blocks = []
    for group, where in _activation_groups(table):
        costs = [row.median if row else math.inf for row in group.reference]
        group = group.assign(cost=costs).sort_values("cost", kind="stable")
        ours = {case.activation: cost for case, cost in zip(group["case"], group.cost, strict=True)}
        cheap = _CHEAP if _CHEAP in ours else next(iter(ours))
        _, shown = _times(group, "activation", lambda case: case.activation, own=False)
        shares = [cost / ours[cheap] for cost in ours.values()]
        shown[f"gpunet, to {cheap}"] = [f"{share:.2f} times" if 0 < share < math.inf else NOTHING for share in shares]
        blocks.append(f"**{where.work}** on the {where.device}: {shape(where.case)}, {where.precision}.")
        blocks.append(markdown(shown))
    return blocks


def crossover(results: Results, table: pd.DataFrame) -> list[str]:
    """Return gpunet on the CPU beside gpunet on the GPU, and below which size the CPU wins."""
    if not _has_gpu(results):
        return [f"{NO_GPU} So nobody knows yet below which size the CPU is faster."]
    table = table[table.ours & table.measured & (table.kind != BESIDE)]
    table = table.assign(place=["gpu" if row.on_device else "cpu" for row in table.row])
    best = table.pivot_table(index="key", columns="place", values="median", aggfunc="min", sort=False)
    if not {"cpu", "gpu"} <= set(best.columns) or (best := best.dropna()).empty:
        return ["No case has run on both the CPU and the GPU at the same precision."]
    both = table.drop_duplicates("key").set_index("key").join(best, how="inner")
    blocks = []
    for group, where in _split(both, "work"):
        rows = []
        for line in group.itertuples():
            cells = [milliseconds(time) for time in (line.cpu, line.gpu)]
            cells[line.gpu < line.cpu] = f"**{cells[line.gpu < line.cpu]}**"
            label = f"{line.case.label}: " if line.case.is_network else ""
            name = ", ".join([f"{label}{shape(line.case)}", *traits(line.case)[:-1]])
            rows.append([name, *cells, times(line.cpu / line.gpu)])
        blocks.append(f"**{where.work}**, {where.precision}: gpunet on the CPU and on the GPU.")
        blocks.append(_table(["case", "CPU", "GPU", "CPU over GPU"], rows))
        swept = group[group.kind == "sweep"]
        for varied, points in swept.groupby([case.sweep[0] for case in swept["case"]], sort=False):
            blocks.append(
                _crossing(varied, [(line.case.sweep[1], line.cpu <= line.gpu) for line in points.itertuples()])
            )
    return blocks


def _crossing(varied: str, points: Sequence[tuple[int, bool]]) -> str:
    """Return below which size the CPU wins."""
    cpu_wins = [wins for _, wins in points]
    span = f"{varied} {points[0][0]} to {points[-1][0]}"
    if len(set(cpu_wins)) == 1:
        return f"From {span} the {'CPU' if cpu_wins[0] else 'GPU'} is always faster."
    first_loss = cpu_wins.index(False)
    if any(cpu_wins[first_loss:]):
        return f"From {span} neither is faster on one side of a single size."
    below, above = points[first_loss - 1][0], points[first_loss][0]
    return f"The CPU is faster up to {varied} {below}, the GPU from {varied} {above}."


def memory(results: Results, table: pd.DataFrame) -> list[str]:
    """Return the peak memory of the network configurations: of the process on a CPU, of the device on a GPU."""
    blocks = _facts_across(
        table,
        "**Peak memory** on the {}, {}: of the process on a CPU, of the device's memory on a GPU.",
        lambda row: megabytes(row.peak_bytes) if row.case.is_network else NOTHING,
    )
    return blocks + _facts_across(
        table,
        "**What steps add** on the {}, {}: the most memory of a process of their own, beyond what it had before the "
        "network was built; a small network has trained before, so that libraries have what they need once.",
        lambda row: megabytes(row.growth_bytes),
    )


def launches(results: Results, table: pd.DataFrame) -> list[str]:
    """Return the kernels of one unit of work, and the time by the device's own clock."""

    def shown(row: Row) -> str:
        count = NOTHING if row.launches is None else counted(row.launches, "kernel")
        return f"{count}, {milliseconds(row.device_milliseconds.median)}" if row.device_milliseconds else count

    return _facts_across(table, "**Kernel launches and device time** of one unit of work on the {}, {}.", shown)


def cold_start(results: Results, table: pd.DataFrame) -> list[str]:
    """Return how long importing takes, and building and running a case for the first time."""
    rows = []
    for name, label in peers_of(table[table.kind != BESIDE]):
        found = [row for row in results.rows if row.peer == name and row.status == "ok"]
        imports = [row.import_seconds for row in found if row.import_seconds is not None]
        firsts = [row.first_seconds for row in found if row.first_seconds is not None]
        if imports and firsts:
            where = max(found, key=lambda row: row.first_seconds or 0)
            numbers = statistics.median(imports), statistics.median(firsts), where.first_seconds
            rows.append(
                [label, *(significant(number, "s") for number in numbers), f"{case_name(where.case)} ({place(where)})"]
            )
    if not rows:
        return []
    columns = ["peer", "import, median", "first unit of work, median", "longest", "where"]
    return ["**Cold start**: importing, then building, compiling and the first unit of work.", _table(columns, rows)]


def roofline(results: Results, table: pd.DataFrame) -> list[str]:
    """Return the rates of a large matrix product and a large copy, measured between the rounds of each case."""
    rows = []
    for group, where in _split(table, "device", "precision"):
        on_device = where.device == "GPU"
        measured = [row for row in group[group.measured].row if row.peaks and row.on_device == on_device]
        peaks = list({row.key: row.peaks for row in reversed(measured)}.values())
        if peaks:
            threads = "" if on_device else f", {_threads(measured)} threads"
            rates = {"gigaflops": "GFLOP/s", "gigabytes_per_second": "GB/s"}
            spans = [_span([found[rate] for found in peaks if rate in found], unit) for rate, unit in rates.items()]
            rows.append([place(measured[0]) + threads, *spans, len(peaks)])
    if not rows:
        return []
    return [
        "Median over the cases, with the least and the most: the machine was not always in the same state. "
        "A case's roofline takes its own.",
        _table(["where", "matrix product", "copy", "cases"], rows),
    ]


def not_measured(results: Results, table: pd.DataFrame) -> list[str]:
    """Return which peer has no time in which cases, and why; wrong and failed ones first."""
    found = _gathered(
        ((row.status, row.label, row.reason), f"{case_name(row.case)} ({place(row)})")
        for row in results.rows
        if row.status != "ok"
    )
    order = ("wrong", "failed", "refused", "missing")
    rows = []
    for (status, label, reason), names in sorted(found.items(), key=lambda entry: order.index(entry[0][0])):
        some = "; ".join(names) if len(names) <= _NAMED_CASES else f"{len(names)}, such as {names[0]}"
        rows.append([label, status, some, reason or NOTHING])
    return [_table(["peer", "status", "cases", "reason"], rows, left=4)] if rows else []


def exponent(group: pd.DataFrame, peer: str) -> float | None:
    """Return p where a peer's times in a sweep grow like the p-th power, by least squares of the logarithms."""
    import numpy as np

    measured = group[(group.peer == peer) & group.measured]
    points = [(line.case.sweep[1], line.median) for line in measured.itertuples()]
    if len(points) < _FEWEST_POINTS or min(points)[0] == 0:
        return None
    values, times_taken = np.log(np.array(points, dtype=np.float64)).T
    return float(np.polyfit(values, times_taken, 1)[0])


# --- what the sections share ---


def _reference_label(group: pd.DataFrame) -> str:
    """Return what the way to use gpunet is called that ratios are taken to."""
    return next((row.label for row in group.reference if row is not None), "gpunet")


def _split(table: pd.DataFrame, *columns: str) -> Iterator[tuple[pd.DataFrame, Any]]:
    """Yield the lines that agree in some columns, and the first of them, for what they agree in."""
    for _, group in table.groupby(list(columns), sort=False):
        yield group, next(group.itertuples())


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, left: int = 1) -> str:
    import pandas as pd

    return markdown(pd.DataFrame(rows, columns=columns), left=left)


def _time(line: Any, ratio: Callable[[Spread], str] = times_with_spread) -> str:
    """Return a peer's time, in bold where it is the fastest, and its ratio to gpunet's."""
    if not line.measured:
        return str(line.status)
    text = milliseconds(line.median) + (f" ({ratio(line.ratio)})" if line.ratio else "")
    return f"**{text}**" if line.is_fastest else text


def _times(
    group: pd.DataFrame, head: str, name: Callable[[Case], str], *, own: bool = True
) -> tuple[str, pd.DataFrame]:
    """Return what :func:`across` does of the times, with the share of the roofline of gpunet and of the best peer."""
    shared, shown = across(group, [_time(line) for line in group.itertuples()], head, name, own=own)
    others = group[group.measured & ~group.ours].sort_values("median", kind="stable", ascending=False)
    best = dict(zip(others.key, others.row, strict=True))
    references = dict(zip(group.key, group.reference, strict=True))
    shown["of roofline: gpunet / best peer"] = [
        f"{roofline_share(references[key])} / {roofline_share(best.get(key))}" for key in shown.index
    ]
    return shared, shown


def _by_work(table: pd.DataFrame, head: str, name: Callable[[Case], str]) -> list[str]:
    blocks = []
    for group, where in _split(table, "device", "work", "precision"):
        shared, shown = _times(group, head, name)
        blocks += [f"**{where.work}** on the {where.device}: {shared}.", markdown(shown)]
    return blocks


def _facts_across(table: pd.DataFrame, title: str, fact: Callable[[Row], str]) -> list[str]:
    """Return a table with cases down and peers across for each device and precision, sweeps left out."""
    table = table[table.measured & ~table.kind.isin(("sweep", BESIDE))]
    table = table.assign(fact=[fact(row) for row in table.row])
    blocks = []
    for group, where in _split(table[table.fact != NOTHING], "device", "precision"):
        _, shown = across(group, group.fact, "case", case_name, own=False)
        blocks += [title.format(where.device, where.precision), markdown(shown)]
    return blocks


def _activation_groups(table: pd.DataFrame) -> list[tuple[pd.DataFrame, Any]]:
    """Return cases that differ in their activation alone, where there are several."""
    all_else = [case.replace(activation="") for case in table["case"]]
    groups = _split(table.assign(all_else=all_else), "device", "all_else")
    return [(group, first) for group, first in groups if group.key.nunique() > 1]


def _gathered(pairs: Iterable[tuple[Any, str]]) -> dict[Any, list[str]]:
    """Return the distinct second parts of each first part, in their order."""
    found: dict[Any, dict[str, None]] = {}
    for name, value in pairs:
        found.setdefault(name, {})[value] = None
    return {name: list(values) for name, values in found.items()}


def _has_gpu(results: Results) -> bool:
    return any(row.on_device and row.status == "ok" for row in results.rows)


def _machine_in_words(results: Results) -> str:
    """Return machine, threads, version and date in half a sentence."""
    known, rows = results.machine, [row for row in results.rows if row.status == "ok" and row.case.label != BESIDE]
    said = {"cores": "{} cores", "gpu": "{}", "driver": "driver {}"}
    facts = {name: words.format(known[name]) for name, words in said.items() if known.get(name)}
    threads = f"{_threads(rows)} threads" if _threads(rows) else ""
    dates = _range([row.date[:10] for row in rows if row.date])
    cpu = str(known.get("cpu", known["name"]))
    return _listed([cpu, facts.pop("cores", ""), threads, *facts.values(), f"gpunet {results.version}", dates])


def _threads(rows: Sequence[Row]) -> str:
    return " or ".join(sorted({str(row.threads) for row in rows if row.threads}))


def _fact(name: str, value: Any) -> str:
    if name.endswith("_bytes") and isinstance(value, (int, float)):
        return significant(value / 1e9, "GB") if value >= 1e9 else megabytes(value)
    return str(value)


def _range(values: Sequence[Any], unit: str = "") -> str:
    return " to ".join(dict.fromkeys((str(min(values)), str(max(values))))) + unit if values else ""


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(filter(None, values)))


def _span(values: Sequence[float], unit: str) -> str:
    if not values:
        return NOTHING
    middle = significant(statistics.median(values), unit)
    return middle if len(values) == 1 else f"{middle} ({significant(min(values))} to {significant(max(values))})"
