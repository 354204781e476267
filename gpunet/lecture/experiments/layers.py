"""L2: networks of 2, 3 and k layers of any width: what they compute, and what a linear layer cannot."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from gpunet.errors import counted
from gpunet.lecture.experiment import Claim, Claims, Numbers, Settings
from gpunet.lecture.plane import decision_map, draw_plane, exclusive_or, name_classes, spirals
from gpunet.lecture.plotting import COLOURS, Figure, draw_range, label, legend, look, name_ticks, panels
from gpunet.lecture.wording import listing, rounded
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
SOLVED, UNSOLVED = 0.97, 0.75
LUCK = 0.01  # by which the mean accuracy may fall from one width to the next
ROUNDING = 1e-12  # of float64


def measure(settings: Settings) -> dict[str, Any]:
    """Train networks of different depth on spirals and on exclusive or, and count what depth and width bring."""
    generator = host_generator(settings.seed, Purpose.SPLIT)
    points, labels = spirals(300, 2, 1.5, 0.12, generator)
    corners, signs = exclusive_or(120, 0.3, generator)
    epochs, draws = (10, 1) if settings.quick else (400, DRAWS)
    return {
        "spirals": {
            "points": rounded(points),
            "labels": labels.tolist(),
            "networks": [_regions(settings, _sizes(k, WIDTH), points, labels, epochs, EXTENT) for k in DEPTHS],
        },
        "exclusive_or": {
            "points": rounded(corners),
            "labels": signs.tolist(),
            "networks": [_regions(settings, sizes, corners, signs, epochs, 2.2) for sizes in ([2, 2], [2, 8, 2])],
        },
        "parameters": [
            {
                "sizes": sizes,
                "formula": sum(m * d + m for d, m in pairwise(sizes)),
                "counted": settings.network(sizes, batch_norm=False).parameter_count,
            }
            for sizes in EXAMPLES
        ],
        # The accuracies of networks of several depths and widths, for a few draws of the weights each.
        "by_width": [
            {
                "layers": k,
                "widths": list(WIDTHS),
                "accuracies": [
                    [_trained(settings, _sizes(k, m), points, labels, epochs, seed)[1] for seed in range(draws)]
                    for m in WIDTHS
                ],
            }
            for k in DEPTHS[1:]
        ],
        "difference_from_formula": _difference_from_formula(settings),
        "difference_without_activation": _difference_without_activation(settings),
    }


def _trained(settings: Settings, sizes: list[int], X: Any, y: Any, epochs: int, seed: int = 0) -> tuple[Network, float]:
    """Return a trained network and its accuracy."""
    network = settings.network(sizes, batch_norm=False, seed=settings.seed + seed)
    optimizer = Adam(CosineRate(0.02, epochs * -(-len(X) // BATCH)))
    fit(network, X, y, epochs=epochs, batch_size=BATCH, optimizer=optimizer)
    return network, evaluate(network, X, y).accuracy or 0.0


def _regions(settings: Settings, sizes: list[int], X: Any, y: Any, epochs: int, extent: float) -> dict[str, Any]:
    network, accuracy = _trained(settings, sizes, X, y, epochs)
    return {
        "layers": len(sizes) - 1,
        "parameters": network.parameter_count,
        "accuracy": accuracy,
        "decision": decision_map(network, extent, 70),
    }


def _sizes(layers: int, width: int) -> list[int]:
    return [2, *[width] * (layers - 1), 2]


def _difference_from_formula(settings: Settings) -> float:
    """Return how far the network's scores are from s = W_3 h_2 + b_3 for the lecture's 3-layer network."""
    network = settings.network([7, 5, 9, 4], batch_norm=False, dtype="float64", initial_bias=0.1)
    X = host_generator(settings.seed, Purpose.SPLIT, 1).standard_normal((11, 7))
    parameters = network.get_parameters()
    h = X
    for i in (1, 2):
        h = np.maximum(0, h @ parameters[f"W{i}"].T + parameters[f"b{i}"])
    scores = h @ parameters["W3"].T + parameters["b3"]
    return float(np.abs(network.logits(X) - scores).max())


def _difference_without_activation(settings: Settings) -> float:
    """Return how far a 3-layer network without activations is from one linear layer, W_3 W_2 W_1 x + b."""
    network: Network = settings.network([7, 5, 9, 4], activation="identity", batch_norm=False, dtype="float64")
    X = host_generator(settings.seed, Purpose.SPLIT, 2).standard_normal((11, 7))
    parameters = network.get_parameters()
    W = parameters["W3"] @ parameters["W2"] @ parameters["W1"]
    return float(np.abs(network.logits(X) - X @ W.T).max())


def about(numbers: Numbers) -> str:
    spiral = [f"{network['accuracy']:.0%}" for network in numbers["spirals"]["networks"]]
    return (
        f"The upper row separates two spirals with 1, 2, 3 and 4 linear layers, {WIDTH} units wide, with ReLU between "
        f"them: {listing(spiral)} of the points lie in their own region. Below are the exclusive or, by a linear layer "
        f"and by 2 layers with 8 hidden units; the spirals again, by width; and how many parameters networks have."
    )


def claims(numbers: Numbers) -> Claims:
    spiral = [network["accuracy"] for network in numbers["spirals"]["networks"]]
    linear, two_layers = (network["accuracy"] for network in numbers["exclusive_or"]["networks"])
    means = [np.mean(entry["accuracies"], axis=1) for entry in numbers["by_width"]]
    ends = [listing(f"{mean[place]:.0%}" for mean in means) for place in (0, NARROW, -1)]
    example = numbers["parameters"][1]
    return {
        "linear_fails": Claim(
            f"No straight line separates either problem: one linear layer stays below {UNSOLVED:.0%}",
            linear < UNSOLVED and spiral[0] < UNSOLVED,
            f"{linear:.0%} of the exclusive or, {spiral[0]:.0%} of the spirals",
        ),
        "two_layers_solve_exclusive_or": Claim.at_least(
            "Two layers solve the exclusive or, with an accuracy of", two_layers, SOLVED
        ),
        "depth_solves_spirals": Claim(
            f"With depth the boundary follows the spirals: {DEPTHS[-1]} layers get {SOLVED:.0%}, and more than 2 do",
            spiral[-1] >= SOLVED and spiral[-1] > spiral[1],
            f"{spiral[-1]:.0%} and {spiral[1]:.0%}",
        ),
        "two_layers_miss_spirals": Claim.below(f"Two layers of {WIDTH} units do not: they get", spiral[1], SOLVED),
        "width_helps": Claim(
            "Wider is better at every depth",
            all(mean[-1] > mean[0] and bool((np.diff(mean) >= -LUCK).all()) for mean in means),
            f"with 2, 3 and 4 layers from {ends[0]} to {ends[2]}",
        ),
        "depth_helps_narrow": Claim(
            f"Depth makes up for width: with {WIDTHS[NARROW]} units more layers get more right",
            max(float(mean[NARROW]) for mean in means[1:]) > float(means[0][NARROW]),
            f"{ends[1]} with 2, 3 and 4 layers",
        ),
        "counts_agree": Claim(
            "The library's networks have the sum of m d + m parameters",
            all(entry["formula"] == entry["counted"] for entry in numbers["parameters"]),
            f"{example['counted']:,} in a {_joined(example)} network",
        ),
        "linear_without_activation": Claim.agree(
            "Without activations k layers are one linear layer, W_k ... W_1",
            numbers["difference_without_activation"],
            ROUNDING,
        ),
        "scores_are_the_formula": Claim.agree(
            "A 3-layer network's scores are those of the lecture's formulas",
            numbers["difference_from_formula"],
            ROUNDING,
        ),
    }


def _joined(entry: Numbers) -> str:
    return "-".join(map(str, entry["sizes"]))


def draw(numbers: Numbers) -> Figure:
    figure, axes = panels(2, 4, width=0.68, height=0.9)
    for row, name, extent in ((0, "spirals", EXTENT), (1, "exclusive_or", 2.2)):
        problem = numbers[name]
        for place, network in zip(axes[row], problem["networks"], strict=False):
            layers = counted(network["layers"], "layer")
            title = f"{layers}, {network['parameters']} parameters:\n{network['accuracy']:.0%} of the points right"
            draw_plane(place, network["decision"], problem["points"], problem["labels"], extent, title)
    _draw_widths(axes[1, 2], numbers["by_width"])
    _draw_parameters(axes[1, 3], numbers["parameters"])
    name_classes(figure, axes[0, 0])
    return figure


def _draw_widths(axes: Any, by_width: list[Numbers]) -> None:
    for place, entry in enumerate(by_width):
        accuracies = 100 * np.array(entry["accuracies"]).T
        draw_range(axes, entry["widths"], accuracies, (0, 1), label=f"{entry['layers']} layers", **look(place, 6))
    draws = len(by_width[0]["accuracies"][0])
    title = f"spirals, by width:\nmean and range of {draws} draws"
    label(axes, "units per hidden layer", "points in their own region, %", title)
    name_ticks(axes, by_width[0]["widths"], base=2)
    legend(axes, "lower right")


def _draw_parameters(axes: Any, parameters: list[Numbers]) -> None:
    counts = [entry["counted"] for entry in parameters]
    bars = axes.barh(range(len(counts)), counts, color=COLOURS[0])
    axes.bar_label(bars, [f" {count:,}" for count in counts], fontsize=8)
    axes.set_xlim(0, 1.5 * max(counts))
    axes.locator_params(axis="x", nbins=3)
    axes.set_yticks(range(len(counts)), map(_joined, parameters))
    axes.invert_yaxis()
    label(axes, "parameters, sum of $m d + m$", "", "any depth and widths")
