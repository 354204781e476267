"""Rows that may stand side by side: those of one case on one kind of device, and tables of such contests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from gpunet.bench.results import Results
from gpunet.bench.rows import Row, Spread

NETWORK = "network"
# Name of a mode: how it is written at the head of a table, and in the order of tables.
NETWORK_MODES = {
    "step": "Training step",
    "forward_backward": "Forward and backward pass",
    "forward": "Inference",
    "epoch": "Epoch from host data",
}
# Hidden layers of one width that are written out one by one.
_LISTED_LAYERS = 3
_SWEEP = re.compile(r"(.*[^\d\s])\s+(\d+)")


@dataclass
class Contest:
    """The rows of one case on one kind of device.

    The key has the dtype and the precision in it, so that no two precisions meet.

    Attributes
    ----------
    key : str
    on_device : bool
        Whether these are the GPU's rows; gpunet on the CPU that ran beside them stands with them.
    rows : dict of str to Row
        By provider.
    """

    key: str
    on_device: bool
    rows: dict[str, Row] = field(default_factory=dict)

    @property
    def any_row(self) -> Row:
        """A row of the contest's device, for what all of them have: the case."""
        return next(row for row in self.rows.values() if row.on_device == self.on_device)

    @property
    def measured(self) -> list[Row]:
        """The rows that have times, the fastest first."""
        return sorted((row for row in self.rows.values() if row.status == "ok"), key=lambda row: row.median)

    @property
    def reference(self) -> Row | None:
        """The row of gpunet that ratios are taken to; where no row says so, its fastest."""
        names = {row.ratio_to for row in self.measured if row.ratio_to}
        ours = [row for row in self.measured if row.is_ours and row.on_device == self.on_device]
        return next((row for row in ours if row.provider in names), ours[0] if ours else None)

    @property
    def best_peer(self) -> Row | None:
        """The fastest row that is not gpunet's."""
        return next((row for row in self.measured if not row.is_ours), None)

    def ratio(self, row: Row) -> Spread | None:
        """Return a row's ratio to the reference, None for the reference itself or where it was taken to another."""
        reference = self.reference
        if reference is None or row is reference or row.ratio_to != reference.provider:
            return None
        return row.ratio


def contests(results: Results) -> list[Contest]:
    """Return the contests in which somebody took part, in the order of tables; CPU first."""
    found: dict[tuple[bool, str], Contest] = {}
    for row in results.rows:
        contest = found.setdefault((row.on_device, row.key), Contest(row.key, row.on_device))
        contest.rows[row.provider] = row
    on_device = {row.provider for row in results.rows if row.on_device}
    for (is_gpu, key), contest in list(found.items()):
        # gpunet's row on the CPU that ran in a contest of GPU providers.
        guests = [row for row in contest.rows.values() if not is_gpu and row.ratio_to in on_device]
        if (True, key) in found:
            found[True, key].rows.update({row.provider: row for row in guests})
            if len(guests) == len(contest.rows):
                del found[is_gpu, key]
    return sorted(filter(_took_place, found.values()), key=_order)


def providers(group: Iterable[Contest]) -> list[Row]:
    """Return a row of each provider that took part: the one that ratios are taken to, gpunet's others, the peers.

    Their labels say so where one ran on the CPU among GPU providers.
    """
    found: dict[str, Row] = {}
    references = set()
    for contest in group:
        reference = contest.reference
        references |= {reference.provider} if reference else set()
        for row in contest.rows.values():
            if row.status not in ("missing", "refused"):
                guest = contest.on_device and not row.on_device
                found.setdefault(row.provider, replace(row, label=f"{row.label} (CPU)") if guest else row)
    return sorted(found.values(), key=lambda row: (row.provider not in references, not row.is_ours))


def sweep(row: Row) -> tuple[str, int] | None:
    """Return what a network's case varies and its value, ``("batch", 1024)``; None for one of the configurations."""
    match = _SWEEP.fullmatch(row.case["label"]) if row.case["operation"] == NETWORK else None
    return (match[1], int(match[2])) if match else None


def precision(row: Row) -> str:
    """Return ``"float32"``, ``"float64"`` or ``"TF32"``."""
    return "TF32" if row.case["precision"] == "tf32" else str(row.case["dtype"])


def device(row: Row) -> str:
    """Return ``"CPU"`` or ``"GPU"``."""
    return "GPU" if row.on_device else "CPU"


def place(row: Row) -> str:
    """Return device and precision in words: ``"CPU, float32"``."""
    return f"{device(row)}, {precision(row)}"


def mode(row: Row) -> str:
    """Return what tables call a mode."""
    name = str(row.case["mode"])
    return NETWORK_MODES.get(name, name)


def operation(row: Row) -> str:
    """Return what tables call an operation: ``"batch norm activation"``."""
    return str(row.case["operation"]).replace("_", " ")


def shape(row: Row) -> str:
    """Return rows and layer sizes of a network, ``"256 x 784-256-256-10"``; ``"8192 x 2048"`` of an operation."""
    sizes = row.case["sizes"]
    if row.case["operation"].endswith("_step"):
        return f"{sizes[-1]} parameters"
    if row.case["operation"] == NETWORK:
        text = f"{row.case['rows']} x {_layers(sizes)}"
        return f"{text}, {row.case['examples']} examples" if row.case["mode"] == "epoch" else text
    return " x ".join(f"{size}" for size in (row.case["rows"], *sizes))


def case_name(row: Row) -> str:
    """Return a case in a few words, for places where different kinds of cases meet; without device and precision."""
    *own, _ = traits(row)
    if row.case["operation"] != NETWORK:
        return ", ".join([f"{operation(row)} {row.case['mode']}", shape(row), *own])
    plain = [] if row.case.get("batch_norm") else ["no batch norm"]
    return ", ".join([row.case["label"], mode(row).lower(), *plain])


def traits(row: Row) -> list[str]:
    """Return what a case has besides its shape: activation, batch norm, optimiser, precision."""
    case = row.case
    found = [str(case["activation"])] if case["operation"] == NETWORK or "activation" in case["operation"] else []
    if case["operation"] == NETWORK:
        found.append("batch norm" if case.get("batch_norm") else "no batch norm")
        if case["mode"] in ("step", "epoch"):
            found.append(str(case.get("optimizer")))
    return [*found, precision(row)]


def shared_and_own(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the traits that all rows have, and of each row those that not all have."""
    all_traits = [traits(row) for row in rows]
    shared = [trait for trait in all_traits[0] if all(trait in others for others in all_traits)]
    return shared, [[trait for trait in own if trait not in shared] for own in all_traits]


def _layers(sizes: Sequence[int]) -> str:
    """Return layer sizes, ``"784-256-256-10"``; many equal ones shortened, ``"64-64-...-64-10 (10 layers)"``."""
    hidden = sizes[1:-1]
    if len(hidden) > _LISTED_LAYERS and len(set(hidden)) == 1:
        return f"{sizes[0]}-{hidden[0]}-...-{hidden[0]}-{sizes[-1]} ({len(sizes) - 1} layers)"
    return "-".join(map(str, sizes))


def _took_place(contest: Contest) -> bool:
    return any(
        row.status not in ("missing", "refused") and row.on_device == contest.on_device for row in contest.rows.values()
    )


def _order(contest: Contest) -> tuple[object, ...]:
    case = contest.any_row.case
    modes = [*NETWORK_MODES, "forward", "backward"]
    swept = sweep(contest.any_row)
    return (
        contest.on_device,
        case["operation"] != NETWORK,
        case["operation"],
        modes.index(case["mode"]) if case["mode"] in modes else len(modes),
        case["dtype"],
        case["precision"],
        ("", 0) if swept is None else swept,
        "" if swept else case["label"] if case["operation"] == NETWORK else "",
        case["rows"],
        case["sizes"],
        case["activation"],
        contest.key,
    )
