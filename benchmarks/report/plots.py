"""Figures of result files: throughput, ratio to each peer, share of the roofline, and how the cost grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
_BAR = 0.8  # of the room that a configuration has
# Inches that a bar and the space around a panel need.
_BAR_INCHES, _FRAME_INCHES = 0.24, 1.0
_MOST_COLUMNS = 3
_UNITS = {"batch": "batch [rows]", "width": "width [units]", "depth": "depth [linear layers]"}
# Colour and the like of each peer, by its name: the same in all figures of a file.
Looks = dict[str, dict[str, Any]]


def write_plots(files: Sequence[Results], folder: Path) -> list[Path]:
    """Draw every figure that the rows allow, as PNG and SVG, and return the files.

    Parameters
    ----------
    files : sequence of Results
    folder : Path
        Made where it is missing.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    OSError
    """
    written = []
    for results in files:
        for name, figure in figures(results):
            for ending in FORMATS:
                path = folder / f"{results.machine['name']}-{results.version}-{name}.{ending}"
                written.append(save_figure(figure, path, dots_per_inch=_DOTS_PER_INCH))
    return written


def figures(results: Results) -> Iterator[tuple[str, Figure]]:
    """Yield every figure that the rows allow, with its name."""
    table = frame(results)
    table = table[table.kind != "operation"]
    looks = {name: _look(place) for place, (name, _) in enumerate(peers_of(table))}
    table = table[table.key.isin(table.key[table.measured])]
    for (device, precision, mode, kind), group in table.assign(mode=[case.mode for case in table["case"]]).groupby(
        ["device", "precision", "mode", "kind"], sort=False
    ):
        place = f"{device}-{precision}-{mode}".lower()
        machine = results.machine.get("gpu" if device == "GPU" else "cpu", results.machine["name"])
        subject = f"{group.work.iloc[0]}, {shared_and_own(cases_of(group))[0]}\n{machine}, gpunet {results.version}"
        if kind == "sweep":
            yield f"growth-{place}", _growth(subject, group, looks)
            continue
        yield f"throughput-{place}", _throughput(subject, group, looks)
        if group.ratio.notna().any():
            yield f"ratio-{place}", _ratios(subject, group[group.ratio.notna()], looks)
        shares = group.assign(share=[row.roofline_percent for row in group.row])
        shares = shares[shares.share.notna()]
        shares = shares[[row.on_device == (device == "GPU") for row in shares.row]]
        if not shares.empty:
            yield f"roofline-{place}", _rooflines(subject, shares, looks)


def _look(place: int) -> dict[str, Any]:
    # Beyond the last colour, the others begin anew in another order.
    shifted = (place + place // len(COLOURS)) % len(MARKERS)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[shifted],
        "linestyle": STYLES[shifted],
        "hatch": "" if place < len(COLOURS) else "///",
    }


def _bar(look: dict[str, Any]) -> dict[str, Any]:
    return {"color": look["color"], "hatch": look["hatch"], "edgecolor": "white", "linewidth": 0}


def _line(look: dict[str, Any]) -> dict[str, Any]:
    return {name: look[name] for name in ("color", "marker", "linestyle")} | {"markersize": 4}


def _throughput(subject: str, group: pd.DataFrame, looks: Looks) -> Figure:
    """Draw a panel for each configuration, a bar for each peer: samples per second from 0."""
    peers, cases = peers_of(group), cases_of(group)
    columns = min(_MOST_COLUMNS, len(cases))
    height = (_BAR_INCHES * len(peers) + _FRAME_INCHES) / 3.2
    figure, axes = panels(-(-len(cases) // columns), columns, title=f"Throughput. {subject}", height=height)
    rows = {(row.key, row.peer): row for row in group.row}
    for panel, case, name in zip(axes.flat, cases, _names(cases), strict=False):
        for place, (peer, _) in enumerate(peers):
            row = rows.get((case.key, peer))
            if row is not None and row.samples_per_second is not None:
                panel.barh(place, row.samples_per_second, _BAR, **_bar(looks[peer]))
                continue
            absence = "not measured" if row is None else row.status
            panel.text(0.01, place, absence, va="center", fontsize=7, transform=panel.get_yaxis_transform())
        panel.set_yticks(range(len(peers)), [text for _, text in peers])
        panel.set_ylim(len(peers) - 0.5, -0.5)
        panel.set_xlim(left=0)
        panel.xaxis.set_major_formatter(_si_number())
        label(panel, x="samples/s", y="", title=name)
        panel.grid(False, axis="y")
    for panel in axes.flat[len(cases) :]:
        panel.set_visible(False)
    return figure


def _ratios(subject: str, group: pd.DataFrame, looks: Looks) -> Figure:
    """Draw each peer's time over gpunet's: the median of the rounds, with a bar from p10 to p90."""
    figure, panel, heights = _strips(f"Time over gpunet's. {subject}", group)
    for peer, text in peers_of(group):
        lines = group[group.peer == peer]
        ratios = list(lines.ratio)
        panel.errorbar(
            [ratio.median for ratio in ratios],
            [heights[key, peer] for key in lines.key],
            xerr=[[ratio.median - ratio.p10 for ratio in ratios], [ratio.p90 - ratio.median for ratio in ratios]],
            capsize=2,
            label=text,
            **{**_line(looks[peer]), "linestyle": "none"},
        )
    panel.axvline(1, color="black", linewidth=0.8)
    _log_scale(panel.xaxis, panel.set_xscale, lambda value, _: f"{value:g}x")
    label(panel, x="time / gpunet's time in the same round (above 1: gpunet is faster)", y="")
    _finish(panel)
    return figure


def _rooflines(subject: str, group: pd.DataFrame, looks: Looks) -> Figure:
    """Draw which share of each peer's time the machine's own rates account for."""
    figure, panel, heights = _strips(f"Share of the roofline. {subject}", group)
    peers = peers_of(group)
    for peer, text in peers:
        lines = group[group.peer == peer]
        places = [heights[key, peer] for key in lines.key]
        panel.barh(places, lines.share, _BAR / len(peers), label=text, **_bar(looks[peer]))
    panel.axvline(100, color="black", linewidth=0.8)
    panel.set_xlim(left=0)
    label(panel, x="least time at the machine's rates / time taken [%]", y="")
    _finish(panel)
    return figure


def _growth(subject: str, group: pd.DataFrame, looks: Looks) -> Figure:
    """Draw time against what is varied, both logarithmic, a panel for each."""
    varied, values = zip(*(case.sweep for case in group["case"]), strict=True)
    group = group.assign(varied=varied, value=values)
    figure, axes = panels(1, group.varied.nunique(), title=f"How the cost grows. {subject}", height=1.4)
    for panel, (name, members) in zip(axes.flat, group.groupby("varied", sort=False), strict=True):
        for peer, text in peers_of(members):
            lines, power = members[(members.peer == peer) & members.measured], exponent(members, peer)
            if not lines.empty:
                text += "" if power is None else f" ^{power:.2f}"
                panel.plot(lines.value, lines["median"], label=text, **_line(looks[peer]))
        _log_scale(panel.xaxis, panel.set_xscale, lambda value, _: f"{value:g}", sorted(set(members.value)))
        _log_scale(panel.yaxis, panel.set_yscale, lambda value, _: f"{value:g}")
        label(panel, x=_UNITS.get(name, name), y="time of one unit of work [ms]")
        panel.legend(fontsize=7, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return figure


def _names(cases: Sequence[Any]) -> list[str]:
    names = []
    for case, extra in zip(cases, shared_and_own(cases)[1], strict=True):
        batch, layers = shape(case).split(" x ", maxsplit=1)
        names.append("\n".join([", ".join([f"{case.label}: batch {batch}", *extra]), layers]))
    return names


def _strips(title: str, group: pd.DataFrame) -> tuple[Figure, Any, dict[tuple[str, str], float]]:
    """Return a wide panel with a strip for each case, from the top down, and the height of each peer in each strip."""
    cases, peers = cases_of(group), peers_of(group)
    inches = _BAR_INCHES * 0.7 * len(peers) * len(cases) + _FRAME_INCHES
    figure, axes = panels(1, 1, title=title, width=2.0, height=max(inches, 2.6) / 3.2)
    panel = axes[0, 0]
    panel.set_yticks(range(len(cases)), _names(cases))
    panel.set_ylim(len(cases) - 0.5, -0.5)
    for strip in range(1, len(cases)):
        panel.axhline(strip - 0.5, color="0.85", linewidth=0.8)
    offsets = {name: _BAR * ((place + 0.5) / len(peers) - 0.5) for place, (name, _) in enumerate(peers)}
    return (
        figure,
        panel,
        {(case.key, name): strip + offset for strip, case in enumerate(cases) for name, offset in offsets.items()},
    )


def _finish(panel: Any) -> None:
    panel.grid(False, axis="y")
    panel.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _log_scale(
    axis: Any, set_scale: Callable[[str], None], text: Callable[[float, int], str], ticks: Sequence[int] | None = None
) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if ticks is None else FixedLocator(ticks))
    if ticks is None:
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(text))


def _si_number() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")
