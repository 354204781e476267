"""What a result file's numbers were measured on, with what, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gpunet.bench.contests import precision
from gpunet.bench.markdown import significant, table
from gpunet.bench.results import Results
from gpunet.bench.rows import Row

# Facts of a machine in the order of the table; what else a file says about its machine follows under its own name.
_FACTS = {
    "cpu": "CPU",
    "cores": "cores",
    "memory_bytes": "memory",
    "cache_bytes": "last-level cache",
    "gpu": "GPU",
    "gpu_memory_bytes": "GPU memory",
    "driver": "GPU driver",
    "clocks": "GPU clocks",
    "system": "system",
    "python": "Python",
}
_SHORT_COMMIT = 10


def facts(results: Results) -> list[str]:
    """Return a table of machine, threads, libraries, versions, commit and dates."""
    machine = {name: value for name, value in results.machine.items() if name != "name" and value not in (None, "")}
    ordered = [name for name in _FACTS if name in machine] + [name for name in machine if name not in _FACTS]
    rows = [[_FACTS.get(name, name), _fact(name, machine[name])] for name in ordered]
    measured = [row for row in results.rows if row.status == "ok"]
    rows += [
        ["threads", _listed(str(row.threads) for row in measured if row.threads)],
        ["GPU clock after the rounds", _clocks(measured)],
        ["BLAS and thread pools", _by_provider(measured, lambda row: row.blas)],
        ["versions", _versions(measured)],
        ["gpunet", f"{results.version}, {_listed(_commit(row.commit) for row in measured if row.commit)}".rstrip(", ")],
        ["measured", _dates(results)],
        ["precision", _listed(map(precision, measured))],
    ]
    return [table(["what", "here"], [row for row in rows if row[1]], left=2)]


def machine_in_words(results: Results) -> str:
    """Return machine, threads, version and date in half a sentence."""
    machine = results.machine
    gpu = machine.get("gpu")
    measured = [row for row in results.rows if row.status == "ok"]
    threads = sorted({row.threads for row in measured if row.threads})
    parts = [str(machine.get("cpu", machine["name"]))]
    if "cores" in machine:
        parts.append(f"{machine['cores']} cores")
    if threads:
        parts.append(f"{' or '.join(map(str, threads))} threads")
    if gpu:
        parts.append(str(gpu))
    if driver := machine.get("driver"):
        parts.append(f"driver {driver}")
    parts.append(f"gpunet {results.version}")
    if dates := _dates(results):
        parts.append(dates)
    return ", ".join(parts)


def _fact(name: str, value: Any) -> str:
    if name.endswith("_bytes") and isinstance(value, (int, float)):
        return f"{significant(value / 1e9)} GB" if value >= 1e9 else f"{significant(value / 1e6)} MB"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _by_provider(rows: Iterable[Row], fact: Callable[[Row], str]) -> str:
    """Return a fact once if all providers share it, else with who has it."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if fact(row):
            found.setdefault(fact(row), {})[row.label] = None
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{', '.join(labels)}: {value}" for value, labels in found.items())


def _clocks(rows: Iterable[Row]) -> str:
    """Return the range of the clocks; those of an idle GPU say nothing about what was measured."""
    clocks = sorted(row.gpu_megahertz for row in rows if row.gpu_megahertz)
    return f"{' to '.join(dict.fromkeys((str(clocks[0]), str(clocks[-1]))))} MHz" if clocks else ""


def _versions(rows: Iterable[Row]) -> str:
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for package, version in row.versions.items():
            found.setdefault(package, {})[version] = None
    return ", ".join(f"{package} {' and '.join(versions)}" for package, versions in found.items())


def _commit(text: str) -> str:
    commit, plus, changes = text.partition("+")
    return f"{commit[:_SHORT_COMMIT]}{plus}{changes}"


def _dates(results: Results) -> str:
    days = sorted({row.date[:10] for row in results.rows if row.date and row.status == "ok"})
    return " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
