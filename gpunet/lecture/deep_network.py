"""The lecture's network for looking at initial weights: 10 hidden layers of 500 units, N(0, 1) inputs (L19-L21)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gpunet.diagnostics import Diagnosis, Distribution, inspect
from gpunet.lecture.experiment import Array, Numbers, Settings
from gpunet.lecture.plotting import COLOURS, MAP, Figure, draw_lines, integer_ticks, label, legend, panels
from gpunet.lecture.wording import listing
from gpunet.network import Network
from gpunet.random import Purpose, host_generator

DEPTH, CLASSES = 10, 10
SEEDS = 3
BINS = 50
SHOWN = (1, 4, 7, 10)  # layers whose gradients' histograms are drawn
_GRID = 6  # columns, which two and three panels divide


def measure_initializers(
    settings: Settings,
    activation: str,
    initializers: Mapping[str, str],
    initialize: Mapping[str, Callable[[Network, Array], object]] | None = None,
    *,
    rows: int = 1000,
    seeds: int = SEEDS,
) -> dict[str, Any]:
    """Look into the untrained network for each initialiser: activations forward, gradients backward.

    The outputs are 10 classes with labels drawn at random, for a gradient to start from.

    Parameters
    ----------
    settings : Settings
    activation : str
    initializers : mapping of str to str
        What the figure calls it, and the network's argument.
    initialize : mapping of str to callable, or None
        For some of them, a function of the network and its inputs that sets the weights.
    rows, seeds : int
        Inputs, and networks of the medians; fewer in quick runs.

    Returns
    -------
    dict
        Of the medians over the seeds, a list over the hidden layers for each initialiser: ``std`` of the activations,
        ``gradient`` (root mean square of n dJ/ds, what one example contributes), ``saturated``, ``dead``; histograms
        of the first seed.
    """
    width = 500
    if settings.quick:
        width, rows, seeds = 60, 100, 1
    found: dict[str, Any] = {}
    for name, initializer in initializers.items():
        diagnoses = []
        for seed in range(settings.seed, settings.seed + seeds):
            generator = host_generator(seed, Purpose.NOISE)
            X, y = generator.standard_normal((rows, width)), generator.integers(0, CLASSES, rows)
            arguments = {"activation": activation, "initializer": initializer, "batch_norm": False, "seed": seed}
            network = settings.network([width] * (DEPTH + 1) + [CLASSES], **arguments)
            if initialize is not None and name in initialize:
                initialize[name](network, X)
            diagnoses.append(inspect(network, X, y, bins=BINS))
        found[name] = _medians(diagnoses) | {
            "activations": [_histogram(layer.outputs) for layer in diagnoses[0].hidden],
            "gradients": [_histogram(layer.score_gradients) for layer in diagnoses[0].hidden],
        }
    sizes = {"activation": activation, "depth": DEPTH, "width": width, "rows": rows, "seeds": seeds}
    return sizes | {"initializers": found}


def _medians(diagnoses: Sequence[Diagnosis]) -> dict[str, list[float]]:
    rows = diagnoses[0].rows
    quantities: dict[str, Callable[[Any], float]] = {
        "std": lambda layer: layer.outputs.std,
        "gradient": lambda layer: rows * layer.score_gradients.root_mean_square,
        "saturated": lambda layer: layer.saturated or 0.0,
        "dead": lambda layer: layer.dead_share,
    }
    return {
        name: np.median([[quantity(layer) for layer in one.hidden] for one in diagnoses], axis=0).tolist()
        for name, quantity in quantities.items()
    }


def _histogram(distribution: Distribution) -> dict[str, Any]:
    return {"edges": list(distribution.edges), "counts": list(distribution.counts)}


def last_over_first(layers: Sequence[float]) -> float:
    """Return the last layer's number over the first's; 0 where both are 0."""
    return layers[-1] / layers[0] if layers[0] else 0.0


def spread_of(layers: Sequence[float]) -> float:
    """Return the largest number over the smallest; infinite where one is 0."""
    return max(layers) / min(layers) if min(layers) > 0 else float("inf")


def keeps(layers: Mapping[str, Sequence[float]], within: float) -> bool:
    """Return whether activations and gradients of all layers lie within a factor."""
    return spread_of(layers["std"]) < within and spread_of(layers["gradient"]) < within


def fades(layers: Mapping[str, Sequence[float]], below: float) -> bool:
    """Return whether the activations fall below a share of layer 1's, and the gradients of the last layer's."""
    return last_over_first(layers["std"]) < below and last_over_first(layers["gradient"][::-1]) < below


def draw_initializers(
    numbers: Numbers,
    *,
    limits: tuple[float, float],
    histograms: Sequence[str],
    third: str,
    third_name: str,
    cut_spike: bool = False,
) -> Figure:
    """Draw how activations and gradients are distributed, and std, gradient and a share over the layers.

    Parameters
    ----------
    numbers : mapping
        Of :func:`measure_initializers`.
    limits : (float, float)
        Of the activations' axis, the same for all, so that their spreads can be compared.
    histograms : sequence of str
        The initialisers with distributions, a panel of each row; the others are in the lowest row only, but for those
        that are 0 in every layer, which its legend names.
    third, third_name : str
        ``"saturated"`` or ``"dead"``, and what the axis calls it.
    cut_spike : bool
        Whether the highest bin, that of ReLU's zeros, is narrowed, so that the others can be seen; the title says so,
        and that the axis ends before the tail does.
    """
    figure, axes = panels(3, _GRID, width=0.43, height=0.9)
    grid = axes[0, 0].get_gridspec()
    for axis in axes.flat:
        axis.remove()

    def panels_of(row: int, count: int) -> list[Any]:
        size = _GRID // count
        return [figure.add_subplot(grid[row, place * size : (place + 1) * size]) for place in range(count)]

    drawn = {name: found for name, found in numbers["initializers"].items() if max(found["std"]) > 0}
    upper, middle = (panels_of(row, len(histograms)) for row in (0, 1))
    for name, forward, backward in zip(histograms, upper, middle, strict=True):
        found, colour = numbers["initializers"][name], COLOURS[list(drawn).index(name)]
        spikes = [max(one["counts"]) / sum(one["counts"]) for one in found["activations"]]
        note = (
            f"\n{min(spikes):.0%} to {max(spikes):.0%} are in the bin at 0, cut off, as is the tail"
            if cut_spike
            else ""
        )
        _draw_activations(forward, found["activations"], colour, cut_spike)
        forward.set_ylim(*limits)
        label(forward, "hidden layer", "activation", f"activations, {name}{note}", whole=True)
        _draw_gradients(backward, found["gradients"])
        label(backward, "$dJ/ds$ / its root mean square", "density", f"gradients, {name}", scale="y")
    legend(middle[-1], "upper right", title="layer")
    names = {"std": "std of the activations", "gradient": "root mean square of $n\\,dJ/ds$", third: third_name}
    lower = panels_of(2, len(names))
    for axis, (quantity, axis_name) in zip(lower, names.items(), strict=True):
        lines = {name: found[quantity] for name, found in drawn.items()}
        draw_over_layers(axis, lines, "linear" if quantity == third else "log")
        label(axis, "hidden layer", axis_name)
    zeros = [name for name in numbers["initializers"] if name not in drawn]
    legend(lower[-1], "center right", title=f"{listing(zeros)}: 0 throughout, not drawn" if zeros else None)
    return figure


def draw_over_layers(axis: Any, lines: Mapping[str, Sequence[float | None]], scale: str) -> None:
    """Draw a line over the layers for each initialiser; a logarithmic axis leaves zeros out."""
    if scale == "log":
        lines = {name: [value or None for value in values] for name, values in lines.items()}
    draw_lines(axis, lines)
    axis.set_yscale(scale)
    if scale == "linear":
        axis.set_ylim(-0.03, 1.03)
    axis.tick_params(which="minor", labelsize=7)
    integer_ticks(axis)


def _draw_activations(axis: Any, layers: Sequence[Mapping[str, Any]], colour: str, cut: bool) -> None:
    """Draw each layer's histogram upright, as wide as its density, both ways from the layer's number."""
    for layer, histogram in enumerate(layers, start=1):
        density, edges = _density(histogram)
        widest = 1.3 * float(np.sort(density)[-2]) if cut and len(density) > 1 else float(density.max())
        half = np.repeat(0.45 * np.minimum(density / widest, 1), 2)
        height = np.repeat(edges, 2)[1:-1]
        outline = np.concatenate([layer + half, layer - half[::-1]]), np.concatenate([height, height[::-1]])
        # The line keeps a histogram visible that is thinner than a pixel.
        axis.fill(*outline, facecolor=colour, edgecolor=colour, linewidth=0.6, rasterized=True)


def _draw_gradients(axis: Any, layers: Sequence[Mapping[str, Any]]) -> None:
    """Draw outlines of some layers' densities, each in units of the layer's own root mean square."""
    from matplotlib import colormaps

    shown = [layer for layer in SHOWN if layer <= len(layers)]
    for place, layer in enumerate(shown):
        density, edges = _density(layers[layer - 1])
        middles = (edges[1:] + edges[:-1]) / 2
        size = float(np.sqrt(np.sum(density * np.diff(edges) * middles**2))) or 1.0
        colour = colormaps[MAP](0.9 * place / len(shown))
        axis.stairs(np.where(density > 0, density * size, np.nan), edges / size, color=colour, label=f"{layer}")


def _density(histogram: Mapping[str, Any]) -> tuple[Array, Array]:
    edges = np.asarray(histogram["edges"])
    return np.asarray(histogram["counts"]) / np.diff(edges) / sum(histogram["counts"]), edges
