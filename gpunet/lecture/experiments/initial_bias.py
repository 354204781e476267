"""L18: the advice for ReLU: slightly positive initial biases, and care with the learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

import gpunet
from gpunet.diagnostics import inspect
from gpunet.errors import TrainingDivergedError
from gpunet.lecture.digits import CLASSES, INPUTS, Digits, split_digits
from gpunet.lecture.experiment import Numbers, Settings
from gpunet.lecture.plotting import COLOURS, MARKERS, STYLES, label, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BIASES = (-1.0, -0.1, 0.0, 0.01, 0.1)
RATES = (0.05, 0.5, 2.0)
SAMPLE = 512  # rows that dead units are counted on
BATCH_SIZE = 64
SEEDS = 3

# Thresholds of the claims.
HELPS = 0.9  # of the loss with bias 0
SAME = 0.15  # relative difference from it
MOSTLY_DEAD = 0.5
MANY_DEAD = 0.25
FEW_DEAD = 0.05
NOTHING_LEARNT = 0.95  # of log 10, the loss of equal probabilities


def measure(settings: Settings) -> dict[str, Any]:
    """Train ReLU networks on digits from each initial bias, with each learning rate."""
    depth, width, epochs, seeds, rows = 4, 50, 5, SEEDS, 1280
    if settings.quick:
        width, epochs, seeds, rows = 20, 2, 1, 256
    data = {seed: split_digits(seed, rows) for seed in range(settings.seed, settings.seed + seeds)}
    runs = {
        f"{bias:g}": [
            _median([_train(settings, data[seed], [width] * depth, bias, rate, epochs, seed) for seed in data])
            for rate in RATES
        ]
        for bias in BIASES
    }
    return {
        "depth": depth,
        "width": width,
        "epochs": epochs,
        "seeds": seeds,
        "rows": rows,
        "biases": list(BIASES),
        "rates": list(RATES),
        "runs": runs,
    }


def _train(
    settings: Settings, data: Digits, hidden: list[int], bias: float, rate: float, epochs: int, seed: int
) -> dict[str, Any]:
    network = settings.network(
        [INPUTS, *hidden, CLASSES], activation="relu", batch_norm=False, initial_bias=bias, seed=seed
    )
    sample = data.X[:SAMPLE], data.y[:SAMPLE]

    def dead() -> float:
        return float(np.mean([layer.dead_share for layer in inspect(network, *sample).hidden]))

    before = dead()
    try:
        history = gpunet.fit(network, data.X, data.y, epochs=epochs, batch_size=BATCH_SIZE, optimizer=gpunet.SGD(rate))
    except TrainingDivergedError as error:
        history = error.history
    losses = history["loss"] + [math.inf] * (epochs - len(history))
    return {"losses": losses, "dead_before": before, "dead_after": dead()}


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    losses = np.median([run["losses"] for run in runs], axis=0)
    return {
        "losses": [float(loss) if math.isfinite(loss) else None for loss in losses],
        "dead_before": float(np.median([run["dead_before"] for run in runs])),
        "dead_after": float(np.median([run["dead_after"] for run in runs])),
    }


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show.

    ``positive_helps``: with the smallest rate, 0.1 leaves at most 90 % of the loss that 0 leaves.
    ``hundredth_is_zero``: 0.01 leaves within 15 % of it. ``negative_kills``: with -1 most units are dead from the
    start, and nothing is learnt. ``rate_kills``: with bias 0, at least a quarter of the units are dead after training
    with the largest rate, and at most 5 % with the one before it. ``bias_does_not_protect``: with 0.1 at least a
    quarter die as well.
    """
    runs = numbers["runs"]
    slow = {name: _last(runs[name][0]) for name in runs}
    return {
        "positive_helps": slow["0.1"] <= HELPS * slow["0"],
        "hundredth_is_zero": abs(slow["0.01"] - slow["0"]) <= SAME * slow["0"],
        "negative_kills": runs["-1"][0]["dead_before"] >= MOSTLY_DEAD
        and min(_last(run) for run in runs["-1"]) >= NOTHING_LEARNT * math.log(CLASSES),
        "rate_kills": runs["0"][-1]["dead_after"] >= MANY_DEAD and runs["0"][-2]["dead_after"] <= FEW_DEAD,
        "bias_does_not_protect": runs["0.1"][-1]["dead_after"] >= MANY_DEAD,
    }


def _last(run: dict[str, Any]) -> float:
    loss = run["losses"][-1]
    return math.inf if loss is None else float(loss)


def describe(numbers: Numbers) -> str:
    """Say what to look at and what this run showed."""
    shown, runs, rates = claims(numbers), numbers["runs"], numbers["rates"]
    slow = {name: _last(runs[name][0]) for name in runs}
    helps = "helps" if shown["positive_helps"] else "does not clearly help"
    hundredth = "hardly different from 0" if shown["hundredth_is_zero"] else "different from 0"
    if shown["negative_kills"]:
        negative = (
            f"With -1, {runs['-1'][0]['dead_before']:.0%} of the hidden units are dead on every image before training "
            "starts, and nothing is learnt at any learning rate"
        )
    else:
        negative = f"With -1, {runs['-1'][0]['dead_before']:.0%} of the hidden units are dead before training starts"
    largest = f"from bias 0, {runs['0'][-1]['dead_after']:.0%} of the units are dead after {numbers['epochs']} epochs"
    if shown["rate_kills"]:
        fewer = f"and {runs['0'][-2]['dead_after']:.1%} at {rates[-2]:g}"
        rate = f"The learning rate kills too: at {rates[-1]:g}, {largest}, {fewer}"
    else:
        rate = f"The learning rate does not show a clear effect on them: at {rates[-1]:g}, {largest}"
    protects = "does not protect" if shown["bias_does_not_protect"] else "protects"
    return (
        f"ReLU networks with {numbers['depth']} hidden layers of {numbers['width']} units (He's weights, no batch "
        f"norm) learn {numbers['rows']:,} digits by plain gradient descent from different initial biases; medians of "
        f"{numbers['seeds']} seeds. Look at the order of the curves on the left, where the learning rate is "
        f"{rates[0]:g}: a slightly positive bias {helps} there, for after {numbers['epochs']} epochs the loss is "
        f"{slow['-0.1']:.2f} from -0.1, {slow['0']:.2f} from 0, {slow['0.01']:.2f} from 0.01 ({hundredth}) and "
        f"{slow['0.1']:.2f} from 0.1; in the middle, at {rates[1]:g}, they end at {_last(runs['0'][1]):.2f} from 0 and "
        f"{_last(runs['0.1'][1]):.2f} from 0.1. {negative}. {rate}; a bias of 0.1 {protects} against that "
        f"({runs['0.1'][-1]['dead_after']:.0%} dead)."
    )


def draw(numbers: Numbers) -> Figure:
    """Draw the loss over the epochs for two learning rates, and dead units before and after training."""
    figure, axes = panels(1, 3, width=1.1)
    epochs = range(1, numbers["epochs"] + 1)
    stages = ["before\ntraining", *(f"rate\n{rate:g}" for rate in numbers["rates"])]
    for place, (name, runs) in enumerate(numbers["runs"].items()):
        look = {"color": COLOURS[place], "linestyle": STYLES[place], "marker": MARKERS[place], "markersize": 4}
        for axis, run in zip(axes[0, :2], runs, strict=False):
            axis.plot(epochs, [math.nan if loss is None else loss for loss in run["losses"]], label=name, **look)
        dead = [runs[0]["dead_before"], *(run["dead_after"] for run in runs)]
        axes[0, 2].plot(range(len(stages)), dead, label=name, **look)
    for axis, rate in zip(axes[0, :2], numbers["rates"], strict=False):
        axis.set_yscale("log")
        axis.tick_params(which="minor", labelsize=7)
        axis.xaxis.get_major_locator().set_params(integer=True)
        label(axis, x="epoch", y="training loss (cross-entropy)", title=f"learning rate {rate:g}")
    axes[0, 0].legend(title="initial bias", fontsize=8, title_fontsize=8)
    axes[0, 2].set_xticks(range(len(stages)), stages)
    axes[0, 2].set_ylim(-0.03, 1.03)
    label(
        axes[0, 2],
        x=f"after {numbers['epochs']} epochs with the learning rate",
        y="dead hidden units (share)",
        title="dead units",
    )
    return figure
