"""What tables and figures call a case, and numbers of three digits with their units."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .results import Case, Row, Spread

# Name of a mode: how it is written at the head of a table, and in the order of tables.
NETWORK_MODES = {
    "step": "Training step",
    "forward_backward": "Forward and backward pass",
    "forward": "Inference",
    "epoch": "Epoch from host data",
}
NOTHING = "-"
# Hidden layers of one width that are written out one by one.
_LISTED_LAYERS = 3
# A spread within so much of its median on both sides is left out of a cell.
_NARROW = 0.05


def precision(case: Case) -> str:
    """Return ``"float32"``, ``"float64"`` or ``"TF32"``."""
    return "TF32" if case.precision == "tf32" else case.dtype


def work(case: Case) -> str:
    """Return what tables call the work: ``"Training step"``, ``"batch norm activation, forward"``."""
    if case.is_network:
        return NETWORK_MODES.get(case.mode, case.mode)
    return f"{case.operation.replace('_', ' ')}, {case.mode}"


def shape(case: Case) -> str:
    """Return rows and layer sizes of a network, ``"256 x 784-256-256-10"``; ``"8192 x 2048"`` of an operation."""
    if case.operation.endswith("_step"):
        return f"{case.sizes[-1]} parameters"
    if not case.is_network:
        return " x ".join(map(str, (case.rows, *case.sizes)))
    hidden = case.sizes[1:-1]
    layers = "-".join(map(str, case.sizes))
    if len(hidden) > _LISTED_LAYERS and len(set(hidden)) == 1:
        layers = f"{case.sizes[0]}-{hidden[0]}-...-{hidden[0]}-{case.sizes[-1]} ({len(case.sizes) - 1} layers)"
    return f"{case.rows} x {layers}" + (f", {case.examples} examples" if case.mode == "epoch" else "")


def traits(case: Case) -> list[str]:
    """Return what a case has besides its shape: activation, batch norm, optimiser, precision."""
    found = [case.activation] if case.is_network or "activation" in case.operation else []
    if case.is_network:
        found.append("batch norm" if case.batch_norm else "no batch norm")
        if case.mode in ("step", "epoch"):
            found.append(case.optimizer)
    return [*found, precision(case)]


def shared_and_own(cases: Sequence[Case]) -> tuple[str, list[list[str]]]:
    """Return the traits that all cases have, and of each case those that not all have."""
    all_traits = [traits(case) for case in cases]
    shared = [trait for trait in all_traits[0] if all(trait in others for others in all_traits)]
    return ", ".join(shared), [[trait for trait in own if trait not in shared] for own in all_traits]


def case_name(case: Case) -> str:
    """Return a case in a few words, for places where different kinds of cases meet; without device and precision."""
    if case.is_network:
        own = [*([] if case.batch_norm else ["no batch norm"]), *(["beside a busy program"] if case.busy else [])]
        return ", ".join([case.label, work(case).lower(), *own])
    *own, _ = traits(case)
    return ", ".join([work(case).replace(", ", " "), shape(case), *own])


def place(row: Row) -> str:
    """Return device and precision: ``"CPU, float32"``."""
    return f"{'GPU' if row.on_device else 'CPU'}, {precision(row.case)}"


def significant(value: float | None, unit: str = "") -> str:
    """Return a number with three significant digits and no exponent: ``"0.0512"``, ``"15,300 ms"``."""
    if value is None or math.isnan(value):
        return NOTHING
    rounded = float(f"{value:.2e}")
    decimals = 2 - math.floor(math.log10(abs(rounded))) if rounded else 0
    return f"{rounded:,.{max(decimals, 0)}f}" + (f" {unit}" if unit else "")


def milliseconds(value: float | None) -> str:
    """Return a time with its unit."""
    return significant(value, "ms")


def megabytes(value: float | None) -> str:
    """Return bytes as MB of a million."""
    return significant(None if value is None else value / 1e6, "MB")


def times(value: float | None) -> str:
    """Return a ratio: ``"0.97x"``, ``"12.4x"``."""
    text = _ratio(value)
    return text if text == NOTHING else f"{text}x"


def times_with_spread(ratio: Spread) -> str:
    """Return a ratio, and its 10th and 90th percentile where they lie apart: ``"1.51x, 1.38-1.62"``."""
    shown = times(ratio.median)
    if ratio.median * (1 - _NARROW) <= ratio.p10 and ratio.p90 <= ratio.median * (1 + _NARROW):
        return shown
    return f"{shown}, {_ratio(ratio.p10)}-{_ratio(ratio.p90)}"


def roofline_share(row: Row | None) -> str:
    """Return the share of the roofline; one above 100 says that it is the cache's doing."""
    if row is None or row.roofline_percent is None:
        return NOTHING
    return f"{row.roofline_percent:.0f} %" + (" (cache)" if row.cached and row.roofline_percent > 100 else "")


def _ratio(value: float | None) -> str:
    return f"{value:.2f}" if value is not None and 0.0995 <= value < 9.995 else significant(value)
