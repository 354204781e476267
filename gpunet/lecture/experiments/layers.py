"""L2: networks of 2, 3 and k layers of any width: what they compute, and what a linear layer cannot."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from gpunet.lecture.experiment import Numbers, Settings
from gpunet.lecture.plane import decision_map, draw_points, draw_regions, exclusive_or, rounded, spirals
from gpunet.lecture.plotting import COLOURS, MARKERS, STYLES, label, panels
from gpunet.lecture.wording import listing, tiny
from gpunet.network import Network
from gpunet.optimizers import Adam
from gpunet.random import Purpose, host_generator
from gpunet.schedules import CosineRate
from gpunet.training import evaluate, fit

DEPTHS = (1, 2, 3, 4)  # linear layers
WIDTH = 16
EXTENT = 1.1
WIDTHS = (4, 8, 16, 32)
NARROW = 1  # the place in WIDTHS of 8 units, where depth is compared
DRAWS = 3  # of the weights, for each width and depth
BATCH = 100
EXAMPLES = ([64, 10], [64, 100, 10], [64, 100, 100, 10], [64, 30, 200, 50, 10])
# What the paragraph says only where the numbers show it.
SOLVED, UNSOLVED = 0.97, 0.75
LUCK = 0.01  # by which the mean accuracy may fall from one width to the next
ROUNDING = 1e-12  # of float64


def measure(settings: Settings) -> dict[str, Any]:
    """Train networks of different depth on spirals and on exclusive or, and count what depth and width bring."""
    generator = host_generator(settings.seed, Purpose.SPLIT)
    points, labels = spirals(300, 2, 1.5, 0.12, generator)
    corners, signs = exclusive_or(120, 0.3, generator)
    epochs = 10 if settings.quick else 400
    return {
        "spirals": {
            "points": rounded(points),
            "labels": labels.tolist(),
            "networks": [
                _regions(settings, [2, *[WIDTH] * (k - 1), 2], points, labels, epochs, EXTENT) for k in DEPTHS
            ],
        },
        "exclusive_or": {
            "points": rounded(corners),
            "labels": signs.tolist(),
            "networks": [_regions(settings, sizes, corners, signs, epochs, 2.2) for sizes in ([2, 2], [2, 8, 2])],
        },
        "parameters": [_parameters(settings, sizes) for sizes in EXAMPLES],
        "by_width": _by_width(settings, points, labels, epochs),
        "difference_from_formula": _difference_from_formula(settings),
        "difference_without_activation": _difference_without_activation(settings),
    }


def _trained(settings: Settings, sizes: list[int], X: Any, y: Any, epochs: int, seed: int = 0) -> tuple[Network, float]:
    """Return a trained network and its accuracy."""
    network = settings.network(sizes, batch_norm=False, seed=settings.seed + seed)
    steps = epochs * -(-len(X) // BATCH)
    fit(network, X, y, epochs=epochs, batch_size=BATCH, optimizer=Adam(CosineRate(0.02, steps)))
    return network, evaluate(network, X, y).accuracy or 0.0


def _regions(settings: Settings, sizes: list[int], X: Any, y: Any, epochs: int, extent: float) -> dict[str, Any]:
    network, accuracy = _trained(settings, sizes, X, y, epochs)
    return {
        "layers": len(sizes) - 1,
        "parameters": network.parameter_count,
        "accuracy": accuracy,
        "decision": decision_map(network, extent, 70),
    }


def _parameters(settings: Settings, sizes: list[int]) -> dict[str, Any]:
    return {
        "sizes": sizes,
        "formula": sum(m * d + m for d, m in pairwise(sizes)),
        "counted": settings.network(sizes, batch_norm=False).parameter_count,
    }


def _by_width(settings: Settings, points: Any, labels: Any, epochs: int) -> list[dict[str, Any]]:
    """Return the accuracies of networks of several depths and widths, for a few draws of the weights each."""
    seeds = range(1 if settings.quick else DRAWS)
    return [
        {
            "layers": k,
            "widths": list(WIDTHS),
            "accuracies": [
                [_trained(settings, [2, *[m] * (k - 1), 2], points, labels, epochs, seed)[1] for seed in seeds]
                for m in WIDTHS
            ],
        }
        for k in DEPTHS[1:]
    ]


def _hidden(parameters: dict[str, Any], x: Any) -> list[Any]:
    """Return h_i = max(0, W_i h_{i-1} + b_i) of every hidden layer, as the lecture writes them."""
    values = []
    for i in range(1, len(parameters) // 2):
        x = np.maximum(0, x @ parameters[f"W{i}"].T + parameters[f"b{i}"])
        values.append(x)
    return values


def _difference_from_formula(settings: Settings) -> float:
    """Return how far the network's scores are from s = W_3 h_2 + b_3 for the lecture's 3-layer network."""
    network = settings.network([7, 5, 9, 4], batch_norm=False, dtype="float64", initial_bias=0.1)
    X = host_generator(settings.seed, Purpose.SPLIT, 1).standard_normal((11, 7))
    parameters = network.get_parameters()
    scores = _hidden(parameters, X)[-1] @ parameters["W3"].T + parameters["b3"]
    return float(np.abs(network.logits(X) - scores).max())


def _difference_without_activation(settings: Settings) -> float:
    """Return how far a 3-layer network without activations is from one linear layer, W_3 W_2 W_1 x + b."""
    network: Network = settings.network([7, 5, 9, 4], activation="identity", batch_norm=False, dtype="float64")
    X = host_generator(settings.seed, Purpose.SPLIT, 2).standard_normal((11, 7))
    parameters = network.get_parameters()
    W = parameters["W3"] @ parameters["W2"] @ parameters["W1"]
    return float(np.abs(network.logits(X) - X @ W.T).max())


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show."""
    spiral = [network["accuracy"] for network in numbers["spirals"]["networks"]]
    linear, two_layers = (network["accuracy"] for network in numbers["exclusive_or"]["networks"])
    means = [np.mean(entry["accuracies"], axis=1) for entry in numbers["by_width"]]
    return {
        "linear_fails": linear < UNSOLVED and spiral[0] < UNSOLVED,
        "two_layers_solve_exclusive_or": two_layers >= SOLVED,
        "depth_solves_spirals": spiral[-1] >= SOLVED and spiral[-1] > spiral[1],
        "two_layers_solve_spirals": spiral[1] >= SOLVED,
        "counts_agree": all(entry["formula"] == entry["counted"] for entry in numbers["parameters"]),
        "scores_are_the_formula": numbers["difference_from_formula"] < ROUNDING,
        "linear_without_activation": numbers["difference_without_activation"] < ROUNDING,
        "width_helps": all(mean[-1] > mean[0] and (np.diff(mean) >= -LUCK).all() for mean in means),
        "depth_helps_narrow": bool(max(mean[NARROW] for mean in means[1:]) > means[0][NARROW]),
    }


def describe(numbers: Numbers) -> str:
    """Return the paragraph."""
    shown = claims(numbers)
    spiral = [f"{network['accuracy']:.0%}" for network in numbers["spirals"]["networks"]]
    linear, two_layers = (network["accuracy"] for network in numbers["exclusive_or"]["networks"])
    narrow = [f"{np.mean(entry['accuracies'][NARROW]):.0%}" for entry in numbers["by_width"]]
    first = numbers["parameters"][1]
    sizes = "-".join(map(str, first["sizes"]))
    return (
        f"The upper row separates two spirals with 1, 2, 3 and 4 linear layers, {WIDTH} units wide, with ReLU between "
        f"them: {listing(spiral)} of the points lie in their own region. "
        + (
            "With depth the boundary follows the spirals. "
            if shown["depth_solves_spirals"]
            else "With these weights 2 layers follow the spirals already. "
            if shown["two_layers_solve_spirals"]
            else "Here depth does not make the boundary follow the spirals. "
        )
        + f"Below, a linear layer gets {linear:.0%} of the exclusive or right, and a 2-layer network with 8 hidden "
        f"units {two_layers:.0%}"
        + ("" if shown["two_layers_solve_exclusive_or"] else ", which is less than it should")
        + (
            ": no straight line can separate either of the two problems. "
            if shown["linear_fails"]
            else ", although no straight line should separate either of the two problems. "
        )
        + f"The third panel trains on the spirals with {WIDTHS[0]} to {WIDTHS[-1]} units per hidden layer: "
        + ("wider is better at every depth" if shown["width_helps"] else "here wider is not better at every depth")
        + f", and with {WIDTHS[NARROW]} units 2, 3 and 4 layers get {listing(narrow)} right"
        + (
            ", so that depth makes up for width. "
            if shown["depth_helps_narrow"]
            else ": here depth does not make up for width. "
        )
        + "A layer from d to m numbers has m d + m parameters"
        + (
            f", {first['counted']:,} in a {sizes} network"
            if shown["counts_agree"]
            else f", but here a {sizes} network has {first['counted']:,}"
        )
        + "; without activations k layers "
        + ("are" if shown["linear_without_activation"] else "should be")
        + f" one linear layer, W_k ... W_1 (largest difference {tiny(numbers['difference_without_activation'])}); and "
        + ("" if shown["scores_are_the_formula"] else "against expectation ")
        + "the scores of a 3-layer network differ from the lecture's formulas by "
        f"{tiny(numbers['difference_from_formula'])}."
    )


def draw(numbers: Numbers) -> Any:
    """Return the figure."""
    figure, axes = panels(2, 4, width=0.95, height=1.1)
    for place, network in zip(axes[0], numbers["spirals"]["networks"], strict=True):
        _draw_regions(place, numbers["spirals"], network, EXTENT)
    for place, network in zip(axes[1], numbers["exclusive_or"]["networks"], strict=False):
        _draw_regions(place, numbers["exclusive_or"], network, 2.2)
    _draw_widths(axes[1, 2], numbers["by_width"])
    _draw_parameters(axes[1, 3], numbers["parameters"])
    return figure


def _draw_regions(axes: Any, problem: Numbers, network: Numbers, extent: float) -> None:
    layers = "1 layer" if network["layers"] == 1 else f"{network['layers']} layers"
    label(
        axes, x="x_1", y="x_2", title=f"{layers}, {network['parameters']} parameters: {network['accuracy']:.0%} right"
    )
    draw_regions(axes, network["decision"], extent)
    draw_points(axes, problem["points"], problem["labels"])


def _draw_widths(axes: Any, by_width: list[Numbers]) -> None:
    for entry, colour, marker, style in zip(by_width, COLOURS, MARKERS, STYLES, strict=False):
        low, mean, high = (
            [100 * float(reduce(part)) for part in entry["accuracies"]] for reduce in (np.min, np.mean, np.max)
        )
        axes.fill_between(entry["widths"], low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            entry["widths"], mean, color=colour, marker=marker, linestyle=style, label=f"{entry['layers']} layers"
        )
    draws = len(by_width[0]["accuracies"][0])
    label(
        axes,
        x="units per hidden layer",
        y="points in their own region, %",
        title=f"spirals: mean and range of {draws} draws",
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(by_width[0]["widths"], [str(width) for width in by_width[0]["widths"]])
    axes.legend(fontsize=8, loc="lower right")


def _draw_parameters(axes: Any, parameters: list[Numbers]) -> None:
    names = ["-".join(map(str, entry["sizes"])) for entry in parameters]
    counts = [entry["counted"] for entry in parameters]
    bars = axes.barh(range(len(names)), counts, color=COLOURS[0])
    axes.bar_label(bars, [f" {count:,}" for count in counts], fontsize=8)
    axes.set_xlim(0, 1.3 * max(counts))
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    label(axes, x="parameters, sum of m d + m over the layers", y="", title="any depth and widths")
