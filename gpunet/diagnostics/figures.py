"""Figures of a diagnosis: histograms layer by layer, and what becomes of them while a network trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.diagnostics.diagnosis import Diagnosis, LayerDiagnosis
from gpunet.errors import InvalidValueError
from gpunet.plotting import COLOURS, MARKERS, STYLES, label, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 6


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
    columns = min(len(layers), _COLUMNS)
    blocks = -(-len(layers) // columns)
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
    epochs = [record.epoch if record.epoch is not None else place for place, record in enumerate(records)]
    hidden = [layer.index for layer in records[0].hidden]
    everywhere = [layer.index for layer in records[0].layers]
    drawings: list[tuple[Any, list[int], Callable[[Diagnosis, int], float | None], str, bool]] = [
        (
            axes[0, 0],
            hidden,
            lambda record, index: record.layers[index - 1].outputs.std,
            "std of the activations",
            True,
        ),
        (
            axes[0, 1],
            everywhere,
            lambda record, index: record.layers[index - 1].score_gradients.root_mean_square,
            "root mean square of dJ/ds",
            True,
        ),
        (axes[1, 0], hidden, _idle, "dead units or\nsaturated activations", False),
        (
            axes[1, 1],
            everywhere,
            lambda record, index: record.parameters[f"W{index}"].update_ratio,
            "||change of W|| / ||W||\nof one update",
            True,
        ),
    ]
    for axis, indices, quantity, name, logarithmic in drawings:
        for place, index in enumerate(indices):
            values = [_plottable(quantity(record, index), logarithmic) for record in records]
            axis.plot(epochs, values, **_look(place, len(indices)), label=f"{index}")
        if logarithmic:
            axis.set_yscale("log")
            axis.tick_params(which="minor", labelsize=7)
        else:
            axis.set_ylim(-0.03, 1.03)
        axis.xaxis.get_major_locator().set_params(integer=True)
        label(axis, x="epoch", y=name)
    handles, names = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, names, title="layer", loc="outside right center", fontsize=8, title_fontsize=8)
    return figure


def _idle(record: Diagnosis, index: int) -> float:
    layer = record.layers[index - 1]
    return max(layer.dead_share, layer.saturated or 0.0)


def _plottable(value: float | None, logarithmic: bool) -> float:
    return float("nan") if value is None or (logarithmic and value <= 0) else value


def _look(place: int, lines: int) -> dict[str, Any]:
    """Return colour, line style and marker of one of many lines; those of the palette repeat after seven."""
    palette, styles = len(COLOURS), len(STYLES)
    return {
        "color": COLOURS[place % palette],
        "linestyle": STYLES[(place + place // palette) % styles],
        "marker": MARKERS[(place + place // palette) % len(MARKERS)],
        "markersize": 3.5,
        "linewidth": 1.2,
    }
