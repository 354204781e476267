"""Figures of a diagnosis: histograms layer by layer, and what becomes of them while a network trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.diagnostics.diagnosis import Diagnosis
from gpunet.diagnostics.records import LayerDiagnosis
from gpunet.errors import InvalidValueError
from gpunet.plotting import COLOURS, label, look, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 6
_LEGEND_ROWS = 24


def draw_layers(diagnosis: Diagnosis, *, title: str = "Activations and gradients, layer by layer") -> Figure:
    """Draw a histogram of the activations and one of dJ/ds for every layer.

    Parameters
    ----------
    diagnosis : Diagnosis
    title : str

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    layers = diagnosis.layers
    blocks = -(-len(layers) // _COLUMNS)
    columns = -(-len(layers) // blocks)
    figure, axes = panels(2 * blocks, columns, title=title, width=0.62, height=0.62)
    for axis in axes.flat:
        axis.set_visible(False)
    for place, layer in enumerate(layers):
        block, column = divmod(place, columns)
        upper, lower = axes[2 * block, column], axes[2 * block + 1, column]
        draw_histogram(upper, layer.outputs.edges, layer.outputs.counts, COLOURS[0])
        label(upper, x="activation", y="share" if column == 0 else "", title=_title(layer))
        draw_histogram(lower, layer.score_gradients.edges, layer.score_gradients.counts, COLOURS[1], logarithmic=True)
        label(lower, x="dJ/ds", y="share" if column == 0 else "")
    return figure


def draw_histogram(
    axes: Any, edges: Sequence[float], counts: Sequence[int], colour: str, *, logarithmic: bool = False
) -> None:
    """Draw a histogram as shares, with few and short labels, so that a small panel stays readable.

    Parameters
    ----------
    axes : matplotlib Axes
    edges, counts : sequence
        Those of a :class:`~gpunet.diagnostics.Distribution`.
    colour : str
    logarithmic : bool
        Whether the shares' axis is: a few gradients are far larger than all others.
    """
    total = max(sum(counts), 1)
    axes.set_visible(True)
    if logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(0.5 / total, 2)
        axes.stairs(
            np.maximum(np.asarray(counts) / total, 0.1 / total), edges, baseline=0.1 / total, fill=True, color=colour
        )
        axes.yaxis.get_major_locator().set_params(numticks=4)
        axes.minorticks_off()
    else:
        axes.stairs(np.asarray(counts) / total, edges, fill=True, color=colour)
        axes.locator_params(axis="y", nbins=3)
    axes.locator_params(axis="x", nbins=3)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3))
    axes.xaxis.get_offset_text().set_fontsize(7)


def _title(layer: LayerDiagnosis) -> str:
    notes = []
    if layer.dead:
        notes.append(f"{100 * layer.dead_share:.0f} % dead")
    if layer.saturated is not None and layer.saturated >= 0.005:
        notes.append(f"{100 * layer.saturated:.0f} % saturated")
    name = f"layer {layer.index}" + (" (outputs)" if layer.is_output else "")
    return "\n".join([name, ", ".join(notes)]) if notes else name


def draw_training(records: Sequence[Diagnosis], *, title: str = "What training does to the layers") -> Figure:
    """Draw spreads, gradients, dead and saturated units, and updates over the epochs, a line for each layer.

    Parameters
    ----------
    records : sequence of Diagnosis
        Those of a :class:`DiagnosticsCallback`; at least one.
    title : str

    Raises
    ------
    InvalidValueError
        No records.
    MissingDependencyError
        matplotlib is not installed.
    """
    if not records:
        raise InvalidValueError("records: got none. Expected at least one Diagnosis.")
    figure, axes = panels(2, 2, title=title, width=1.25, height=0.9)
    hidden, everywhere = ([layer.index for layer in layers] for layers in (records[0].hidden, records[0].layers))
    drawings: tuple[tuple[list[int], Callable[[Diagnosis, int], float | None], str, bool], ...] = (
        (hidden, lambda record, index: record.layers[index - 1].outputs.std, "std of the activations", True),
        (
            everywhere,
            lambda record, index: record.layers[index - 1].score_gradients.root_mean_square,
            "root mean square of dJ/ds",
            True,
        ),
        (hidden, _idle, "dead units or\nsaturated activations", False),
        (
            everywhere,
            lambda record, index: record.parameters[f"W{index}"].update_ratio,
            "||change of W|| / ||W||\nof one update",
            True,
        ),
    )
    epochs = [record.epoch if record.epoch is not None else place for place, record in enumerate(records)]
    for axis, (indices, quantity, name, logarithmic) in zip(axes.flat, drawings, strict=True):
        found = {index: [quantity(record, index) for record in records] for index in indices}
        _draw_lines(axis, epochs, found, logarithmic)
        label(axis, x="epoch", y=name)
    handles, names = axes[0, 1].get_legend_handles_labels()
    columns = -(-len(names) // _LEGEND_ROWS)
    figure.legend(
        handles, names, title="layer", loc="outside right center", fontsize=8, title_fontsize=8, ncols=columns
    )
    return figure


def _draw_lines(axes: Any, epochs: Sequence[int], found: dict[int, list[float | None]], logarithmic: bool) -> None:
    """Draw a line for each layer, and say so where there is nothing to draw."""
    drawn: list[float] = []
    for place, (index, values) in enumerate(found.items()):
        plottable = [_plottable(value, logarithmic) for value in values]
        axes.plot(epochs, plottable, **look(place, 3.5), linewidth=1.2, label=f"{index}")
        drawn += [value for value in plottable if np.isfinite(value)]
    if logarithmic:
        _span_a_decade(axes, drawn)
    else:
        axes.set_ylim(-0.03, 1.03)
    if not drawn:
        is_known = any(value is not None for values in found.values() for value in values)
        note = "no hidden layers" if not found else "nothing finite above 0" if is_known else "no update yet"
        axes.text(0.5, 0.5, note, ha="center", va="center", fontsize=9, color="0.4", transform=axes.transAxes)
    # One range of epochs for all panels.
    first, last = min(epochs), max(epochs)
    margin = 0.05 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def _span_a_decade(axes: Any, values: Sequence[float]) -> None:
    """Make an axis logarithmic and at least ten times as high as low, so that what hardly changes looks like it."""
    axes.set_yscale("log")
    axes.tick_params(which="minor", labelsize=7)
    if values and max(values) < 10 * min(values):
        middle = math.sqrt(min(values)) * math.sqrt(max(values))
        axes.set_ylim(middle / math.sqrt(10), middle * math.sqrt(10))


def _idle(record: Diagnosis, index: int) -> float:
    layer = record.layers[index - 1]
    return max(layer.dead_share, layer.saturated or 0.0)


def _plottable(value: float | None, logarithmic: bool) -> float:
    return float("nan") if value is None or (logarithmic and value <= 0) else value
