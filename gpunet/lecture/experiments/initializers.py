"""L21: the six initialisers that the lecture cites, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

import gpunet
from gpunet.data_initializers import data_dependent, lsuv
from gpunet.errors import TrainingDivergedError
from gpunet.lecture.deep_network import draw_over_layers, last_over_first, measure_initializers, spread_of
from gpunet.lecture.digits import CLASSES, INPUTS, Digits, split_digits
from gpunet.lecture.experiment import Numbers, Settings
from gpunet.lecture.plotting import label, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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

# Thresholds of the claims.
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
    depth, width, epochs, seeds, rows = 10, 50, 5, 3, 1024
    if settings.quick:
        depth, width, epochs, seeds, rows = 4, 20, 1, 1, 256
    data = {seed: split_digits(seed, rows) for seed in range(settings.seed, settings.seed + seeds)}
    losses = {
        activation: {
            name: np.median(
                [_losses(settings, data[seed], activation, name, [width] * depth, epochs, seed) for seed in data],
                axis=0,
            )
            for name in INITIALIZERS
        }
        for activation in ACTIVATIONS
    }
    return {
        "depth": depth,
        "width": width,
        "epochs": epochs,
        "seeds": seeds,
        "rows": rows,
        "losses": {
            activation: {name: [_or_none(loss) for loss in lines] for name, lines in of_one.items()}
            for activation, of_one in losses.items()
        },
    }


def _losses(
    settings: Settings, data: Digits, activation: str, name: str, hidden: list[int], epochs: int, seed: int
) -> list[float]:
    """Return the training loss of each epoch; infinity from where it diverges."""
    network = settings.network(
        [INPUTS, *hidden, CLASSES],
        activation=activation,
        initializer=_named(activation)[name],
        batch_norm=False,
        seed=seed,
    )
    if name in FROM_DATA:
        FROM_DATA[name](network, data.X[:SAMPLE])
    optimizer = gpunet.SGD(RATE, momentum=MOMENTUM)
    try:
        history = gpunet.fit(network, data.X, data.y, epochs=epochs, batch_size=BATCH_SIZE, optimizer=optimizer)
    except TrainingDivergedError as error:
        history = error.history
    return [*history["loss"], *[math.inf] * (epochs - len(history))]


def _or_none(loss: float) -> float | None:
    return float(loss) if math.isfinite(loss) else None


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show.

    ``tanh_all_keep``: with all six, standard deviations and gradients of all tanh layers lie within a factor of 5.
    ``relu_glorot_fades``: with Glorot's, both fall below a tenth through the ReLU layers. ``relu_others_keep``: with
    those of Saxe, Sussillo, He and Mishkin both stay within a factor of 5. ``centring_revives``: Krähenbühl's network
    has no dead units, and each of these four has some. ``faded_learns_least``: of the ReLU networks, Glorot's has the
    largest training loss in the end, by a factor of 2 or more.
    """
    relu = numbers["relu"]
    final = {name: _final(numbers, "relu", name) for name in INITIALIZERS}
    others = [final[name] for name in INITIALIZERS if name != GLOROT]
    scaled = [SAXE, SUSSILLO, HE, MISHKIN]
    return {
        "tanh_all_keep": all(_keeps(layers) for layers in numbers["tanh"].values()),
        "relu_glorot_fades": last_over_first(relu[GLOROT]["std"]) < FADED
        and last_over_first(relu[GLOROT]["gradient"][::-1]) < FADED,
        "relu_others_keep": all(_keeps(relu[name]) for name in scaled),
        "centring_revives": max(relu[KRAEHENBUEHL]["dead"]) == 0 < min(max(relu[name]["dead"]) for name in scaled),
        "faded_learns_least": final[GLOROT] >= CLEARLY * max(others),
    }


def _keeps(layers: dict[str, list[float]]) -> bool:
    return spread_of(layers["std"]) < HOMOGENEOUS and spread_of(layers["gradient"]) < HOMOGENEOUS


def _final(numbers: Numbers, activation: str, name: str) -> float:
    loss = numbers["training"]["losses"][activation][name][-1]
    return math.inf if loss is None else float(loss)


def describe(numbers: Numbers) -> str:
    """Say what to look at and what this run showed."""
    shown, relu, training = claims(numbers), numbers["relu"], numbers["training"]
    tanh = "all six keep" if shown["tanh_all_keep"] else "not all six keep"
    glorot = (
        f"Glorot's weights, made for units around 0, let the activations' standard deviation go to "
        f"{last_over_first(relu[GLOROT]['std']):.2g} and the gradients' size to "
        f"{last_over_first(relu[GLOROT]['gradient'][::-1]):.2g} of what it was"
    )
    if not shown["relu_glorot_fades"]:
        glorot = "Glorot's weights do not fade either"
    others = (
        "Saxe's, Sussillo's, He's and Mishkin's keep" if shown["relu_others_keep"] else "not all of the others keep"
    )
    shifted = spread_of(relu[KRAEHENBUEHL]["std"])
    dead = relu[KRAEHENBUEHL]["dead"][-1], relu[HE]["dead"][-1]
    revives = "since its biases centre every unit on the data, " if shown["centring_revives"] else ""
    ranking = {
        activation: sorted(INITIALIZERS, key=lambda name: _final(numbers, activation, name))
        for activation in ACTIVATIONS
    }
    best_and_worst = " and ".join(
        f"with {activation} from {_final(numbers, activation, order[0]):.2g} ({order[0]}) to "
        f"{_final(numbers, activation, order[-1]):.2g} ({order[-1]})"
        for activation, order in ranking.items()
    )
    least = "the faded network has learnt least by far" if shown["faded_learns_least"] else "none is far behind"
    return (
        f"Rows: tanh and ReLU. The left and middle panels look into untrained networks of {numbers['depth']} hidden "
        f"layers of {numbers['width']} units on {numbers['rows']} N(0, 1) inputs: with tanh {tanh} activations and "
        f"gradients of all layers within a factor of {HOMOGENEOUS:g}; with ReLU {others} them, and {glorot}. LSUV "
        "(Mishkin) and Krähenbühl give each layer's scores variance 1 on the data, so their tanh activations do not "
        "shrink slowly as those of Glorot, Saxe and Sussillo do. Behind ReLU, Krähenbühl then shifts scale between "
        "layers until all weights change at one rate, so its standard deviations differ by a factor of "
        f"{shifted:.1f} on purpose; {revives}{dead[0]:.0%} of its units in the last layer are dead before training, "
        f"and {dead[1]:.0%} of He's. On the right, networks of "
        f"{training['depth']} layers of {training['width']} units learn {training['rows']:,} digits by gradient "
        f"descent with momentum, at one learning rate ({RATE:g}) for all, which need not be the best for each (medians "
        f"of {training['seeds']} seeds): after {training['epochs']} epochs the loss is {best_and_worst}; of the ReLU "
        f"networks, {least}."
    )


def draw(numbers: Numbers) -> Figure:
    """Draw, for tanh and ReLU, std and gradient over the layers and the training loss over the epochs."""
    figure, axes = panels(2, 3, width=1.0, height=0.95)
    training = numbers["training"]
    for row, (activation, name) in enumerate(zip(ACTIVATIONS, ("tanh", "ReLU"), strict=True)):
        layers = numbers[activation]
        left, middle, right = axes[row]
        draw_over_layers(left, {one: layers[one]["std"] for one in INITIALIZERS}, "log")
        label(left, x="hidden layer", y="std of the activations", title=f"{name}: activations")
        draw_over_layers(middle, {one: layers[one]["gradient"] for one in INITIALIZERS}, "log")
        label(middle, x="hidden layer", y="root mean square of n dJ/ds", title=f"{name}: gradients")
        losses = training["losses"][activation]
        lines = {one: [math.nan if loss is None else loss for loss in losses[one]] for one in INITIALIZERS}
        draw_over_layers(right, lines, "log")
        label(right, x="epoch", y="training loss (cross-entropy)", title=f"{name}: training on digits")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", fontsize=8)
    return figure
