"""L18: the advice for ReLU: slightly positive initial biases, and care with the learning rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunet.diagnostics import inspect
from gpunet.lecture.digits import CLASSES, INPUTS, Digits, split_digits
from gpunet.lecture.experiment import Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import Figure, draw_lines, label, legend, panels
from gpunet.lecture.wording import listing, none_where_not_finite
from gpunet.network import Network

BIASES = (-1.0, -0.1, 0.0, 0.01, 0.1)
RATES = (0.05, 0.5, 2.0)
SAMPLE = 512  # rows that dead units are counted on
BATCH_SIZE = 64
SEEDS = 3

HELPS = 0.9  # of the loss with bias 0
SAME = 0.15  # relative difference from it
MOSTLY_DEAD = 0.5
MANY_DEAD = 0.25
FEW_DEAD = 0.05
NOTHING_LEARNT = 0.95  # of log 10, the loss of equal probabilities


def measure(settings: Settings) -> dict[str, Any]:
    """Train ReLU networks on digits from each initial bias, with each learning rate; medians over the seeds."""
    depth, width, epochs, seeds, rows = 4, 50, 5, SEEDS, 1280
    if settings.quick:
        width, epochs, seeds, rows = 20, 2, 1, 256
    data = {seed: split_digits(seed, rows) for seed in range(settings.seed, settings.seed + seeds)}

    def median(bias: float, rate: float) -> dict[str, Any]:
        runs = []
        for seed, digits in data.items():
            arguments = {"activation": "relu", "batch_norm": False, "initial_bias": bias, "seed": seed}
            network = settings.network([INPUTS, *[width] * depth, CLASSES], **arguments)
            before = _dead(network, digits)
            losses = digits.losses(network, rate, epochs=epochs, batch_size=BATCH_SIZE)
            runs.append((before, _dead(network, digits), losses))
        before, after, losses = (np.median(found, axis=0) for found in zip(*runs, strict=True))
        return {"losses": none_where_not_finite(losses), "dead_before": float(before), "dead_after": float(after)}

    runs = {f"{bias:g}": [median(bias, rate) for rate in RATES] for bias in BIASES}
    sizes = {"depth": depth, "width": width, "epochs": epochs, "seeds": seeds, "rows": rows}
    return sizes | {"biases": list(BIASES), "rates": list(RATES), "runs": runs}


def _dead(network: Network, digits: Digits) -> float:
    """Return the share of the hidden units that are dead on every image of a sample."""
    layers = inspect(network, digits.X[:SAMPLE], digits.y[:SAMPLE]).hidden
    return float(np.mean([layer.dead_share for layer in layers]))


def _last(run: dict[str, Any]) -> float:
    loss = run["losses"][-1]
    return math.inf if loss is None else float(loss)


def about(numbers: Numbers) -> str:
    slow, faster = ({name: _last(runs[place]) for name, runs in numbers["runs"].items()} for place in (0, 1))
    slow_ends = listing(f"{slow[bias]:.2f} from {bias}" for bias in ("-0.1", "0", "0.01", "0.1"))
    return (
        f"ReLU networks with {numbers['depth']} hidden layers of {numbers['width']} units (He's weights, no batch "
        f"norm) learn {numbers['rows']:,} digits by plain gradient descent from different initial biases; medians of "
        f"{numbers['seeds']} seeds. Look at the order of the curves on the left, where the learning rate is "
        f"{numbers['rates'][0]:g}: after {numbers['epochs']} epochs the loss is {slow_ends}; in the middle, at "
        f"{numbers['rates'][1]:g}, they end at {faster['0']:.2f} from 0 and {faster['0.1']:.2f} from 0.1. On the right "
        "are the hidden units that are dead on every image."
    )


def claims(numbers: Numbers) -> Claims:
    runs, rates = numbers["runs"], numbers["rates"]
    slow = {name: _last(runs[name][0]) for name in runs}
    kills = {name: [run["dead_after"] for run in runs[name]] for name in runs}
    negative, least = runs["-1"][0]["dead_before"], min(_last(run) for run in runs["-1"])
    return {
        "positive_helps": Claim(
            f"At the smallest rate a bias of 0.1 leaves at most {HELPS:.0%} of the loss that 0 leaves",
            slow["0.1"] <= HELPS * slow["0"],
            f"{slow['0.1']:.2f} and {slow['0']:.2f}",
        ),
        "hundredth_is_zero": Claim(
            f"0.01 is hardly different from 0: within {SAME:.0%}",
            abs(slow["0.01"] - slow["0"]) <= SAME * slow["0"],
            f"{slow['0.01']:.2f}",
        ),
        "negative_kills": Claim(
            f"With -1 at least {MOSTLY_DEAD:.0%} of the units are dead at the start, and no rate learns anything",
            negative >= MOSTLY_DEAD and least >= NOTHING_LEARNT * math.log(CLASSES),
            f"{negative:.0%}, and a loss of {least:.2f} at the least",
        ),
        "rate_kills": Claim(
            f"The rate kills too: of units with bias 0, {rates[-1]:g} leaves at least {MANY_DEAD:.0%} dead, and "
            f"{rates[-2]:g} at most {FEW_DEAD:.0%}",
            kills["0"][-1] >= MANY_DEAD and kills["0"][-2] <= FEW_DEAD,
            f"{kills['0'][-1]:.0%} and {kills['0'][-2]:.1%}",
        ),
        "bias_does_not_protect": Claim.at_least(
            "A bias of 0.1 does not protect: that rate kills", kills["0.1"][-1], MANY_DEAD
        ),
    }


def draw(numbers: Numbers) -> Figure:
    figure, (axes,) = panels(1, 3, width=1.1)
    runs = numbers["runs"]
    for place, (panel, rate) in enumerate(zip(axes[:2], numbers["rates"], strict=False)):
        draw_lines(panel, {name: by_rate[place]["losses"] for name, by_rate in runs.items()})
        title = f"learning rate {rate:g}"
        label(panel, "epoch", "training loss (cross-entropy)", title, scale="y", whole=True)
        panel.tick_params(which="minor", labelsize=7)
    legend(axes[0], title="initial bias")
    stages = ["before\ntraining", *(f"rate\n{rate:g}" for rate in numbers["rates"])]
    dead = {
        name: [by_rate[0]["dead_before"], *(run["dead_after"] for run in by_rate)] for name, by_rate in runs.items()
    }
    draw_lines(axes[2], dead, range(len(stages)))
    axes[2].set_xticks(range(len(stages)), stages)
    axes[2].set_ylim(-0.03, 1.03)
    label(
        axes[2], f"after {numbers['epochs']} epochs with the learning rate", "dead hidden units (share)", "dead units"
    )
    return figure
