"""The rows of a result file as a pandas table, in the order that reports show them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gpunet.errors import optional_package

from .results import BESIDE, Case, Results, Row
from .words import NETWORK_MODES, NOTHING, precision, shared_and_own, work

if TYPE_CHECKING:
    import pandas


def frame(results: Results) -> pandas.DataFrame:
    """Return a line for each peer in each case in which somebody took part, in the order of tables.

    ``device`` is that of the comparison: gpunet on the CPU that ran beside peers on a GPU stands with them. ``kind`` is
    ``"network"``, ``"sweep"``, ``"operation"`` or :data:`~.results.BESIDE`. ``reference`` is the row of gpunet that
    ratios are taken to, ``row`` the :class:`~.results.Row`, for all that has no column.
    """
    with optional_package("pandas", extra="cli", purpose="tables of benchmark results"):
        import pandas as pd

    on_gpu = {row.key for row in results.rows if row.on_device}
    took_part = {(row.key, row.on_device) for row in results.rows if row.status not in ("missing", "refused")}
    rows = [row for row in results.rows if (row.key, row.key in on_gpu) in took_part]
    rows.sort(key=lambda row: _order(row.case, row.key in on_gpu))
    measured = sorted((row for row in rows if row.status == "ok"), key=lambda row: -row.median)
    fastest = {row.key: row for row in measured}
    beaten = {row.key for row in measured if row is not fastest[row.key]}
    reference = {row.key: row for row in measured if row.peer == row.ratio_to}
    columns: dict[str, Callable[[Row], Any]] = {
        "row": lambda row: row,
        "case": lambda row: row.case,
        "key": lambda row: row.key,
        "peer": lambda row: row.peer,
        "label": lambda row: row.label + (" (CPU)" if row.key in on_gpu and not row.on_device else ""),
        "device": lambda row: "GPU" if row.key in on_gpu else "CPU",
        "precision": lambda row: precision(row.case),
        "kind": lambda row: _kind(row.case),
        "work": lambda row: work(row.case),
        "status": lambda row: row.status,
        "median": lambda row: row.median if row.status == "ok" else math.nan,
        "ours": lambda row: row.is_ours,
        "measured": lambda row: row.status == "ok",
        "took_part": lambda row: row.status not in ("missing", "refused"),
        "is_fastest": lambda row: row is fastest.get(row.key) and row.key in beaten,
        "reference": lambda row: reference.get(row.key),
        "ratio": lambda row: None if row is reference.get(row.key) else row.ratio,
    }
    table = pd.DataFrame({name: pd.Series(list(map(column, rows)), dtype=object) for name, column in columns.items()})
    return table.astype({"median": float} | dict.fromkeys(("ours", "measured", "took_part", "is_fastest"), bool))


def _kind(case: Case) -> str:
    if case.label == BESIDE:
        return BESIDE
    return "sweep" if case.sweep else "network" if case.is_network else "operation"


def _order(case: Case, on_gpu: bool) -> tuple[Any, ...]:
    modes = [*NETWORK_MODES, "backward"]
    mode = modes.index(case.mode) if case.mode in modes else len(modes)
    name = case.label if case.is_network and not case.sweep else ""
    work = case.operation, mode, case.dtype, case.precision, case.sweep or ("", 0), name
    return (on_gpu, not case.is_network, *work, case.rows, case.sizes, case.activation, case.key)


def peers_of(group: pandas.DataFrame) -> list[tuple[str, str]]:
    """Return name and label of each peer that took part: the reference of the ratios, gpunet's others, the rest."""
    found = group[group.took_part].drop_duplicates("peer")
    references = {row.peer for row in group.reference if row is not None}
    order = sorted(found.itertuples(), key=lambda line: (line.peer not in references, not line.ours))
    return [(line.peer, line.label) for line in order]


def cases_of(group: pandas.DataFrame) -> list[Case]:
    """Return the distinct cases in their order."""
    return list(group.drop_duplicates("key")["case"])


def across(
    group: pandas.DataFrame, cells: Sequence[str], head: str, name: Callable[[Case], str], *, own: bool = True
) -> tuple[str, pandas.DataFrame]:
    """Return the traits that all cases share, and a table of cells: a case in each line, a peer in each column.

    ``head`` is that of the first column, ``name`` what that calls a case; where ``own``, its own traits follow there.
    """
    peers, cases = peers_of(group), cases_of(group)
    pivoted = group.assign(cell=list(cells)).pivot(index="key", columns="peer", values="cell")
    table = pivoted.reindex(index=[case.key for case in cases], columns=[peer for peer, _ in peers]).fillna(NOTHING)
    table.columns = [label for _, label in peers]
    shared, traits = shared_and_own(cases)
    names = [", ".join([name(case), *(extra if own else [])]) for case, extra in zip(cases, traits, strict=True)]
    table.insert(0, head, names, allow_duplicates=True)
    return shared, table


def markdown(table: pandas.DataFrame, *, left: int = 1) -> str:
    """Return a table as GitHub reads it, aligned in a terminal too; ``left`` columns are aligned to the left."""
    rows = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in row] for row in (table.columns, *table.values)]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    alignments = ["<" if place < left else ">" for place in range(len(widths))]
    rule = ["-" * width if place < left else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    return "\n".join(
        f"| {' | '.join(f'{cell:{side}{width}}' for cell, side, width in zip(row, alignments, widths, strict=True))} |"
        for row in (rows[0], rule, *rows[1:])
    )
