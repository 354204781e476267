"""Which results and which rows: those that come with gpunet, the newest of each machine, and filters."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from gpunet.bench.results import Results, read_results
from gpunet.errors import InvalidValueError, MissingFileError, unknown_name

_PACKAGE = "gpunet.benchmark_results"


def results_folder() -> Path:
    """Return the folder of the results that are installed with gpunet, or that lie in its checkout.

    Raises
    ------
    MissingFileError
        There is none.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent
    folder = Path(__file__).parents[2] / "benchmarks" / "results"  # a checkout that is not installed
    if not folder.is_dir():
        raise MissingFileError("FILES: this installation of gpunet holds no benchmark results. Name some files.")
    return folder


def committed_results(folder: Path | None = None) -> list[Results]:
    """Return the newest results of each machine in a folder, by default those that come with gpunet.

    Raises
    ------
    MissingFileError
        There are none; the message says how to make some.
    FileFormatError
    """
    folder = results_folder() if folder is None else folder
    newest: dict[str, Results] = {}
    for path in sorted(folder.glob("*.json")):
        results = read_results(path)
        known = newest.get(results.machine["name"])
        if known is None or _age(known) <= _age(results):
            newest[results.machine["name"]] = results
    if not newest:
        raise MissingFileError(
            f"FILES: there are no results in {folder} yet. `make benchmark` in a checkout makes some; or name a file."
        )
    return list(newest.values())


def choose(
    files: Sequence[Results],
    *,
    providers: Sequence[str] | None = None,
    configurations: Sequence[str] | None = None,
    modes: Sequence[str] | None = None,
    keep_all: bool = False,
) -> list[Results]:
    """Return the results with only the rows of some providers, labels of cases and modes.

    Parameters
    ----------
    files : sequence of Results
    providers, configurations, modes : sequence of str, or None
        Names, or several separated by commas; None takes all.
    keep_all : bool
        Whether results without any such row are returned too, empty.

    Raises
    ------
    InvalidValueError
        No row has a name (the message has the nearest that one has), or none is left.
    """
    rows = [row for results in files for row in results.rows]
    wanted_providers = _known("--provider", providers, (row.provider for row in rows))
    wanted_labels = _known("--configuration", configurations, (row.case["label"] for row in rows))
    wanted_modes = _known("--mode", modes, (row.case["mode"] for row in rows))
    chosen = [
        replace(
            results,
            rows=[
                row
                for row in results.rows
                if row.provider in wanted_providers
                and row.case["label"] in wanted_labels
                and row.case["mode"] in wanted_modes
            ],
        )
        for results in files
    ]
    if not any(results.rows for results in chosen):
        raise InvalidValueError("No row is left of that --provider, --configuration and --mode together.")
    return [results for results in chosen if results.rows or keep_all]


def _known(argument: str, names: Sequence[str] | None, valid: Iterable[str]) -> set[str]:
    known = set(valid)
    if names is None:
        return known
    wanted: set[str] = set()
    for name in names:
        # Labels such as "1,000 parameters" have a comma of their own.
        wanted |= {name} if name in known else {part.strip() for part in name.split(",")}
    for name in sorted(wanted - known):
        raise unknown_name(argument, name, known)
    return wanted


def _age(results: Results) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", results.version)], results.date
