"""The lecture's network for looking at initial weights: 10 hidden layers of 500 units, N(0, 1) inputs (L19-L21)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gpunet.diagnostics import Diagnosis, Distribution, draw_histogram, inspect
from gpunet.lecture.experiment import Array, Numbers, Settings
from gpunet.lecture.plotting import COLOURS, Figure, draw_lines, integer_ticks, label, legend, or_nan, panels
from gpunet.network import Network
from gpunet.random import Purpose, host_generator

DEPTH, CLASSES = 10, 10
SEEDS = 3
BINS = 50
SHOWN = (1, 2, 4, 6, 8, 10)  # layers whose histograms are drawn


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
    """Draw histograms of activations and gradients in some layers, and std, gradient and a share over all layers.

    Parameters
    ----------
    numbers : mapping
        Of :func:`measure_initializers`.
    limits : (float, float)
        Of the activations' axis, the same for all layers, so that their spreads can be compared.
    histograms : sequence of str
        The initialisers with histograms; the others are in the panels below.
    cut_spike : bool
        Whether the highest bin, that of ReLU's zeros, runs out of its panel, so that the others can be seen.
    third, third_name : str
        ``"saturated"`` or ``"dead"``, and what the axis calls it.
    """
    shown = [layer for layer in SHOWN if layer <= numbers["depth"]]
    figure, axes = panels(2 * len(histograms) + 2, len(shown), width=0.56, height=0.52)
    for block, name in enumerate(histograms):
        found = numbers["initializers"][name]
        colour = COLOURS[list(numbers["initializers"]).index(name)]
        for column, layer in enumerate(shown):
            upper, lower = axes[2 * block, column], axes[2 * block + 1, column]
            _draw_activations(upper, found["activations"][layer - 1], limits, colour, cut_spike)
            std = found["std"][layer - 1]
            label(upper, "activation", f"{name}\ndensity" if column == 0 else "", f"layer {layer}, std {std:.2g}")
            gradients = found["gradients"][layer - 1]
            draw_histogram(lower, gradients["edges"], gradients["counts"], colour, logarithmic=True)
            label(lower, "dJ/ds", f"{name}\nshare" if column == 0 else "")
    grid = axes[0, 0].get_gridspec()
    for axis in axes[-2:].flat:
        axis.remove()
    third_of = len(shown) // 3
    names = {"std": "std of the activations", "gradient": "root mean square of n dJ/ds", third: third_name}
    for place, (quantity, axis_name) in enumerate(names.items()):
        axis = figure.add_subplot(grid[-2:, place * third_of : (place + 1) * third_of])
        lines = {name: found[quantity] for name, found in numbers["initializers"].items()}
        draw_over_layers(axis, lines, "linear" if quantity == third else "log")
        label(axis, "hidden layer", axis_name)
        if place == 0:
            legend(axis)
    return figure


def draw_over_layers(axis: Any, lines: Mapping[str, Sequence[float | None]], scale: str) -> None:
    """Draw a line over the layers for each initialiser; a logarithmic axis leaves zeros out."""
    if scale == "log":
        zero = {name: " (0: not on this axis)" if max(or_nan(values)) <= 0 else "" for name, values in lines.items()}
        lines = {f"{name}{zero[name]}": [value or None for value in values] for name, values in lines.items()}
    draw_lines(axis, lines)
    axis.set_yscale(scale)
    if scale == "linear":
        axis.set_ylim(-0.03, 1.03)
    axis.tick_params(which="minor", labelsize=7)
    integer_ticks(axis)


def _draw_activations(
    axis: Any, histogram: Mapping[str, Any], limits: tuple[float, float], colour: str, cut: bool
) -> None:
    edges = np.asarray(histogram["edges"])
    density = np.asarray(histogram["counts"]) / np.diff(edges) / sum(histogram["counts"])
    # The outline keeps a spike visible that is thinner than a pixel.
    axis.stairs(density, edges, fill=True, facecolor=colour, edgecolor=colour, linewidth=1)
    axis.set_xlim(*limits)
    axis.set_ylim(0, 1.3 * float(np.sort(density)[-2]) if cut and len(density) > 1 else None)
    axis.locator_params(axis="x", nbins=3)
    axis.set_yticks([])
