"""Samples per second with several numbers of threads, alone and beside a program that keeps the cores busy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .frame import markdown
from .results import BESIDE, OURS, Results
from .words import NOTHING, shape, significant

if TYPE_CHECKING:
    import pandas as pd


def beside(results: Results, table: pd.DataFrame) -> list[str]:
    """Return a line for each peer and number of threads."""
    import pandas as pd

    lines = table[table.measured & (table.kind == BESIDE)]
    if lines.empty:
        return []
    cells: dict[str, list[str]] = {}
    order = list(dict.fromkeys(peer.partition("@")[0] for peer in lines.peer))
    for row in sorted(lines.row, key=lambda row: order.index(row.peer.partition("@")[0])):
        label, _, told = row.label.rpartition(", ") if "@" in row.peer else (row.label, "", "")
        chooses = row.peer.startswith(f"{OURS}-compiled") and not told
        threads = f"chosen, at most {row.threads}" if chooses else str(row.threads)
        line = cells.setdefault(row.peer, [label, threads, NOTHING, NOTHING])
        line[3 if row.case.busy else 2] = significant(row.samples_per_second)
    columns = ["peer", "threads", "alone, samples/s", "beside it, samples/s"]
    first = lines.iloc[0]["case"]
    return [
        f"**Epochs from host data**, alone and beside a program that keeps the same cores busy: {shape(first)}.",
        markdown(pd.DataFrame(list(cells.values()), columns=columns), left=2),
    ]
