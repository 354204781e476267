"""L21: the six initialisers that the lecture cites, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunet.data_initializers import data_dependent, lsuv
from gpunet.lecture.deep_network import draw_over_layers, fades, keeps, last_over_first, measure_initializers, spread_of
from gpunet.lecture.digits import CLASSES, INPUTS, split_digits
from gpunet.lecture.experiment import Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import Figure, label, panels
from gpunet.lecture.wording import none_where_not_finite

GLOROT, SAXE, SUSSILLO = "Glorot 2010", "Saxe 2013", "Sussillo 2014"
HE, KRAEHENBUEHL, MISHKIN = "He 2015", "Krähenbühl 2015", "Mishkin 2015"
ACTIVATIONS = ("tanh", "relu")
# Those that need data start from the weights of He, whose scale they replace.
INITIALIZERS = {
    GLOROT: "xavier_normal",
    SAXE: "orthogonal",
    SUSSILLO: "random_walk",
    HE: "he_normal",
    KRAEHENBUEHL: "he_normal",
    MISHKIN: "he_normal",
}
FROM_DATA: dict[str, Callable[..., Any]] = {KRAEHENBUEHL: data_dependent, MISHKIN: lsuv}
RATE, MOMENTUM, BATCH_SIZE = 0.01, 0.9, 64
SAMPLE = 512  # rows that the initialisers that need data look at

HOMOGENEOUS = 5.0  # the largest layer over the smallest
FADED = 0.1  # layer 10 over layer 1; gradients: layer 1 over layer 10
CLEARLY = 2.0  # the worst training loss over the second worst


def measure(settings: Settings) -> dict[str, Any]:
    """Look into the lecture's untrained network with each of the six, and train a narrower one on digits."""
    numbers: dict[str, Any] = {}
    for activation in ACTIVATIONS:
        found = measure_initializers(settings, activation, _named(activation), FROM_DATA, rows=300, seeds=1)
        layers = found.pop("initializers")
        for one in layers.values():
            del one["activations"], one["gradients"]
        numbers |= {name: found[name] for name in ("depth", "width", "rows")}
        numbers[activation] = layers
    return numbers | {"training": _train_all(settings)}


def _named(activation: str) -> dict[str, str]:
    """Return the networks' arguments; behind ReLU, which halves the mean square, orthogonal weights need sqrt(2)."""
    return INITIALIZERS | ({SAXE: f"orthogonal({math.sqrt(2)})"} if activation == "relu" else {})


def _train_all(settings: Settings) -> dict[str, Any]:
    depth, width, epochs, seeds, rows = (4, 20, 1, 1, 256) if settings.quick else (10, 50, 5, 3, 1024)
    data = {seed: split_digits(seed, rows) for seed in range(settings.seed, settings.seed + seeds)}

    def losses(activation: str, name: str, seed: int) -> list[float]:
        arguments = {"activation": activation, "initializer": _named(activation)[name], "batch_norm": False}
        network = settings.network([INPUTS, *[width] * depth, CLASSES], seed=seed, **arguments)
        if name in FROM_DATA:
            FROM_DATA[name](network, data[seed].X[:SAMPLE])
        return data[seed].losses(network, RATE, MOMENTUM, epochs=epochs, batch_size=BATCH_SIZE)

    def median(activation: str, name: str) -> list[float | None]:
        return none_where_not_finite(np.median([losses(activation, name, seed) for seed in data], axis=0))

    medians = {activation: {name: median(activation, name) for name in INITIALIZERS} for activation in ACTIVATIONS}
    return {"depth": depth, "width": width, "epochs": epochs, "seeds": seeds, "rows": rows, "losses": medians}


def _final(numbers: Numbers, activation: str) -> dict[str, float]:
    """Return the training loss in the end by initialiser, the best first."""
    losses = numbers["training"]["losses"][activation]
    final = {name: math.inf if losses[name][-1] is None else float(losses[name][-1]) for name in INITIALIZERS}
    return dict(sorted(final.items(), key=lambda one: one[1]))


def about(numbers: Numbers) -> str:
    training = numbers["training"]
    ranges = []
    for activation in ACTIVATIONS:
        (best, low), *_, (worst, high) = _final(numbers, activation).items()
        ranges.append(f"with {activation} from {low:.2g} ({best}) to {high:.2g} ({worst})")
    return (
        f"Rows: tanh and ReLU. The left and middle panels look into untrained networks of {numbers['depth']} hidden "
        f"layers of {numbers['width']} units on {numbers['rows']} N(0, 1) inputs. LSUV (Mishkin) and Krähenbühl give "
        "each layer's scores variance 1 on the data, so their tanh activations do not shrink slowly as the others' do. "
        "Behind ReLU, Krähenbühl then shifts scale between layers until all weights change at one rate, so its "
        f"standard deviations differ by a factor of {spread_of(numbers['relu'][KRAEHENBUEHL]['std']):.1f} on purpose. "
        f"On the right, networks of {training['depth']} layers of {training['width']} units learn "
        f"{training['rows']:,} digits by gradient descent with momentum, at one learning rate ({RATE:g}) for all "
        f"(medians of {training['seeds']} seeds): after {training['epochs']} epochs the loss is {' and '.join(ranges)}."
    )


def claims(numbers: Numbers) -> Claims:
    relu, glorot = numbers["relu"], numbers["relu"][GLOROT]
    final, scaled = _final(numbers, "relu"), (SAXE, SUSSILLO, HE, MISHKIN)
    others = max(loss for name, loss in final.items() if name != GLOROT)
    tanh = [keeps(layers, HOMOGENEOUS) for layers in numbers["tanh"].values()]
    kept = [keeps(relu[name], HOMOGENEOUS) for name in scaled]
    dead = {name: max(relu[name]["dead"]) for name in (KRAEHENBUEHL, *scaled)}
    return {
        "tanh_all_keep": Claim(
            f"With tanh all six keep activations and gradients of all layers within a factor of {HOMOGENEOUS:g}",
            all(tanh),
            f"{sum(tanh)} of {len(tanh)}",
        ),
        "relu_others_keep": Claim(
            "With ReLU those of Saxe, Sussillo, He and Mishkin do", all(kept), f"{sum(kept)} of {len(kept)}"
        ),
        "relu_glorot_fades": Claim(
            f"Glorot's, made for units around 0, let both fade there, below {FADED:g} of what they were",
            fades(glorot, FADED),
            f"to {last_over_first(glorot['std']):.2g} and {last_over_first(glorot['gradient'][::-1]):.2g}",
        ),
        "centring_revives": Claim(
            "Krähenbühl's biases centre every ReLU on the data: no unit starts dead, as some do with those four",
            dead[KRAEHENBUEHL] == 0 < min(dead[name] for name in scaled),
            f"{dead[KRAEHENBUEHL]:.0%} in the worst layer, {dead[HE]:.0%} of He's",
        ),
        "faded_learns_least": Claim(
            f"The faded ReLU network learns least: its loss is {CLEARLY:g} times that of any other",
            final[GLOROT] >= CLEARLY * others,
            f"{final[GLOROT]:.2g}, the others {min(final.values()):.2g} to {others:.2g}",
        ),
    }


def draw(numbers: Numbers) -> Figure:
    figure, axes = panels(2, 3, width=1.0, height=0.95)
    for row, (activation, name) in enumerate(zip(ACTIVATIONS, ("tanh", "ReLU"), strict=True)):
        layers, losses = numbers[activation], numbers["training"]["losses"][activation]
        std, gradient = ({one: layers[one][key] for one in INITIALIZERS} for key in ("std", "gradient"))
        for panel, lines, x, y, title in (
            (axes[row, 0], std, "hidden layer", "std of the activations", "activations"),
            (axes[row, 1], gradient, "hidden layer", "root mean square of $n\\,dJ/ds$", "gradients"),
            (axes[row, 2], losses, "epoch", "training loss (cross-entropy)", "training on digits"),
        ):
            draw_over_layers(panel, lines, "log")
            label(panel, x, y, f"{name}: {title}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)
    return figure
