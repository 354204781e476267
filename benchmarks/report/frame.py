"""The rows of result files as a pandas table, in the order that reports show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gpunet.errors import optional_package

from .results import Case, Results, Row
from .words import NETWORK_MODES, NOTHING, precision, shared_and_own, work

if TYPE_CHECKING:
    import pandas

COLUMNS = (
    *("row", "case", "key", "peer", "label", "device", "precision", "kind", "work", "status", "median"),
    *("ours", "measured", "took_part", "is_reference", "is_fastest", "reference", "ratio"),
)


def frame(results: Results) -> pandas.DataFrame:
    """Return the rows of the cases in which somebody took part, in the order of tables.

    Returns
    -------
    pandas.DataFrame
        A line for each peer in each case on each device. ``device`` is that of the comparison: gpunet on the CPU that
        ran beside peers on a GPU stands with them. ``kind`` is ``"network"``, ``"sweep"`` or ``"operation"``.
        ``reference`` is the row of gpunet that ratios are taken to, ``ratio`` a :class:`~.results.Spread` where the
        row has one to it. ``row`` is the :class:`~.results.Row`, for all the rest.

    Raises
    ------
    MissingDependencyError
        pandas is not installed.
    """
    with optional_package("pandas", extra="cli", purpose="tables of benchmark results"):
        import pandas as pd

    comparisons: dict[tuple[str, str], list[Row]] = {}
    for row, device in _placed(results.rows):
        comparisons.setdefault((device, row.key), []).append(row)
    lines = [line for (device, _), rows in comparisons.items() for line in _lines(rows, device)]
    return pd.DataFrame(lines, columns=COLUMNS).astype(dict.fromkeys(("row", "case", "reference", "ratio"), object))


def peers_of(group: pandas.DataFrame) -> list[tuple[str, str]]:
    """Return name and label of each peer that took part: the reference of the ratios, gpunet's others, the rest."""
    found = group[group.took_part].drop_duplicates("peer")
    references = set(group.peer[group.is_reference])
    order = sorted(found.itertuples(), key=lambda line: (line.peer not in references, not line.ours))
    return [(line.peer, line.label) for line in order]


def cases_of(group: pandas.DataFrame) -> list[Case]:
    """Return the distinct cases in their order."""
    return list(group.drop_duplicates("key")["case"])


def across(
    group: pandas.DataFrame, cells: Sequence[str], head: str, name: Callable[[Case], str], *, own: bool = True
) -> tuple[str, pandas.DataFrame]:
    """Return the traits that all cases share, and a table of cells: a case in each line, a peer in each column.

    Parameters
    ----------
    group : pandas.DataFrame
    cells : sequence of str
        Of each line of the group.
    head : str
        Of the first column.
    name : callable
        What that calls a case.
    own : bool
        Whether the traits that not all cases share follow there.
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


def _placed(rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """Return the rows with the devices of the comparisons that they belong to, in the order of tables."""
    on_gpu = {row.peer for row in rows if row.on_device}
    guests = [not row.on_device and row.ratio_to in on_gpu for row in rows]
    gpu_keys = {row.key for row in rows if row.on_device}
    cpu_keys = {row.key for row, guest in zip(rows, guests, strict=True) if not row.on_device and not guest}
    placed = []
    for row, guest in zip(rows, guests, strict=True):
        if row.on_device or (guest and row.key in gpu_keys):
            placed.append((row, "GPU"))
        if not row.on_device and (row.key in cpu_keys or row.key not in gpu_keys):
            placed.append((row, "CPU"))
    return sorted(placed, key=lambda pair: _order(*pair))


def _order(row: Row, device: str) -> tuple[Any, ...]:
    case = row.case
    modes = [*NETWORK_MODES, "backward"]
    name = ("" if case.sweep else case.label) if case.is_network else ""
    return (
        device,
        not case.is_network,
        case.operation,
        modes.index(case.mode) if case.mode in modes else len(modes),
        case.dtype,
        case.precision,
        case.sweep or ("", 0),
        name,
        case.rows,
        case.sizes,
        case.activation,
        case.key,
    )


def _lines(rows: Sequence[Row], device: str) -> list[dict[str, Any]]:
    """Return the lines of one case on one kind of device; none where nobody there took part."""
    on_device = device == "GPU"
    if not any(row.status not in ("missing", "refused") and row.on_device == on_device for row in rows):
        return []
    measured = sorted((row for row in rows if row.status == "ok"), key=lambda row: row.median)
    ours = [row for row in measured if row.is_ours and row.on_device == on_device]
    named = [row for row in ours if row.peer in {other.ratio_to for other in measured}]
    reference = next(iter(named or ours), None)
    case = rows[0].case
    return [
        {
            "row": row,
            "case": case,
            "key": case.key,
            "peer": row.peer,
            "label": row.label if row.on_device == on_device else f"{row.label} (CPU)",
            "device": device,
            "precision": precision(case),
            "kind": "sweep" if case.sweep else "network" if case.is_network else "operation",
            "work": work(case),
            "status": row.status,
            "median": row.median if row.status == "ok" else None,
            "ours": row.is_ours,
            "measured": row.status == "ok",
            "took_part": row.status not in ("missing", "refused"),
            "is_reference": row is reference,
            "is_fastest": len(measured) > 1 and row is measured[0],
            "reference": reference,
            "ratio": row.ratio if reference and row is not reference and row.ratio_to == reference.peer else None,
        }
        for row in rows
    ]
