"""Figures of result files: throughput, ratio to each peer, share of the floor, and how the cost grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpunet.bench.contests import (
    NETWORK,
    Contest,
    contests,
    device,
    mode,
    precision,
    providers,
    shape,
    shared_and_own,
    sweep,
)
from gpunet.bench.results import Results
from gpunet.bench.rows import Row
from gpunet.bench.time_tables import exponent, grouped
from gpunet.plotting import COLOURS, MARKERS, STYLES, label, panels, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
_DOTS_PER_INCH = 150
_BAR = 0.8  # of the room that a configuration has
# Inches that a bar and the space around a panel need.
_BAR_INCHES, _FRAME_INCHES = 0.24, 1.0
_MOST_COLUMNS = 3


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
        for name, figure in _figures(results):
            for ending in FORMATS:
                path = folder / f"{results.machine['name']}-{results.version}-{name}.{ending}"
                written.append(save_figure(figure, path, dots_per_inch=_DOTS_PER_INCH))
    return written


def _figures(results: Results) -> Iterator[tuple[str, Figure]]:
    found = [contest for contest in contests(results) if contest.any_row.case["operation"] == NETWORK]
    looks = _Looks(found)
    configurations = [contest for contest in found if sweep(contest.any_row) is None and contest.measured]
    for group in grouped(configurations, lambda row: (row.on_device, precision(row), row.case["mode"])):
        place = f"{device(group[0].any_row)}-{precision(group[0].any_row)}-{group[0].any_row.case['mode']}".lower()
        subject = _subject(results, group)
        yield f"throughput-{place}", _throughput(subject, group, looks)
        if any(contest.ratio(row) for contest in group for row in contest.measured):
            yield f"ratio-{place}", _ratios(subject, group, looks)
        if any(row.floor_percent is not None for contest in group for row in contest.measured):
            yield f"floor-{place}", _floors(subject, group, looks)
    swept = [contest for contest in found if sweep(contest.any_row) is not None and contest.measured]
    for group in grouped(swept, lambda row: (row.on_device, precision(row), row.case["mode"])):
        place = f"{device(group[0].any_row)}-{precision(group[0].any_row)}-{group[0].any_row.case['mode']}".lower()
        yield f"growth-{place}", _growth(_subject(results, group), group, looks)


class _Looks:
    """Colour, marker and line of each provider: the same in all figures of a file."""

    def __init__(self, found: Sequence[Contest]) -> None:
        self._places = {row.provider: place for place, row in enumerate(providers(found))}

    def bar(self, row: Row) -> dict[str, Any]:
        place = self._places[row.provider]
        hatch = "" if place < len(COLOURS) else "///"
        return {"color": COLOURS[place % len(COLOURS)], "hatch": hatch, "edgecolor": "white", "linewidth": 0}

    def line(self, row: Row) -> dict[str, Any]:
        place = self._places[row.provider]
        # Beyond the last colour, the others begin anew in another order.
        shifted = (place + place // len(COLOURS)) % len(MARKERS)
        return {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[shifted],
            "linestyle": STYLES[shifted],
            "markersize": 4,
        }


def _throughput(subject: str, group: Sequence[Contest], looks: _Looks) -> Figure:
    """Draw a panel for each configuration, a bar for each provider: samples per second from 0."""
    across = providers(group)
    columns = min(_MOST_COLUMNS, len(group))
    rows = -(-len(group) // columns)
    height = (_BAR_INCHES * len(across) + _FRAME_INCHES) / 3.2
    figure, axes = panels(rows, columns, title=f"Throughput. {subject}", height=height)
    for panel, contest, name in zip(axes.flat, group, _names(group), strict=False):
        for place, provider in enumerate(across):
            row = contest.rows.get(provider.provider)
            if row is None or row.status != "ok" or row.samples_per_second is None:
                panel.text(0.01, place, _absence(row), va="center", fontsize=7, transform=panel.get_yaxis_transform())
                continue
            panel.barh(place, row.samples_per_second, _BAR, **looks.bar(row))
        panel.set_yticks(range(len(across)), [row.label for row in across])
        panel.set_ylim(len(across) - 0.5, -0.5)
        panel.set_xlim(left=0)
        panel.xaxis.set_major_formatter(_si_number())
        label(panel, x="samples/s", y="", title=name)
        panel.grid(False, axis="y")
    for panel in axes.flat[len(group) :]:
        panel.set_visible(False)
    return figure


def _ratios(subject: str, group: Sequence[Contest], looks: _Looks) -> Figure:
    """Draw each peer's time over gpunet's: the median of the rounds, with a bar from p10 to p90."""
    across = [
        provider
        for provider in providers(group)
        if any(contest.ratio(row) for contest in group for row in contest.measured if row.provider == provider.provider)
    ]
    figure, panel = _ruled_panel(f"Time over gpunet's. {subject}", group, across)
    for place, contest in enumerate(group):
        for offset, provider in _offsets(across):
            row = contest.rows.get(provider.provider)
            ratio = contest.ratio(row) if row is not None and row.status == "ok" else None
            if row is None or ratio is None:
                continue
            panel.errorbar(
                ratio.median,
                place + offset,
                xerr=[[ratio.median - ratio.p10], [ratio.p90 - ratio.median]],
                capsize=2,
                label=provider.label if not _named(panel, provider.label) else None,
                **{**looks.line(row), "linestyle": "none"},
            )
    panel.axvline(1, color="black", linewidth=0.8)
    _log_scale(panel.xaxis, panel.set_xscale, lambda value, _: f"{value:g}x")
    label(panel, x="time / gpunet's time in the same round (above 1: gpunet is faster)", y="")
    _finish(panel)
    return figure


def _floors(subject: str, group: Sequence[Contest], looks: _Looks) -> Figure:
    """Draw which share of each provider's time the machine's ceilings account for."""
    across = [row for row in providers(group) if row.on_device == group[0].on_device]
    figure, panel = _ruled_panel(f"Share of the floor. {subject}", group, across)
    for place, contest in enumerate(group):
        for offset, provider in _offsets(across):
            row = contest.rows.get(provider.provider)
            if row is None or row.status != "ok" or row.floor_percent is None:
                continue
            panel.barh(
                place + offset,
                row.floor_percent,
                _BAR / len(across),
                **looks.bar(row),
                label=provider.label if not _named(panel, provider.label) else None,
            )
    panel.axvline(100, color="black", linewidth=0.8)
    panel.set_xlim(left=0)
    label(panel, x="time at the machine's ceilings / time taken [%]", y="")
    _finish(panel)
    return figure


def _growth(subject: str, group: Sequence[Contest], looks: _Looks) -> Figure:
    """Draw time against what is varied, both logarithmic, a panel for each."""
    varied = list(dict.fromkeys(place[0] for contest in group if (place := sweep(contest.any_row))))
    figure, axes = panels(1, len(varied), title=f"How the cost grows. {subject}", height=1.4)
    for panel, name in zip(axes.flat, varied, strict=True):
        members = [contest for contest in group if (place := sweep(contest.any_row)) and place[0] == name]
        for provider in providers(members):
            points = [
                (place[1], row)
                for contest in members
                if (place := sweep(contest.any_row))
                and (row := contest.rows.get(provider.provider)) is not None
                and row.status == "ok"
            ]
            if points:
                power = exponent(members, provider.provider)
                panel.plot(
                    [value for value, _ in points],
                    [row.median for _, row in points],
                    label=provider.label if power is None else f"{provider.label} ^{power:.2f}",
                    **looks.line(points[0][1]),
                )
        values = sorted({place[1] for contest in members if (place := sweep(contest.any_row))})
        _log_scale(panel.xaxis, panel.set_xscale, lambda value, _: f"{value:g}", values)
        _log_scale(panel.yaxis, panel.set_yscale, lambda value, _: f"{value:g}")
        units = {"batch": "batch [rows]", "width": "width [units]", "depth": "depth [linear layers]"}
        label(panel, x=units.get(name, name), y="time of one unit of work [ms]")
        panel.legend(fontsize=7, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return figure


# --- what figures share ----------------------------------------------------------------------------------------------


def _subject(results: Results, group: Sequence[Contest]) -> str:
    first = group[0].any_row
    shared, _ = shared_and_own([contest.any_row for contest in group])
    machine = results.machine.get("gpu" if first.on_device else "cpu", results.machine["name"])
    return f"{mode(first)}, {', '.join(shared)}\n{machine}, gpunet {results.version}"


def _names(group: Sequence[Contest]) -> list[str]:
    _, own = shared_and_own([contest.any_row for contest in group])
    names = []
    for contest, extra in zip(group, own, strict=True):
        batch, layers = shape(contest.any_row).split(" x ", maxsplit=1)
        names.append("\n".join([", ".join([f"{contest.any_row.case['label']}: batch {batch}", *extra]), layers]))
    return names


def _ruled_panel(title: str, group: Sequence[Contest], across: Sequence[Row]) -> tuple[Figure, Any]:
    """Return a wide panel with a strip for each configuration, from the top down."""
    inches = _BAR_INCHES * 0.7 * len(across) * len(group) + _FRAME_INCHES
    figure, axes = panels(1, 1, title=title, width=2.0, height=max(inches, 2.6) / 3.2)
    panel = axes[0, 0]
    panel.set_yticks(range(len(group)), _names(group))
    panel.set_ylim(len(group) - 0.5, -0.5)
    for place in range(1, len(group)):
        panel.axhline(place - 0.5, color="0.85", linewidth=0.8)
    return figure, panel


def _offsets(across: Sequence[Row]) -> Iterator[tuple[float, Row]]:
    """Yield where in its strip each provider has its place."""
    for place, row in enumerate(across):
        yield _BAR * ((place + 0.5) / len(across) - 0.5), row


def _named(panel: Any, name: str) -> bool:
    return name in panel.get_legend_handles_labels()[1]


def _finish(panel: Any) -> None:
    panel.grid(False, axis="y")
    panel.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _log_scale(
    axis: Any, set_scale: Callable[[str], None], text: Callable[[float, int], str], ticks: Sequence[int] | None = None
) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    set_scale("log")
    if ticks is None:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(text))


def _si_number() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")


def _absence(row: Row | None) -> str:
    return "not measured" if row is None else row.status
