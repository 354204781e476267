"""L23: batch norm at test time: running averages stand in for the statistics of a batch that is not there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import gpunet
from gpunet.layer_passes import kept_averages
from gpunet.lecture.digits import CLASSES, INPUTS, Digits, split_digits
from gpunet.lecture.experiment import Numbers, Settings
from gpunet.lecture.plotting import COLOURS, MARKERS, STYLES, label, panels
from gpunet.lecture.probing import hidden_scores
from gpunet.network import Network
from gpunet.random import Purpose, host_generator
from gpunet.training import Callback, EpochRecord, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

BATCH_SIZE = 64
LEARNING_RATE = 0.1
SLOWEST = 0.001
# Added to the centred pixels where the averages are watched from their start at 0: scores with a mean to find.
BRIGHTNESS = 0.3

# Thresholds of the claims.
SETTLED = 1.5  # times the noise that theory predicts
WORSE = 0.05  # of accuracy


def measure(settings: Settings) -> dict[str, Any]:
    """Watch the averages settle, train with several momenta, and compare predictions in both modes."""
    width, rows, epochs = (16, 200, 2) if settings.quick else (100, 1000, 10)
    digits = split_digits(settings.seed, rows)
    sizes = [INPUTS, width, width, CLASSES]
    momenta = [0.1, 0.5] if settings.quick else [0.01, 0.1, 0.5, 1.0]
    trained = {f"{momentum:g}": _train(settings, sizes, digits, momentum, epochs) for momentum in [SLOWEST, *momenta]}
    network = trained["0.1"][0]
    return {
        "width": width,
        "rows": rows,
        "epochs": epochs,
        "batch_size": BATCH_SIZE,
        "momenta": momenta,
        "settling": {
            f"{momentum:g}": _settle(settings, sizes, digits.X + BRIGHTNESS, momentum) for momentum in momenta
        },
        "training": {name: curve for name, (_, curve) in trained.items()},
        "modes": _compare_modes(settings, network, digits),
    }


def batch_statistics(network: Network, X: Array) -> list[tuple[Array, Array]]:
    """Return mean and unbiased variance of each hidden layer's scores when the rows of X are one training batch."""
    return [(scores.mean(axis=0), scores.var(axis=0, ddof=1)) for scores in hidden_scores(network, X)]


def _settle(settings: Settings, sizes: list[int], X: Array, momentum: float) -> dict[str, Any]:
    """Feed batches to a network whose weights stay as they are; follow its first layer's averages.

    The scores' mean and variance over all rows are what the averages look for.
    """
    steps = 20 if settings.quick else 200
    network = settings.network(sizes, batch_norm_momentum=momentum)
    backend = network.backend
    mean, variance = batch_statistics(network, X)[0]
    generator = host_generator(settings.seed, Purpose.NOISE)
    inputs = network.check_inputs(X)
    gaps = []
    for _ in range(steps + 1):
        gaps.append(_gaps(network, 1, mean, variance))
        network.forward(backend.asarray(inputs[generator.integers(0, len(X), BATCH_SIZE)]), training=True)
    return {
        "mean_gap": [gap for gap, _ in gaps],
        "variance_gap": [gap for _, gap in gaps],
        # Batches of independent rows: Var(running mean) = momentum / (2 - momentum) times Var(batch mean).
        "predicted_noise": math.sqrt(momentum / (2 - momentum) / BATCH_SIZE),
        "settled_gap": _rms(np.array([gap for gap, _ in gaps[steps // 2 :]])),
    }


def _gaps(network: Network, layer: int, mean: Array, variance: Array) -> tuple[float, float]:
    """Return how far a layer's running mean and variance are from these: RMS over the units, relative to the spread."""
    state = network.get_state()
    return (
        _rms((state[f"running_mean{layer}"] - mean) / np.sqrt(variance)),
        _rms(state[f"running_variance{layer}"] / variance - 1),
    )


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


class _Gaps(Callback):
    """Follows the gap between the second hidden layer's averages and its statistics over all rows, as both move."""

    def __init__(self, X: Array) -> None:
        self._X = X
        self.mean_gap: list[float] = []

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        mean, variance = batch_statistics(run.network, self._X)[1]
        # A ReLU unit may be silent for every row: its variance is 0.
        variance = np.maximum(variance, np.finfo(np.float32).eps)
        self.mean_gap.append(_gaps(run.network, 2, mean, variance)[0])


def _train(
    settings: Settings, sizes: list[int], digits: Digits, momentum: float, epochs: int
) -> tuple[Network, dict[str, Any]]:
    """Train; the momentum changes the running averages and nothing else."""
    network = settings.network(sizes, batch_norm_momentum=momentum)
    gaps = _Gaps(digits.X)
    history = gpunet.fit(
        network,
        digits.X,
        digits.y,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        optimizer=gpunet.SGD(LEARNING_RATE),
        validation=(digits.X_test, digits.y_test),
        callbacks=[gaps],
    )
    return network, {
        "loss": history["loss"],
        "test_accuracy": history["validation_accuracy"],
        "mean_gap": gaps.mean_gap,
    }


def _compare_modes(settings: Settings, network: Network, digits: Digits) -> dict[str, Any]:
    """Predict test rows with the running averages, and, wrongly, with the statistics of batches of test rows."""
    sizes = [2, 8, 64] if settings.quick else [2, 4, 8, 16, 32, 64, 128, 256]
    X, y = digits.X_test, digits.y_test
    reference = network.logits(X)
    alone = np.concatenate([network.logits(X[i : i + 1]) for i in range(min(len(X), 50))])
    generator = host_generator(settings.seed, Purpose.NOISE, 1)
    mixed, one_class, spread = [], [], []
    for size in sizes:
        batches = [generator.choice(len(X), size, replace=False) for _ in range(max(4, 512 // size))]
        mixed.append(_batch_accuracy(network, X, y, batches))
        classes = generator.integers(CLASSES, size=len(batches))
        alike = [generator.choice(np.flatnonzero(y == c), size) for c in classes]  # repeated where a class is small
        one_class.append(_batch_accuracy(network, X, y, alike))
        # The same row in different company.
        others = [generator.choice(np.arange(1, len(X)), size - 1, replace=False) for _ in range(30)]
        logits = np.array([_batch_logits(network, X[[0, *rows]])[0] for rows in others], dtype=np.float64)
        spread.append(float(logits.std(axis=0).mean()))
    return {
        "batch_sizes": sizes,
        "accuracy": float(np.mean(reference.argmax(axis=1) == y)),
        "mixed": mixed,
        "one_class": one_class,
        "spread": spread,
        "alone_difference": float(np.abs(alone - reference[: len(alone)]).max()),
        "logit_deviation": float(reference.std(dtype=np.float64)),
    }


def _batch_logits(network: Network, X: Array) -> Array:
    """Return the outputs for X with batch norm in training mode: the wrong mode for predictions."""
    with kept_averages(network):
        outputs = network.forward(network.backend.asarray(network.check_inputs(X)), training=True)
        return network.backend.to_numpy(outputs).copy()


def _batch_accuracy(network: Network, X: Array, y: Array, batches: list[Array]) -> float:
    hits = [_batch_logits(network, X[rows]).argmax(axis=1) == y[rows] for rows in batches]
    return float(np.concatenate(hits).mean())


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show.

    ``averages_settle``: the running mean ends as close to the data's as theory says, within a factor of 1.5, for
    every momentum above 0.01. ``rows_are_independent``: a row predicted alone gets the logits that it gets among
    others, to rounding. ``small_batches_hurt``: in training mode batches of two lose at least 5 points of accuracy;
    ``one_class_hurts``: so do batches of one class, of any size. ``momentum_is_only_averages``: the training losses of
    all momenta are the same. ``slow_averages_hurt``: with a momentum of 0.001 the averages lag so far behind that at
    least 5 points of accuracy are lost against 0.1 after the first epoch.
    """
    modes, training = numbers["modes"], numbers["training"]
    return {
        "averages_settle": all(
            1 / SETTLED < run["settled_gap"] / run["predicted_noise"] < SETTLED
            for name, run in numbers["settling"].items()
            if float(name) > 0.01
        ),
        "rows_are_independent": modes["alone_difference"] < 1e-4 * modes["logit_deviation"],
        "small_batches_hurt": modes["mixed"][0] <= modes["accuracy"] - WORSE,
        "one_class_hurts": max(modes["one_class"]) <= modes["accuracy"] - WORSE,
        "momentum_is_only_averages": len({tuple(curve["loss"]) for curve in training.values()}) == 1,
        "slow_averages_hurt": training[f"{SLOWEST:g}"]["test_accuracy"][0]
        <= training["0.1"]["test_accuracy"][0] - WORSE,
    }


def describe(numbers: Numbers) -> str:
    """Say what to look at and what this run showed."""
    shown, modes, settling, training = claims(numbers), numbers["modes"], numbers["settling"], numbers["training"]
    settled = ", ".join(
        f"{run['settled_gap']:.3f} at momentum {name} (theory: {run['predicted_noise']:.3f})"
        for name, run in settling.items()
    )
    settle = "as theory says" if shown["averages_settle"] else "not all as theory says"
    late = [name for name, run in settling.items() if run["settled_gap"] > SETTLED * run["predicted_noise"]]
    if late:
        settle += f" (still on its way or above it: {', '.join(late)})"
    gaps = ", ".join(f"{curve['mean_gap'][-1]:.2f} at {name}" for name, curve in training.items())
    accuracies = ", ".join(f"{curve['test_accuracy'][-1]:.1%} at {name}" for name, curve in training.items())
    same = "and nothing else" if shown["momentum_is_only_averages"] else "and, against the theory, the training"
    lost = training["0.1"]["test_accuracy"][0] - training[f"{SLOWEST:g}"]["test_accuracy"][0]
    slow = "costs" if shown["slow_averages_hurt"] else "costs only"
    alone = "whatever else is in its batch" if shown["rows_are_independent"] else "depending on its batch"
    small = "falls" if shown["small_batches_hurt"] else "hardly falls"
    one_class = "and no batch size helps" if shown["one_class_hurts"] else "and some batch sizes hold up"
    return (
        "The two upper left panels feed batches to a network that does not learn: the running averages, which start at "
        "0 and 1, close in on the data's mean and variance at a rate set by the momentum, the weight of the new batch, "
        f"until the noise of batches of {numbers['batch_size']} is left; the mean's is, in standard deviations of the "
        f"scores, {settled}: {settle}. Where the network learns, the averages chase moving statistics (upper right; "
        f"the momentum changes them {same}): after {numbers['epochs']} epochs their gap is {gaps} standard deviations, "
        f"and the test accuracy {accuracies}; lagging with {SLOWEST:g} {slow} {100 * lost:.1f} points after the first "
        f"epoch against 0.1. With running averages a row gets the same prediction {alone}: alone and among others its "
        f"logits differ by at most {modes['alone_difference']:.0e}. In the wrong mode, with the statistics of the "
        "batch of test rows itself, they depend on the company (lower middle): a row's logits vary by "
        f"{modes['spread'][0]:.2f} in batches of {modes['batch_sizes'][0]} and by {modes['spread'][-1]:.2f} in batches "
        f"of {modes['batch_sizes'][-1]}. Accuracy (lower right) then {small} from {modes['accuracy']:.1%} to "
        f"{modes['mixed'][0]:.1%} for batches of {modes['batch_sizes'][0]}, and where all rows of a batch are of one "
        f"class, as in sorted data, it is between {min(modes['one_class']):.1%} and {max(modes['one_class']):.1%}, "
        f"{one_class}."
    )


def draw(numbers: Numbers) -> Figure:
    """Draw the averages settling and lagging, accuracy while training, and what the wrong mode does."""
    figure, axes = panels(2, 3, width=1.15)
    for place, (name, run) in enumerate(numbers["settling"].items(), start=1):
        look: dict[str, Any] = {"linestyle": STYLES[place], "color": COLOURS[place], "linewidth": 1}
        axes[0, 0].semilogy(run["mean_gap"], label=name, **look)
        axes[0, 0].axhline(run["predicted_noise"], color=COLOURS[place], linewidth=0.8, alpha=0.6)
        axes[0, 1].semilogy(run["variance_gap"], label=name, **look)
    label(
        axes[0, 0],
        x="training batches seen",
        y="RMS gap, standard deviations",
        title="running mean, weights fixed (thin: theory)",
    )
    label(axes[0, 1], x="training batches seen", y="RMS gap, relative", title="running variance, weights fixed")
    for place, (name, curve) in enumerate(numbers["training"].items()):
        epochs = range(1, len(curve["test_accuracy"]) + 1)
        look = {"linestyle": STYLES[place], "color": COLOURS[place], "marker": MARKERS[place], "markersize": 4}
        axes[0, 2].semilogy(epochs, curve["mean_gap"], label=name, **look)
        axes[1, 0].plot(epochs, curve["test_accuracy"], label=name, **look)
    label(axes[0, 2], x="epoch", y="RMS gap, standard deviations", title="running mean of layer 2, weights learnt")
    label(axes[1, 0], x="epoch", y="test accuracy", title="weights learnt")
    axes[1, 0].legend(fontsize=8, title="momentum (all panels)", title_fontsize=8, loc="lower right")

    modes = numbers["modes"]
    axes[1, 1].plot(modes["batch_sizes"], modes["spread"], marker=MARKERS[0], color=COLOURS[1], markersize=4)
    label(
        axes[1, 1], x="batch size", y="standard deviation of its logits", title="wrong mode: a row in changing company"
    )
    axes[1, 2].axhline(modes["accuracy"], color=COLOURS[0], label="running averages")
    for place, (key, text) in enumerate((("mixed", "wrong mode, mixed"), ("one_class", "wrong mode, one class")), 1):
        look = {"linestyle": STYLES[place], "color": COLOURS[place], "marker": MARKERS[place], "markersize": 4}
        axes[1, 2].plot(modes["batch_sizes"], modes[key], label=text, **look)
    label(axes[1, 2], x="batch size", y="test accuracy", title="predictions in both modes")
    axes[1, 2].legend(fontsize=8, loc="center right")
    for panel in axes[1, 1:]:
        panel.set_xscale("log", base=2)
        panel.set_xticks(modes["batch_sizes"], [str(size) for size in modes["batch_sizes"]])
        panel.set_ylim(bottom=0)
    return figure
