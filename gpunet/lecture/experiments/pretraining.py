"""L13: layers that were pre-trained without labels start a deep sigmoid network better than random numbers do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.classic import RestrictedBoltzmannMachine, encoder_network, pretrain_stack, unroll
from gpunet.data import load_for_training
from gpunet.lecture.experiment import Experiment, Numbers, Settings
from gpunet.lecture.plotting import COLOURS, MARKERS, STYLES, label, panels
from gpunet.network import Network
from gpunet.optimizers import SGD
from gpunet.random import Purpose, host_generator
from gpunet.training import Callback, Run, fit
from gpunet.training.history import EpochRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

PRETRAINED = "pre-trained"
XAVIER, SMALL, MEDIUM, LARGE = "Xavier", "N(0, 0.01²)", "N(0, 0.1²)", "N(0, 0.2²)"
RELU = "ReLU + batch norm"
# Starts of the classifier. LARGE is not historical: of the starts that were tried it suits this depth and width best.
INITIALIZERS = {XAVIER: "xavier_normal", SMALL: "normal(0.01)", MEDIUM: "normal(0.1)", LARGE: "normal(0.2)"}
# Of the auto-encoder.
RANDOM_CODES = (XAVIER, LARGE)

# Thresholds of the claims.
STUCK = 0.8  # test error of ten classes; guessing has 0.9
PIXEL_LEVELS = 100  # pictures are kept as integers from 0 to this
FILTERS, PICTURES = 25, 6


def measure(settings: Settings) -> dict[str, Any]:
    """Train classifiers and auto-encoders from pre-trained and from random weights, for several seeds."""
    if settings.quick:
        sizes = {"rows": 300, "hidden": [24, 24], "code": [24, 4], "pretraining": 2, "epochs": 2, "seeds": 2}
    else:
        sizes = {"rows": 2500, "hidden": [200] * 4, "code": [256, 64, 16], "pretraining": 10, "epochs": 25, "seeds": 5}
    data = load_for_training("digits" if settings.quick else "mnist5k")
    assert data.targets is not None and data.raw.largest is not None
    X, y = data.features / data.raw.largest, data.targets
    rates = {"pretraining": 0.1, "pretraining_of_code": 0.005, "classifier": 0.2, "autoencoder": 0.02}
    numbers: dict[str, Any] = {
        "data": data.name,
        "test_rows": data.rows - sizes["rows"],
        **sizes,
        "code_epochs": 2 if settings.quick else 15,
        "code_seeds": 2 if settings.quick else 3,
        "batch_size": 50,
        "learning_rates": rates,
        "errors": {},
        "reconstruction_errors": {},
        "pca_errors": [],
    }
    for number in range(numbers["seeds"]):
        seed = settings.seed + number
        order = host_generator(seed, Purpose.SPLIT).permutation(data.rows)
        train, test = order[: sizes["rows"]], order[sizes["rows"] :]
        split = X[train], y[train], X[test], y[test]
        machines = _classifiers(settings, numbers, seed, *split)
        pictures = _autoencoders(settings, numbers, seed, X[train], X[test]) if number < numbers["code_seeds"] else {}
        if number == 0:
            numbers["filters"] = _filters(machines[0])
            numbers["pictures"] = {name: _levels(images) for name, images in pictures.items()}
    return numbers


def _classifiers(
    settings: Settings, numbers: dict[str, Any], seed: int, X: Array, y: Array, X_test: Array, y_test: Array
) -> list[RestrictedBoltzmannMachine]:
    """Add the test error after each epoch of every start, and return the pre-trained machines."""
    machines = pretrain_stack(
        X,
        numbers["hidden"],
        epochs=numbers["pretraining"],
        learning_rate=numbers["learning_rates"]["pretraining"],
        batch_size=numbers["batch_size"],
        seed=seed,
        device=settings.device,
    )
    layers = [X.shape[1], *numbers["hidden"], 10]
    sigmoid: dict[str, Any] = {"activation": "sigmoid", "batch_norm": False, "seed": seed}
    networks = {PRETRAINED: encoder_network(machines, 10, seed=seed, device=settings.device)}
    for name, initializer in INITIALIZERS.items():
        networks[name] = settings.network(layers, initializer=initializer, **sigmoid)
    networks[RELU] = settings.network(layers, activation="relu", seed=seed)
    for name, network in networks.items():
        history = fit(
            network,
            X,
            y,
            epochs=numbers["epochs"],
            batch_size=numbers["batch_size"] * 2,
            optimizer=SGD(numbers["learning_rates"]["classifier"], momentum=0.9),
            validation=(X_test, y_test),
        )
        errors = [1 - float(record.validation_accuracy or 0) for record in history.records]
        numbers["errors"].setdefault(name, []).append(errors)
    return machines


class _TestError(Callback):
    """Keeps the mean squared error of the reconstruction after each epoch."""

    def __init__(self, network: Network, X_test: Array) -> None:
        self.X_test = X_test
        self.errors = [_squared_error(network.predict_proba(X_test), X_test)]

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        self.errors.append(_squared_error(run.network.predict_proba(self.X_test), self.X_test))


def _autoencoders(settings: Settings, numbers: dict[str, Any], seed: int, X: Array, X_test: Array) -> dict[str, Array]:
    """Add the test error of every start before and after each epoch, and PCA's; return reconstructions."""
    sizes, rates = numbers["code"], numbers["learning_rates"]
    machines = pretrain_stack(
        X,
        sizes,
        linear_code=True,
        epochs=numbers["pretraining"],
        learning_rate=rates["pretraining"],
        code_learning_rate=rates["pretraining_of_code"],
        batch_size=numbers["batch_size"],
        seed=seed,
        device=settings.device,
    )
    networks = {PRETRAINED: unroll(machines, seed=seed, device=settings.device)}
    for name in RANDOM_CODES:
        networks[name] = settings.network(
            list(networks[PRETRAINED].layer_sizes),
            activation=networks[PRETRAINED].activations,
            batch_norm=False,
            initializer=INITIALIZERS[name],
            loss="sigmoid_cross_entropy",
            seed=seed,
        )
    pictures = {"test image": X_test[:PICTURES]}
    for name, network in networks.items():
        looking_on = _TestError(network, X_test)
        fit(
            network,
            X,
            X,
            epochs=numbers["code_epochs"],
            batch_size=numbers["batch_size"],
            optimizer=SGD(rates["autoencoder"], momentum=0.9),
            callbacks=[looking_on],
        )
        numbers["reconstruction_errors"].setdefault(name, []).append(looking_on.errors)
        pictures[name] = network.predict_proba(X_test[:PICTURES])
    by_pca = pca_reconstruction(X, X_test, sizes[-1])
    numbers["pca_errors"].append(_squared_error(by_pca, X_test))
    pictures["PCA"] = by_pca[:PICTURES]
    return pictures


def pca_reconstruction(X: Array, X_test: Array, components: int) -> Array:
    """Return the rows of X_test projected on the first principal components of X, the best linear code of that size.

    Parameters
    ----------
    X, X_test : ndarray, (n, d) and (n', d)
    components : int
    """
    mean = X.mean(axis=0)
    directions = np.linalg.svd(X - mean, full_matrices=False)[2][:components]
    return mean + (X_test - mean) @ directions.T @ directions


def _squared_error(reconstruction: Array, X: Array) -> float:
    return float(np.square(reconstruction.astype(np.float64) - X).mean())


def _filters(machine: RestrictedBoltzmannMachine) -> list[list[float]]:
    """Return the weights of the first hidden units, each divided by its largest."""
    weights = machine.components_[:FILTERS].astype(np.float64)
    return np.round(weights / np.abs(weights).max(axis=1, keepdims=True), 2).tolist()


def _levels(images: Array) -> list[list[int]]:
    return np.rint(PIXEL_LEVELS * np.clip(images, 0, 1)).astype(int).tolist()


# --- what the numbers show ----------------------------------------------------------------------------------------------


def final_errors(numbers: Numbers, kind: str = "errors") -> dict[str, Array]:
    """Return the error after the last epoch of each start, one per seed."""
    return {name: np.array([epochs[-1] for epochs in seeds]) for name, seeds in numbers[kind].items()}


def paired_gain(numbers: Numbers) -> Array:
    """Return, for each seed, how far the best of that seed's random sigmoid starts is above the pre-trained one."""
    final = final_errors(numbers)
    return np.min([final[name] for name in INITIALIZERS], axis=0) - final[PRETRAINED]


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show.

    ``pretraining_wins``: for every seed, the pre-trained sigmoid network has a lower final test error than each random
    one of that seed. ``xavier_is_stuck``: with Xavier's weights more than 80 % are wrong on average.
    ``relu_wins``: ReLU with batch norm has the lowest mean of all. ``code_beats_random`` and ``code_beats_pca``: for
    every seed, the pre-trained auto-encoder reconstructs test images better than the random ones, and than PCA.
    """
    final, codes = final_errors(numbers), final_errors(numbers, "reconstruction_errors")
    return {
        "pretraining_wins": bool((paired_gain(numbers) > 0).all()),
        "xavier_is_stuck": bool(final[XAVIER].mean() > STUCK),
        "relu_wins": bool(final[RELU].mean() < min(final[name].mean() for name in final if name != RELU)),
        "code_beats_random": bool(all((codes[PRETRAINED] < codes[name]).all() for name in RANDOM_CODES)),
        "code_beats_pca": bool((codes[PRETRAINED] < np.array(numbers["pca_errors"])).all()),
    }


def describe(numbers: Numbers) -> str:
    """Say what to look at and what this run showed."""
    shown = claims(numbers)
    final, codes = final_errors(numbers), final_errors(numbers, "reconstruction_errors")
    gain = paired_gain(numbers)
    best = min(INITIALIZERS, key=lambda name: float(final[name].mean()))
    won = "for every seed" if shown["pretraining_wins"] else f"for {int((gain > 0).sum())} of {len(gain)} seeds"
    xavier = "is still close to guessing" if shown["xavier_is_stuck"] else "does learn"
    relu = (
        "needs no pre-training to do better than all of them"
        if shown["relu_wins"]
        else "does not do better than all of them"
    )
    against_random = "lower than" if shown["code_beats_random"] else "not for every seed lower than"
    against_pca = "below" if shown["code_beats_pca"] else "not for every seed below"
    others = " and ".join(f"{codes[name].mean():.4f} from {name}" for name in RANDOM_CODES)
    return (
        f"Top row: {len(numbers['hidden'])} sigmoid layers of {numbers['hidden'][0]} units without batch norm, trained "
        f"on {numbers['rows']:,} images of {numbers['data']} for {numbers['epochs']} epochs by the same SGD, from "
        f"weights that {numbers['pretraining']} epochs of contrastive divergence per layer found without the labels "
        f"(some of the first layer's on the left), or from random ones. Test error on the other "
        f"{numbers['test_rows']:,} images, mean and standard deviation of {numbers['seeds']} seeds: "
        f"{_percent(final[PRETRAINED])} pre-trained; {', '.join(_percent(final[name]) + f' {name}' for name in INITIALIZERS)}"
        f". Pre-training beats the best of these random starts {won}, by {100 * gain.mean():.1f} points (standard "
        f"deviation {_spread(gain):.1f}; the best on average is {best}), at the price of its own epochs, which the random starts do "
        f"not get. Xavier's start, made for activations with a slope of 1 at 0, {xavier} after these epochs. That is "
        f"history: {RELU} at the same learning rate, {_percent(final[RELU])}, {relu}. Bottom row: the same for an "
        f"auto-encoder {'-'.join(map(str, numbers['code']))} with a linear code. Unrolled and fine-tuned for "
        f"{numbers['code_epochs']} epochs, the pre-trained one reconstructs test images with a mean squared error of "
        f"{codes[PRETRAINED].mean():.4f} per pixel ({numbers['code_seeds']} seeds), {against_random} "
        f"{others}, and {against_pca} the {np.mean(numbers['pca_errors']):.4f} of {numbers['code'][-1]} principal "
        "components."
    )


def _percent(errors: Array) -> str:
    return f"{100 * errors.mean():.1f} ± {_spread(errors):.1f} %"


def _spread(errors: Array) -> float:
    """Return the standard deviation over seeds in percentage points."""
    return float(100 * errors.std(ddof=1)) if len(errors) > 1 else 0.0


# --- the figure ---------------------------------------------------------------------------------------------------------


def draw(numbers: Numbers) -> Figure:
    """Draw filters, errors by epoch and by seed; below, reconstructions and their errors."""
    figure, axes = panels(2, 3, title="Pre-training with restricted Boltzmann machines", width=1.15, height=1.1)
    names = [PRETRAINED, *INITIALIZERS, RELU]
    _draw_filters(axes[0, 0], numbers)
    _draw_curves(axes[0, 1], numbers["errors"], names, 1)
    axes[0, 1].set_yscale("log")
    label(
        axes[0, 1], x="epoch of back-propagation", y="test error (share wrong, log)", title="Classifiers: mean, range"
    )
    _draw_seeds(axes[0, 2], final_errors(numbers), names)
    axes[0, 2].set_yscale("log")
    label(axes[0, 2], x="", y="final test error (log)", title="One line per seed")
    _draw_pictures(axes[1, 0], numbers)
    codes = [PRETRAINED, *RANDOM_CODES]
    _draw_curves(axes[1, 1], numbers["reconstruction_errors"], codes, 0)
    pca = float(np.mean(numbers["pca_errors"]))
    axes[1, 1].axhline(pca, color="0.3", linewidth=1, linestyle=(0, (1, 2)), label="PCA")
    axes[1, 1].set_yscale("log")
    axes[1, 1].legend(fontsize=8)
    label(axes[1, 1], x="epoch of back-propagation", y="mean squared error (log)", title="Auto-encoders: mean, range")
    final = final_errors(numbers, "reconstruction_errors") | {"PCA": np.array(numbers["pca_errors"])}
    _draw_seeds(axes[1, 2], final, [*codes, "PCA"])
    axes[1, 2].set_ylim(bottom=0)
    label(axes[1, 2], x="", y="final mean squared error", title="One line per seed")
    return figure


def _style(name: str) -> dict[str, Any]:
    """Return a start's colour and line style, the same in every panel."""
    place = [PRETRAINED, *INITIALIZERS, RELU].index(name)
    return {"color": COLOURS[place], "linestyle": STYLES[place]}


def _draw_curves(axes: Any, errors: dict[str, Any], names: list[str], first: int) -> None:
    for name in names:
        curves = np.array(errors[name])
        epochs = np.arange(first, first + curves.shape[1])
        axes.plot(epochs, curves.mean(axis=0), linewidth=1.6, label=name, **_style(name))
        axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=_style(name)["color"], alpha=0.15)


def _draw_seeds(axes: Any, final: dict[str, Array], names: list[str]) -> None:
    """Draw each seed's errors as a line from start to start: pairs can be compared."""
    table = np.array([final[name] for name in names])
    for number, column in enumerate(table.T):
        axes.plot(column, color="0.7", linewidth=0.8, marker=MARKERS[number % len(MARKERS)], markersize=4, zorder=1)
    for place, (name, row) in enumerate(zip(names, table, strict=True)):
        colour = "0.3" if name == "PCA" else _style(name)["color"]
        axes.plot([place - 0.3, place + 0.3], [row.mean()] * 2, color=colour, linewidth=3, zorder=2)
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right")


def _draw_filters(axes: Any, numbers: Numbers) -> None:
    filters = np.array(numbers["filters"])
    rows = math.ceil(math.sqrt(len(filters)))
    grid = [filters[start : start + rows] for start in range(0, len(filters), rows)]
    axes.imshow(_mosaic(grid, 0.0), cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_title("First machine: weights of 25 hidden units" if len(filters) == FILTERS else "Weights", fontsize=10)
    axes.set_axis_off()


def _draw_pictures(axes: Any, numbers: Numbers) -> None:
    names = list(numbers["pictures"])
    grid = [np.array(numbers["pictures"][name]) / PIXEL_LEVELS for name in names]
    mosaic = _mosaic(grid, 0.5)
    axes.imshow(mosaic, cmap="gray_r", vmin=0, vmax=1)
    height = mosaic.shape[0] / len(names)
    axes.set_yticks([height * (place + 0.5) for place in range(len(names))], names, fontsize=8)
    axes.set_xticks([])
    axes.set_title(f"Test images through {numbers['code'][-1]} numbers", fontsize=10)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)


def _mosaic(grid: list[Array], border: float) -> Array:
    """Return rows of square pictures as one picture, a pixel of ``border`` between them."""
    side = math.isqrt(grid[0].shape[1])
    columns = max(len(row) for row in grid)
    mosaic = np.full((len(grid) * (side + 1), columns * (side + 1)), border)
    for down, row in enumerate(grid):
        for right, picture in enumerate(row):
            top, left = down * (side + 1), right * (side + 1)
            mosaic[top : top + side, left : left + side] = picture.reshape(side, side)
    return mosaic[:-1, :-1]


EXPERIMENT = Experiment(
    row="L13",
    name="pretraining",
    title="Layer-wise pre-training",
    shows="Restricted Boltzmann machines, one per layer, give a deep sigmoid network a start that random weights do not.",
    measure=measure,
    describe=describe,
    draw=draw,
    data_sets=("mnist5k",),
)
