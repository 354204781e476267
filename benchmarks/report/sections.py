"""The report: what result files hold, in Markdown, a section for each question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpunet.errors import unknown_name

from . import tables
from .beside import beside
from .frame import frame
from .prediction import prediction
from .results import Results
from .scaling import scaling
from .targets import machines, targets

NOTHING_YET = "Nothing of this has been measured yet."

# Name, as in the markers of documents: heading, and what returns the paragraphs and tables of one file and its table.
SECTIONS: dict[str, tuple[str, Callable[[Results, Any], list[str]]]] = {
    "summary": ("In short", tables.summary),
    "machine": ("What it ran on", tables.machine),
    "peers": ("gpunet against each peer", tables.peers),
    "targets": ("The CPU step and its targets", targets),
    "networks": ("Networks", tables.networks),
    "beside": ("Beside a busy program", beside),
    "sweeps": ("How the cost grows", tables.sweeps),
    "operations": ("Single operations", tables.operations),
    "activations": ("What an activation costs", tables.activations),
    "crossover": ("CPU or GPU", tables.crossover),
    "memory": ("Memory", tables.memory),
    "launches": ("Kernel launches", tables.launches),
    "cold-start": ("Cold start", tables.cold_start),
    "roofline": ("Roofline", tables.roofline),
    "not-measured": ("What has no time, and why", tables.not_measured),
}
# Sections of documents that are about all result files together, and not in the report on them.
OVERALL: dict[str, Callable[[Sequence[Results]], list[str]]] = {
    "machines": machines,
    "prediction": prediction,
    "scaling": scaling,
}
HOW_TO_READ = (
    "Times are medians over the rounds of a case, in each of which all peers do it one after the other; the fastest is "
    "bold. `1.51x` is the median over the rounds of a peer's time over gpunet's in the same round: above 1, gpunet is "
    "faster. Where their 10th and 90th percentile are further than 5 % from it, they follow: `1.51x, 1.38-1.62`. "
    "*Of roofline* is the least time at the machine's own rates over the time taken; above 100 % where "
    "arrays stay in a cache or are updated in place, which is faster than the copy that sets the rate. *Even* means "
    "that the 10th to 90th "
    "percentile of the ratio hold 1. *Growth* `^0.95`: the time grows like the 0.95th power of what is varied, by "
    "least squares over all points."
)


def report(files: Sequence[Results]) -> str:
    """Return the report on some result files."""
    blocks = []
    for results in files:
        blocks.append(f"# {results.title}")
        if not results.rows:
            blocks.append(NOTHING_YET)
            continue
        table = frame(results)
        for name, (heading, make) in SECTIONS.items():
            if found := make(results, table):
                blocks += [f"## {heading}", *found]
            if name == "machine":
                blocks += ["## How to read the tables", HOW_TO_READ]
    return "\n\n".join(blocks) + "\n"


def section(name: str, files: Sequence[Results], *, argument: str = "section") -> str:
    """Return one section, without a heading; where there are several files, each is named first.

    Raises
    ------
    InvalidValueError
        There is no such section; the message begins with ``argument`` and has the nearest.
    """
    if name in OVERALL:
        return "\n\n".join(OVERALL[name](files) or [NOTHING_YET])
    if name not in SECTIONS:
        raise unknown_name(argument, name, (*SECTIONS, *OVERALL))
    blocks: list[str] = []
    for results in files:
        found = SECTIONS[name][1](results, frame(results))
        blocks += [f"*{results.title}*", *found] if found and len(files) > 1 else found
    return "\n\n".join(blocks or [NOTHING_YET])
