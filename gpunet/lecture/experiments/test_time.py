"""L23: batch norm at test time: running averages stand in for the statistics of a batch that is not there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunet.lecture.digits import CLASSES, INPUTS, Digits, split_digits
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import COLOURS, MARKERS, Figure, draw_lines, label, legend, name_ticks, panels
from gpunet.lecture.probing import EveryEpoch, hidden_scores
from gpunet.network import Network
from gpunet.random import Purpose, host_generator

BATCH_SIZE = 64
LEARNING_RATE = 0.1
SLOWEST = 0.001
# Added to the centred pixels where the averages are watched from their start at 0: scores with a mean to find.
BRIGHTNESS = 0.3

FAST = 0.01  # momenta above it have settled when the run ends
ALONE = 1e-4  # of the logits' standard deviation
SETTLED = 1.5  # times the noise that theory predicts
WORSE = 0.05  # of accuracy


def measure(settings: Settings) -> dict[str, Any]:
    """Watch the averages settle, train with several momenta, and compare predictions in both modes."""
    width, rows, epochs = (16, 200, 2) if settings.quick else (100, 1000, 10)
    digits = split_digits(settings.seed, rows)
    sizes = [INPUTS, width, width, CLASSES]
    momenta = [0.1, 0.5] if settings.quick else [0.01, 0.1, 0.5, 1.0]
    trained = {f"{momentum:g}": _train(settings, sizes, digits, momentum, epochs) for momentum in [SLOWEST, *momenta]}
    found = {"width": width, "rows": rows, "epochs": epochs, "batch_size": BATCH_SIZE, "momenta": momenta}
    bright = digits.X + BRIGHTNESS
    return found | {
        "settling": {f"{momentum:g}": _settle(settings, sizes, bright, momentum) for momentum in momenta},
        "training": {name: curve for name, (_, curve) in trained.items()},
        "modes": _compare_modes(settings, trained["0.1"][0], digits),
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


def _lag(network: Network, X: Array) -> float:
    """Return the gap between the second hidden layer's running mean and that over all rows, as both move."""
    mean, variance = batch_statistics(network, X)[1]
    # A ReLU unit may be silent for every row: its variance is 0.
    return _gaps(network, 2, mean, np.maximum(variance, np.finfo(np.float32).eps))[0]


def _train(
    settings: Settings, sizes: list[int], digits: Digits, momentum: float, epochs: int
) -> tuple[Network, dict[str, Any]]:
    """Train; the momentum changes the running averages and nothing else."""
    network = settings.network(sizes, batch_norm_momentum=momentum)
    lags, test = EveryEpoch(lambda network: _lag(network, digits.X)), (digits.X_test, digits.y_test)
    arguments: dict[str, Any] = {"batch_size": BATCH_SIZE, "validation": test, "callbacks": [lags]}
    history = digits.fit(network, LEARNING_RATE, epochs=epochs, **arguments)
    curves = {"loss": history["loss"], "test_accuracy": history["validation_accuracy"], "mean_gap": lags.seen}
    return network, curves


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
    with network.kept_averages():
        outputs = network.forward(network.backend.asarray(network.check_inputs(X)), training=True)
        return network.backend.to_numpy(outputs).copy()


def _batch_accuracy(network: Network, X: Array, y: Array, batches: list[Array]) -> float:
    hits = [_batch_logits(network, X[rows]).argmax(axis=1) == y[rows] for rows in batches]
    return float(np.concatenate(hits).mean())


def about(numbers: Numbers) -> str:
    modes, training = numbers["modes"], numbers["training"]
    gaps = ", ".join(f"{curve['mean_gap'][-1]:.2f} at {name}" for name, curve in training.items())
    accuracies = ", ".join(f"{curve['test_accuracy'][-1]:.1%} at {name}" for name, curve in training.items())
    return (
        "The two upper left panels feed batches to a network that does not learn: the running averages close in on the "
        "data's mean and variance at a rate set by the momentum, the weight of the new batch, until the noise of "
        f"batches of {numbers['batch_size']} is left. Where the network learns, they chase moving statistics (upper "
        f"right): after {numbers['epochs']} epochs their gap is {gaps} standard deviations, and the test accuracy "
        f"{accuracies}. In the wrong mode, with the statistics of the batch of test rows, a row's logits depend on its "
        f"company, by {modes['spread'][0]:.2f} in batches of {modes['batch_sizes'][0]} and {modes['spread'][-1]:.2f} "
        f"in those of {modes['batch_sizes'][-1]}."
    )


def claims(numbers: Numbers) -> Claims:
    modes, training, settling = numbers["modes"], numbers["training"], numbers["settling"]
    ratios = [run["settled_gap"] / run["predicted_noise"] for name, run in settling.items() if float(name) > FAST]
    settled = ", ".join(
        f"{run['settled_gap']:.3f} at {name} where theory has {run['predicted_noise']:.3f}"
        for name, run in settling.items()
    )
    losses = {tuple(curve["loss"]) for curve in training.values()}
    first = {name: curve["test_accuracy"][0] for name, curve in training.items()}
    lost = {"lag": first["0.1"] - first[f"{SLOWEST:g}"], "pairs": modes["accuracy"] - modes["mixed"][0]}
    lost["one class"] = modes["accuracy"] - max(modes["one_class"])
    return {
        "averages_settle": Claim(
            f"At a momentum above {FAST:g} the running mean ends as close as theory says, to a factor of {SETTLED:g}",
            min(ratios) > 1 / SETTLED and max(ratios) < SETTLED,
            f"in standard deviations {settled}",
        ),
        "momentum_is_only_averages": Claim(
            "The momentum changes nothing else: all have the same training loss",
            len(losses) == 1,
            f"distinct curves for {len(training)} momenta: {len(losses)}",
        ),
        "slow_averages_hurt": Claim.at_least(
            f"Averages that lag, at a momentum of {SLOWEST:g}, cost accuracy after an epoch:",
            lost["lag"],
            WORSE,
            ".1%",
        ),
        "rows_are_independent": Claim.agree(
            "With running averages a row's logits are the same whatever else is in its batch",
            modes["alone_difference"],
            ALONE * modes["logit_deviation"],
        ),
        "small_batches_hurt": Claim.at_least(
            f"In the wrong mode batches of {modes['batch_sizes'][0]} cost accuracy:", lost["pairs"], WORSE, ".1%"
        ),
        "one_class_hurts": Claim.at_least(
            "So do batches of one class, as in sorted data, whatever their size:", lost["one class"], WORSE, ".1%"
        ),
    }


def draw(numbers: Numbers) -> Figure:
    figure, ((mean, variance, lag), (accuracy, company, wrong)) = panels(2, 3, width=1.15)
    settling, training, modes = numbers["settling"], numbers["training"], numbers["modes"]
    for panel, key in ((mean, "mean_gap"), (variance, "variance_gap")):
        lines = {name: run[key] for name, run in settling.items()}
        draw_lines(panel, lines, range(len(lines["0.1"])), size=None, first=1, linewidth=1)
    for place, run in enumerate(settling.values(), start=1):
        mean.axhline(run["predicted_noise"], color=COLOURS[place], linewidth=0.8, alpha=0.6)
    for panel, key in ((lag, "mean_gap"), (accuracy, "test_accuracy")):
        draw_lines(panel, {name: curve[key] for name, curve in training.items()})
    deviations, seen = "RMS gap, standard deviations", "training batches seen"
    label(mean, seen, deviations, "running mean, weights fixed (thin: theory)", scale="y")
    label(variance, seen, "RMS gap, relative", "running variance, weights fixed", scale="y")
    label(lag, "epoch", deviations, "running mean of layer 2, weights learnt", scale="y")
    label(accuracy, "epoch", "test accuracy", "weights learnt")
    legend(accuracy, "lower right", title="momentum (all panels)")

    sizes = modes["batch_sizes"]
    company.plot(sizes, modes["spread"], marker=MARKERS[0], color=COLOURS[1], markersize=4)
    label(company, "batch size", "standard deviation of its logits", "wrong mode: a row in changing company")
    wrong.axhline(modes["accuracy"], color=COLOURS[0], label="running averages")
    draw_lines(
        wrong, {f"wrong mode, {key.replace('_', ' ')}": modes[key] for key in ("mixed", "one_class")}, sizes, first=1
    )
    label(wrong, "batch size", "test accuracy", "predictions in both modes")
    legend(wrong, "center right")
    for panel in (company, wrong):
        name_ticks(panel, sizes, base=2)
        panel.set_ylim(bottom=0)
    return figure
