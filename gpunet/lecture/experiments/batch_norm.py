"""L22: what batch normalisation does to the scores that enter each activation, while the network learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import gpunet
from gpunet.lecture.digits import CLASSES, INPUTS, split_digits
from gpunet.lecture.experiment import Numbers, Settings
from gpunet.lecture.plotting import COLOURS, STYLES, label, panels
from gpunet.lecture.probing import hidden_scores
from gpunet.network import Network
from gpunet.training import Callback, EpochRecord, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

VARIANTS: dict[str, dict[str, Any]] = {
    "without": {"batch_norm": False},
    "normalised": {"batch_norm": True, "scale_shift": False},
    "scaled and shifted": {"batch_norm": True},
}
PERCENTILES = (15, 50, 85)  # those of Ioffe and Szegedy's figure 1
# Distribution of a layer's scores, drawn as a box from the second to the fourth and whiskers to the outer two.
BOX = (5, 25, 50, 75, 95)

# Thresholds of the claims.
UNIT = 0.01  # how far from mean 0 and standard deviation 1 a normalised unit may be
DRIFTS = 0.5  # of a unit's first standard deviation


def measure(settings: Settings) -> dict[str, Any]:
    """Train the same network in three variants, looking at the scores of all training rows after each epoch."""
    layers, width, rows, epochs = (3, 20, 200, 2) if settings.quick else (5, 100, 1000, 20)
    learning_rate = 0.1
    digits = split_digits(settings.seed, rows)
    variants = {}
    for name, arguments in VARIANTS.items():
        network = settings.network([INPUTS] + [width] * layers + [CLASSES], activation="relu", **arguments)
        watch = _Watch(network, digits.X)
        history = gpunet.fit(
            network,
            digits.X,
            digits.y,
            epochs=epochs,
            batch_size=64,
            optimizer=gpunet.SGD(learning_rate),
            callbacks=[watch],
        )
        parameters = network.get_parameters()
        variants[name] = watch.summary() | {
            "loss": history["loss"],
            "test_accuracy": gpunet.evaluate(network, digits.X_test, digits.y_test).accuracy,
            "gamma": [parameters[f"gamma{i}"].tolist() for i in range(1, layers + 1) if f"gamma{i}" in parameters],
            "beta": [parameters[f"beta{i}"].tolist() for i in range(1, layers + 1) if f"beta{i}" in parameters],
        }
    return {
        "layers": layers,
        "width": width,
        "rows": rows,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "variants": variants,
    }


def activation_inputs(network: Network, X: Array) -> list[Array]:
    """Return what enters the activation of each hidden layer when the rows of X are one training batch.

    Parameters
    ----------
    network : Network
        Its parameters and running averages stay as they are.
    X : ndarray, (n, d)

    Returns
    -------
    list of ndarray, (n, m_i)
        s = W x + b, shat, or gamma shat + beta, whichever the layer has; float64 on the host.
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


class _Watch(Callback):
    """Keeps percentiles, means and deviations of the activations' inputs, before the first epoch and after each."""

    def __init__(self, network: Network, X: Array) -> None:
        self._X = X
        self._percentiles: list[Array] = []  # of each unit of the last hidden layer
        self._means: list[Array] = []
        self._deviations: list[Array] = []
        self._boxes: list[list[list[float]]] = []
        self._look(network)

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        self._look(run.network)

    def _look(self, network: Network) -> None:
        scores = activation_inputs(network, self._X)
        self._percentiles.append(np.percentile(scores[-1], PERCENTILES, axis=0))
        self._means.append(np.array([z.mean(axis=0) for z in scores]))
        self._deviations.append(np.array([z.std(axis=0) for z in scores]))
        self._boxes.append([np.percentile(z, BOX).tolist() for z in scores])

    def summary(self) -> dict[str, Any]:
        means, deviations = np.array(self._means), np.array(self._deviations)  # (epochs + 1, layers, units)
        percentiles = np.array(self._percentiles)  # (epochs + 1, 3, units)
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
            "boxes": {"start": self._boxes[0], "end": self._boxes[-1]},
        }


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show.

    ``normalised_is_unit``: without scale and shift every unit has, after every epoch, a mean within 0.01 of 0 and a
    standard deviation within 0.01 of 1. ``drifts_without``: without batch norm the median unit's mean moves by at
    least half of its first standard deviation. ``drifts_less``: batch norm with scale and shift moves it less.
    ``scale_is_used``: with scale and shift the network moves some gamma by more than 0.01 from 1.
    ``learns_faster``: both variants with batch norm have the lower training loss in every one of the first epochs,
    the first quarter.
    """
    without, normalised, scaled = (numbers["variants"][name] for name in VARIANTS)
    low, high = normalised["deviations"]
    early = range(max(1, numbers["epochs"] // 4))
    return {
        "normalised_is_unit": normalised["largest_mean"] < UNIT and low > 1 - UNIT and high < 1 + UNIT,
        "drifts_without": max(without["drift"]) >= DRIFTS,
        "drifts_less": max(scaled["drift"]) < max(without["drift"]),
        "scale_is_used": any(abs(gamma - 1) > UNIT for layer in scaled["gamma"] for gamma in layer),
        "learns_faster": all(
            variant["loss"][epoch] < without["loss"][epoch] for epoch in early for variant in (normalised, scaled)
        ),
    }


def describe(numbers: Numbers) -> str:
    """Say what to look at and what this run showed."""
    shown, variants = claims(numbers), numbers["variants"]
    without, normalised, scaled = (variants[name] for name in VARIANTS)
    first, last = without["deviation_of_layers"][0], without["deviation_of_layers"][-1]
    drifts = "moved" if shown["drifts_without"] else "hardly moved:"
    unit = (
        "keeps every unit at mean 0 and standard deviation 1"
        if shown["normalised_is_unit"]
        else "does not keep every unit at mean 0 and standard deviation 1"
    )
    gammas = np.concatenate(scaled["gamma"])
    used = "used that freedom" if shown["scale_is_used"] else "hardly used that freedom"
    less = "less than" if shown["drifts_less"] else "not less than"
    early = max(1, numbers["epochs"] // 4)
    faster = "Both kinds of batch norm" if shown["learns_faster"] else "Not both kinds of batch norm"
    losses, last_losses = (
        ", ".join(f"{name} {variant['loss'][epoch - 1]:.3f}" for name, variant in variants.items())
        for epoch in (early, numbers["epochs"])
    )
    accuracies = ", ".join(f"{name} {variant['test_accuracy']:.1%}" for name, variant in variants.items())
    return (
        f"The upper panels follow what enters one ReLU of the last of {numbers['layers']} hidden layers while the "
        "network learns the digits: median and 15th and 85th percentile over the training rows, for a unit whose "
        "median moves as far as the typical unit's. Without batch norm the distribution that the next layers have to "
        f"follow {drifts} by up to {max(without['drift']):.1f} standard deviations (median of all units), and the "
        f"layers' typical standard deviations went from {first[0]:.2f} to {last[0]:.2f} in the first and from "
        f"{first[-1]:.2f} to {last[-1]:.2f} in the last. Batch norm without scale and shift {unit} (means up to "
        f"{normalised['largest_mean']:.0e}, standard deviations {normalised['deviations'][0]:.3f} to "
        f"{normalised['deviations'][1]:.3f}) whatever the weights do; its shape is all that changes. With scale and "
        f"shift the network may choose mean and width again, and {used}: gamma went from 1 to between "
        f"{gammas.min():.2f} and {gammas.max():.2f}, and the means moved by up to {max(scaled['drift']):.2f} standard "
        f"deviations, {less} without batch norm. The lower left panels have the distribution in each layer before and "
        f"after training, the lower right one the training loss. {faster} learn faster at first (losses after {early} "
        f"epochs: {losses}); after {numbers['epochs']} epochs the losses are {last_losses}, those with batch norm "
        f"under the noise of each batch's statistics, and the test accuracies {accuracies}."
    )


def draw(numbers: Numbers) -> Figure:
    """Draw percentiles of a unit over the epochs, the layers' distributions, and the losses."""
    figure, axes = panels(2, 4, width=0.95)
    for column, (name, variant) in enumerate(numbers["variants"].items()):
        upper, lower = axes[:, column]
        for place, (percentile, values) in enumerate(zip(PERCENTILES, variant["percentiles"], strict=True)):
            upper.plot(
                values,
                linestyle=STYLES[0] if percentile == 50 else STYLES[1],
                color=COLOURS[place],
                label=f"{percentile}th percentile",
            )
        label(upper, x="epoch", y="score entering ReLU", title=name)
        for moment, colour, offset in (("start", COLOURS[4], -0.2), ("end", COLOURS[1], 0.2)):
            _draw_boxes(lower, variant["boxes"][moment], colour, offset)
            lower.plot([], [], color=colour, linewidth=6, label=f"at the {moment}")
        lower.set_xticks(range(1, numbers["layers"] + 1))
        label(lower, x="hidden layer", y="scores entering ReLU", title=name)
    _share_limits(axes[0, :3])
    _share_limits(axes[1, :3])
    axes[0, 1].legend(fontsize=7, loc="lower left")
    axes[1, 0].legend(fontsize=7, loc="upper left")
    for place, (name, variant) in enumerate(numbers["variants"].items()):
        axes[0, 3].plot(variant["drift"], linestyle=STYLES[place], color=COLOURS[place], label=name)
        axes[1, 3].semilogy(
            range(1, numbers["epochs"] + 1),
            variant["loss"],
            linestyle=STYLES[place],
            color=COLOURS[place],
            label=name,
        )
    label(axes[0, 3], x="epoch", y="move of the mean,\nstandard deviations", title="median over all units")
    label(axes[1, 3], x="epoch", y="training loss", title="learning")
    for panel in axes[:, 3]:
        panel.legend(fontsize=7)
    for panel in (*axes[0], axes[1, 3]):
        panel.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _draw_boxes(panel: Any, layers: list[list[float]], colour: str, offset: float) -> None:
    for place, (lowest, low, middle, high, highest) in enumerate(layers, start=1):
        x = place + offset
        panel.plot([x, x], [lowest, highest], color=colour, linewidth=1)
        panel.plot([x, x], [low, high], color=colour, linewidth=6, solid_capstyle="butt")
        panel.plot(x, middle, "_", color="white", markersize=6)


def _share_limits(row: Any) -> None:
    lowest, highest = min(panel.get_ylim()[0] for panel in row), max(panel.get_ylim()[1] for panel in row)
    for panel in row:
        panel.set_ylim(lowest, highest)
