"""L22: what batch normalisation does to the scores that enter each activation, while the network learns."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.lecture.digits import CLASSES, INPUTS, split_digits
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import COLOURS, STYLES, Figure, draw_lines, integer_ticks, label, legend, panels
from gpunet.lecture.probing import EveryEpoch, hidden_scores
from gpunet.network import Network

VARIANTS: dict[str, dict[str, Any]] = {
    "without": {"batch_norm": False},
    "normalised": {"batch_norm": True, "scale_shift": False},
    "scaled and shifted": {"batch_norm": True},
}
PERCENTILES = (15, 50, 85)  # those of Ioffe and Szegedy's figure 1
# Distribution of a layer's scores, drawn as a box from the second to the fourth and whiskers to the outer two.
BOX = (5, 25, 50, 75, 95)

UNIT = 0.01  # how far from mean 0 and standard deviation 1 a normalised unit may be
DRIFTS = 0.5  # of a unit's first standard deviation


def measure(settings: Settings) -> dict[str, Any]:
    """Train the same network in three variants, looking at the scores of all training rows after each epoch."""
    layers, width, rows, epochs = (3, 20, 200, 2) if settings.quick else (5, 100, 1000, 20)
    digits, learning_rate = split_digits(settings.seed, rows), 0.1
    variants = {}
    for name, arguments in VARIANTS.items():
        network = settings.network([INPUTS] + [width] * layers + [CLASSES], activation="relu", **arguments)
        watch = EveryEpoch(lambda network: _look(network, digits.X), network)
        history = digits.fit(network, learning_rate, epochs=epochs, batch_size=64, callbacks=[watch])
        variants[name] = _summary(watch.seen)
        variants[name] |= {"loss": history["loss"], "test_accuracy": digits.test_accuracy(network)}
        parameters = network.get_parameters()
        for kind in ("gamma", "beta"):
            variants[name][kind] = [value.tolist() for key, value in parameters.items() if key.startswith(kind)]
    sizes = {"layers": layers, "width": width, "rows": rows, "epochs": epochs, "learning_rate": learning_rate}
    return sizes | {"variants": variants}


def activation_inputs(network: Network, X: Array) -> list[Array]:
    """Return what enters the activation of each hidden layer when the rows of X are one training batch.

    It is (n, m_i) of float64: s = W x + b, shat, or gamma shat + beta, whichever the layer has.
    """
    parameters = network.get_parameters()
    found = []
    for i, scores in enumerate(hidden_scores(network, X), start=1):
        z = scores + parameters.get(f"b{i}", 0)
        if network.batch_norm[i - 1]:
            z = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + network.batch_norm_epsilon)
            z = z * parameters.get(f"gamma{i}", 1) + parameters.get(f"beta{i}", 0)
        found.append(z)
    return found


def _look(network: Network, X: Array) -> tuple[Array, Array, Array, list[list[float]]]:
    """Return percentiles of each unit of the last hidden layer, means, deviations and boxes of all layers."""
    scores = activation_inputs(network, X)
    means, deviations = np.array([z.mean(axis=0) for z in scores]), np.array([z.std(axis=0) for z in scores])
    boxes = [np.percentile(z, BOX).tolist() for z in scores]
    return np.percentile(scores[-1], PERCENTILES, axis=0), means, deviations, boxes


def _summary(seen: list[Any]) -> dict[str, Any]:
    """Return what was seen before the first epoch and after each, of a typical unit and of all."""
    # (epochs + 1, 3, units), and twice (epochs + 1, layers, units)
    percentiles, means, deviations = (np.array([look[place] for look in seen]) for place in range(3))
    # The unit whose median moves as far as half of the units' do: typical, and not chosen by eye.
    moved = np.ptp(percentiles[:, 1], axis=0)
    unit = int(np.argsort(moved)[len(moved) // 2])
    drift = np.abs(means - means[0]) / np.maximum(deviations[0], np.finfo(np.float64).tiny)
    return {
        "unit": unit,
        "percentiles": percentiles[:, :, unit].T.tolist(),
        "drift": np.median(drift, axis=(1, 2)).tolist(),
        "largest_mean": float(np.abs(means).max()),
        "deviations": [float(deviations.min()), float(deviations.max())],
        "deviation_of_layers": np.median(deviations, axis=2).tolist(),
        "boxes": {"start": seen[0][3], "end": seen[-1][3]},
    }


def about(numbers: Numbers) -> str:
    variants = numbers["variants"]
    first, last = variants["without"]["deviation_of_layers"][0], variants["without"]["deviation_of_layers"][-1]
    losses = ", ".join(f"{name} {variant['loss'][-1]:.3f}" for name, variant in variants.items())
    accuracies = ", ".join(f"{name} {variant['test_accuracy']:.1%}" for name, variant in variants.items())
    return (
        f"The upper panels follow what enters one ReLU of the last of {numbers['layers']} hidden layers while the "
        "network learns the digits, for a unit whose median moves as far as the typical unit's. Below are the "
        "distributions in each layer, whose typical standard deviations go without batch norm from "
        f"{first[0]:.2f} to {last[0]:.2f} in the first layer and from {first[-1]:.2f} to {last[-1]:.2f} in the last. "
        f"After {numbers['epochs']} epochs the losses are {losses}, those with batch norm under its noise, and the "
        f"test accuracies {accuracies}."
    )


def claims(numbers: Numbers) -> Claims:
    without, normalised, scaled = (numbers["variants"][name] for name in VARIANTS)
    low, high = normalised["deviations"]
    gammas = np.concatenate(scaled["gamma"])
    early = max(1, numbers["epochs"] // 4)
    losses = ", ".join(f"{name} {variant['loss'][early - 1]:.3f}" for name, variant in numbers["variants"].items())
    return {
        "drifts_without": Claim.at_least(
            "Without batch norm the median unit's mean moves, in its standard deviations,",
            max(without["drift"]),
            DRIFTS,
            ".1f",
        ),
        "normalised_is_unit": Claim(
            f"Without scale and shift every unit keeps mean 0 and standard deviation 1, to {UNIT:g}",
            normalised["largest_mean"] < UNIT and low > 1 - UNIT and high < 1 + UNIT,
            f"means up to {normalised['largest_mean']:.0e}, standard deviations {low:.3f} to {high:.3f}",
        ),
        "scale_is_used": Claim(
            "With them the network uses its freedom and moves gamma from 1",
            bool((np.abs(gammas - 1) > UNIT).any()),
            f"to between {gammas.min():.2f} and {gammas.max():.2f}",
        ),
        "drifts_less": Claim(
            "The means then move less than without batch norm",
            max(scaled["drift"]) < max(without["drift"]),
            f"by up to {max(scaled['drift']):.2f} standard deviations",
        ),
        "learns_faster": Claim(
            f"Both kinds of batch norm have the lower loss in each of the first {early} epochs",
            all(one["loss"][epoch] < without["loss"][epoch] for epoch in range(early) for one in (normalised, scaled)),
            f"then {losses}",
        ),
    }


def draw(numbers: Numbers) -> Figure:
    figure, axes = panels(2, 4, width=0.95)
    variants = numbers["variants"]
    for column, (name, variant) in enumerate(variants.items()):
        upper, lower = axes[:, column]
        for panel, first in ((upper, axes[0, 0]), (lower, axes[1, 0])):
            if column > 0:
                panel.sharey(first)
        for place, (percentile, values) in enumerate(zip(PERCENTILES, variant["percentiles"], strict=True)):
            style = {"linestyle": STYLES[int(percentile != 50)], "color": COLOURS[place]}
            upper.plot(values, label=f"{percentile}th percentile", **style)
        label(upper, "epoch", "score entering ReLU", name)
        for moment, colour, offset in (("start", COLOURS[4], -0.2), ("end", COLOURS[1], 0.2)):
            _draw_boxes(lower, variant["boxes"][moment], colour, offset)
            lower.plot([], [], color=colour, linewidth=6, label=f"at the {moment}")
        lower.set_xticks(range(1, numbers["layers"] + 1))
        label(lower, "hidden layer", "scores entering ReLU", name)
    legend(axes[0, 1], "lower left", 7)
    legend(axes[1, 0], "upper left", 7)
    drifts, losses = ({name: variant[key] for name, variant in variants.items()} for key in ("drift", "loss"))
    draw_lines(axes[0, 3], drifts, range(numbers["epochs"] + 1), size=None)
    draw_lines(axes[1, 3], losses, size=None)
    label(axes[0, 3], "epoch", "move of the mean,\nstandard deviations", "median over all units")
    label(axes[1, 3], "epoch", "training loss", "learning", scale="y")
    for panel in axes[:, 3]:
        legend(panel, size=7)
    for panel in (*axes[0], axes[1, 3]):
        integer_ticks(panel)
    return figure


def _draw_boxes(panel: Any, layers: list[list[float]], colour: str, offset: float) -> None:
    for place, (lowest, low, middle, high, highest) in enumerate(layers, start=1):
        x = place + offset
        panel.plot([x, x], [lowest, highest], color=colour, linewidth=1)
        panel.plot([x, x], [low, high], color=colour, linewidth=6, solid_capstyle="butt")
        panel.plot(x, middle, "_", color="white", markersize=6)
