"""Figures of result files: each peer's time over gpunet's, and how the cost grows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpunet.plotting import COLOURS, MARKERS, STYLES, label, panels, save_figure

from .frame import cases_of, frame, peers_of
from .results import Results
from .tables import exponent
from .words import shape, shared_and_own

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
_DOTS_PER_INCH = 150
# Of the room that a case has in a figure, what its peers take; inches of a peer, and of the space around.
_TAKEN, _PEER_INCHES, _FRAME_INCHES = 0.8, 0.17, 1.0
_UNITS = {"batch": "batch [rows]", "width": "width [units]", "depth": "depth [linear layers]"}
# Colour and the like of each peer, by its name: the same in all figures of a file.
Looks = dict[str, dict[str, Any]]


def write_plots(files: Sequence[Results], folder: Path) -> list[Path]:
    """Draw every figure that the rows allow into a folder, as PNG and SVG, and return the files.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    OSError
    """
    return [
        save_figure(
            figure,
            folder / f"{results.machine['name']}-{results.version}-{name}.{ending}",
            dots_per_inch=_DOTS_PER_INCH,
        )
        for results in files
        for name, figure in figures(results)
        for ending in FORMATS
    ]


def figures(results: Results) -> Iterator[tuple[str, Figure]]:
    """Yield every figure that the rows allow, with its name."""
    table = frame(results)
    table = table[table.kind.isin(("network", "sweep")) & table.measured]
    looks = {name: _look(place) for place, (name, _) in enumerate(peers_of(table))}
    table = table.assign(mode=[case.mode for case in table["case"]])
    for (device, precision, mode, kind), group in table.groupby(["device", "precision", "mode", "kind"], sort=False):
        place = f"{device}-{precision}-{mode}".lower()
        machine = results.machine.get("gpu" if device == "GPU" else "cpu", results.machine["name"])
        subject = f"{group.work.iloc[0]}, {shared_and_own(cases_of(group))[0]}\n{machine}, gpunet {results.version}"
        if kind == "sweep":
            yield f"growth-{place}", _growth(subject, group, looks)
        elif group.ratio.notna().any():
            yield f"ratio-{place}", _ratios(subject, group[group.ratio.notna()], looks)


def _look(place: int) -> dict[str, Any]:
    # Beyond the last colour, the others begin anew in another order.
    shifted = (place + place // len(COLOURS)) % len(MARKERS)
    colour = COLOURS[place % len(COLOURS)]
    return {"color": colour, "marker": MARKERS[shifted], "linestyle": STYLES[shifted], "markersize": 4}


def _ratios(subject: str, group: pd.DataFrame, looks: Looks) -> Figure:
    """Draw a strip for each case, and in it each peer's median ratio over the rounds, with a bar from p10 to p90."""
    cases, peers = cases_of(group), peers_of(group)
    height = max(_PEER_INCHES * len(peers) * len(cases) + _FRAME_INCHES, 2.6) / 3.2
    figure, axes = panels(1, 1, title=f"Time over gpunet's. {subject}", width=2.0, height=height)
    panel = axes[0, 0]
    strips = {case.key: strip for strip, case in enumerate(cases)}
    for place, (peer, text) in enumerate(peers):
        lines = group[group.peer == peer]
        offset = _TAKEN * ((place + 0.5) / len(peers) - 0.5)
        panel.errorbar(
            [ratio.median for ratio in lines.ratio],
            [strips[key] + offset for key in lines.key],
            xerr=list(zip(*((r.median - r.p10, r.p90 - r.median) for r in lines.ratio), strict=True)),
            capsize=2,
            label=text,
            **{**looks[peer], "linestyle": "none"},
        )
    names = [
        "\n".join([f"{case.label}: {shape(case)}", *own])
        for case, own in zip(cases, shared_and_own(cases)[1], strict=True)
    ]
    panel.set_yticks(range(len(cases)), names)
    panel.set_ylim(len(cases) - 0.5, -0.5)
    for strip in range(1, len(cases)):
        panel.axhline(strip - 0.5, color="0.85", linewidth=0.8)
    panel.axvline(1, color="black", linewidth=0.8)
    _log_scale(panel, "x", "{x:g}x")
    label(panel, x="time / gpunet's time in the same round (above 1: gpunet is faster)", y="")
    panel.grid(False, axis="y")
    panel.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _growth(subject: str, group: pd.DataFrame, looks: Looks) -> Figure:
    """Draw time against what is varied, both logarithmic, a panel for each."""
    varied, values = zip(*(case.sweep for case in group["case"]), strict=True)
    group = group.assign(varied=varied, value=values)
    figure, axes = panels(1, group.varied.nunique(), title=f"How the cost grows. {subject}", height=1.4)
    for panel, (name, members) in zip(axes.flat, group.groupby("varied", sort=False), strict=True):
        for peer, text in peers_of(members):
            lines, power = members[members.peer == peer], exponent(members, peer)
            text += "" if power is None else f" ^{power:.2f}"
            panel.plot(lines.value, lines["median"], label=text, **looks[peer])
        _log_scale(panel, "x", "{x:g}")
        panel.set_xticks(*[sorted(set(members.value))] * 2)
        panel.xaxis.minorticks_off()
        _log_scale(panel, "y", "{x:g}")
        label(panel, x=_UNITS.get(name, name), y="time of one unit of work [ms]")
        panel.legend(fontsize=7, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return figure


def _log_scale(panel: Any, axis: str, text: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    panel.set(**{f"{axis}scale": "log"})
    shown = getattr(panel, f"{axis}axis")
    shown.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    shown.set_major_formatter(text)
    shown.set_minor_formatter(NullFormatter())
