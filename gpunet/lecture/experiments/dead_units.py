"""L17: ReLU units die at high learning rates, leaky ReLU and ELU do not; which activation learns fastest."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.layers import BiasActivation
from gpunet.lecture.digits import CLASSES, INPUTS, Digits, split_digits
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import Figure, draw_lines, label, legend, look, name_ticks, or_nan, panels
from gpunet.lecture.probing import EveryEpoch
from gpunet.lecture.wording import tiny
from gpunet.network import Network

# What is trained; the bias is the lecture's advice of row L18.
BIASED = "relu, bias 0.1"
NETWORKS: dict[str, dict[str, Any]] = {
    "sigmoid": {"activation": "sigmoid"},
    "tanh": {"activation": "tanh"},
    "relu": {"activation": "relu"},
    BIASED: {"activation": "relu", "initial_bias": 0.1},
    "leaky_relu": {"activation": "leaky_relu"},
    "elu": {"activation": "elu"},
}
RECTIFIERS = ("relu", BIASED, "leaky_relu", "elu")
HIDDEN_LAYERS = 2
BATCH_SIZE = 64
LEARNT = 0.02  # the training loss that counts as learnt

MANY_DEAD = 0.1
FASTER = 1.2
FEWER = 0.8


def measure(settings: Settings) -> dict[str, Any]:
    """Train every kind of network at every learning rate, looking at its hidden units after each epoch."""
    epochs, seeds, rows, width = (3, 2, 200, 20) if settings.quick else (20, 3, 1000, 64)
    rates = [0.1, 4.0] if settings.quick else [0.1, 0.3, 1.0, 2.0, 3.0, 4.0]
    digits = split_digits(settings.seed, rows)
    sizes_of_layers = [INPUTS] + [width] * HIDDEN_LAYERS + [CLASSES]

    def over_seeds(arguments: dict[str, Any], rate: float) -> dict[str, Any]:
        seeded = range(settings.seed, settings.seed + seeds)
        networks = [settings.network(sizes_of_layers, batch_norm=False, seed=seed, **arguments) for seed in seeded]
        return _summary([_run(digits, network, rate, epochs) for network in networks])

    runs = {name: [over_seeds(arguments, rate) for rate in rates] for name, arguments in NETWORKS.items()}
    sizes = {"epochs": epochs, "seeds": seeds, "rows": rows, "width": width}
    return sizes | {"learnt": LEARNT, "learning_rates": rates, "runs": runs}


def dead_and_silent(network: Network, X: Array) -> tuple[Array, Array]:
    """Return which hidden units are dead, and which are silent: two arrays of bool, (layers, m).

    Dead is where f'(s) is 0 for every row of X, so that no gradient reaches the unit's weights; silent where s is
    positive for none, for ReLU the same. The network has no batch norm, and hidden layers of one width m.
    """
    network.forward(network.backend.asarray(network.check_inputs(X)), training=True)  # which leaves all outputs
    hidden = [layer for layer in network.layers if isinstance(layer, BiasActivation)][:-1]
    outputs = [network.backend.to_numpy(layer.output) for layer in hidden]
    slopes = [layer.activation.derivative(y) for layer, y in zip(hidden, outputs, strict=True)]
    return np.array([slope.max(axis=0) == 0 for slope in slopes]), np.array([y.max(axis=0) <= 0 for y in outputs])


def _look(network: Network, X: Array) -> tuple[Array, Array, Array]:
    """Return dead and silent units, and the weights and bias of each unit of the first layer as a row."""
    weights = np.column_stack([network.get_parameters()[name] for name in ("W1", "b1")])
    return (*dead_and_silent(network, X), weights)


def _run(digits: Digits, network: Network, rate: float, epochs: int) -> dict[str, Any]:
    """Return loss and dead units over the epochs of one training run, as far as it got."""
    watch = EveryEpoch(lambda network: _look(network, digits.X), network)
    history, diverged = digits.fit_or_diverge(network, rate, epochs=epochs, batch_size=BATCH_SIZE, callbacks=[watch])
    dead, silent, weights = (np.array(seen) for seen in zip(*watch.seen, strict=True))
    revived = silent[:-1] & ~silent[1:]
    moves = np.abs(np.diff(weights, axis=0))[dead[:-1, 0]]
    shares = dead.mean(axis=(1, 2)).tolist()
    learnt = [epoch for epoch, loss in enumerate(history["loss"], start=1) if loss <= LEARNT and not diverged]
    return {
        "loss": history["loss"],
        "diverged": diverged,
        "learnt": learnt[0] if learnt else None,
        "moved": float(moves.max(initial=0)),
        "dead": shares + shares[-1:] * (epochs + 1 - len(shares)),
        "silent": silent[:-1].sum(axis=(0, 2)),
        "revived": revived.sum(axis=(0, 2)),
    }


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one kind of network at one learning rate, over the seeds.

    A run that diverged keeps the share of dead units of its last whole epoch. ``silent`` and ``revived`` count, for
    each hidden layer, units that were silent after an epoch, and those of them that were not after the next.
    ``moved`` is the largest change of a dead first-layer unit's weights over an epoch.
    """
    all_of: dict[str, list[Any]] = {key: [run[key] for run in runs] for key in runs[0]}
    return {
        "dead": np.mean(all_of["dead"], axis=0).tolist(),
        "diverged": sum(all_of["diverged"]),
        "moved": max(all_of["moved"]),
        "silent": sum(all_of["silent"]).tolist(),
        "revived": sum(all_of["revived"]).tolist(),
        # All seeds have to learn: a mean over those that did would hide the others.
        "epochs_to_learn": None if None in all_of["learnt"] else float(np.mean(all_of["learnt"])),
        "loss": None if any(all_of["diverged"]) else np.mean(all_of["loss"], axis=0).tolist(),
    }


def fastest(numbers: Numbers, name: str) -> tuple[float, float] | None:
    """Return the fewest epochs to learn over the learning rates, and that learning rate; None where no rate did."""
    epochs = (run["epochs_to_learn"] for run in numbers["runs"][name])
    found = zip(epochs, numbers["learning_rates"], strict=True)
    return min((one for one in found if one[0] is not None), default=None)


def about(numbers: Numbers) -> str:
    rates, runs = numbers["learning_rates"], numbers["runs"]
    silent, revived = (sum(sum(run[key][1:]) for run in runs["relu"]) for key in ("silent", "revived"))
    times = ", ".join(f"{name} {_epochs_text(numbers, name)}" for name in NETWORKS if name != BIASED)
    diverged = sum(run["diverged"] for name in NETWORKS for run in runs[name])
    return (
        "A unit is dead when f'(s) is 0 for every training row: no gradient reaches its weights. The upper panels "
        f"count such units in networks of {HIDDEN_LAYERS} hidden layers of {numbers['width']} learning the digits for "
        f"{numbers['epochs']} epochs (means of {numbers['seeds']} seeds). Above the first layer, where the inputs "
        f"move, {revived} of {silent} ReLU units that were silent after an epoch came back. The lower panels compare "
        f"how fast the training loss falls to {numbers['learnt']:g}, each activation at its best learning rate: "
        f"{times}. {diverged} of {len(NETWORKS) * len(rates) * numbers['seeds']} runs diverged, counted as not learnt."
    )


def claims(numbers: Numbers) -> Claims:
    rates, runs = numbers["learning_rates"], numbers["runs"]
    dead = {name: [run["dead"][-1] for run in runs[name]] for name in RECTIFIERS}
    silent, revived = (
        {name: sum(run[key][0] for run in runs[name]) for name in RECTIFIERS} for key in ("silent", "revived")
    )
    worst = max(dead["leaky_relu"]), max(dead["elu"])
    moved = max(run["moved"] for run in runs["relu"])
    return {
        "relu_dies": Claim(
            f"At the highest rate more than {MANY_DEAD:.0%} of the ReLU units die, thrice as many as at the lowest",
            dead["relu"][-1] > MANY_DEAD and dead["relu"][-1] >= 3 * dead["relu"][0],
            f"{dead['relu'][0]:.1%} at {rates[0]:g} and {dead['relu'][-1]:.1%} at {rates[-1]:g}",
        ),
        "bias_helps": Claim(
            f"A bias of 0.1 at the start leaves less than {FEWER:g} times as many dead, over all rates",
            sum(dead[BIASED]) < FEWER * sum(dead["relu"]),
            f"{dead[BIASED][-1]:.1%} at {rates[-1]:g}",
        ),
        "others_live": Claim(
            "No leaky ReLU or ELU unit dies at any rate",
            max(worst) == 0,
            f"at the worst {worst[0]:.1%} and {worst[1]:.1%}; exp(s) may round to 0",
        ),
        "never_updates": Claim(
            "Dead ReLU units of the first layer, whose inputs do not change, keep their weights to the bit",
            moved == 0,
            f"largest change in an epoch {tiny(moved)}",
        ),
        "stays_dead": Claim("None of these comes back", revived["relu"] == 0, f"{revived['relu']} of {silent['relu']}"),
        "leaky_revives": Claim(
            "Of leaky ReLU's units that were silent in the same way some do",
            revived["leaky_relu"] > 0,
            f"{revived['leaky_relu']} of {silent['leaky_relu']}",
        ),
        **{f"faster_than_{name}": _faster(numbers, name) for name in ("sigmoid", "tanh")},
    }


def _faster(numbers: Numbers, name: str) -> Claim:
    relu, other = fastest(numbers, "relu"), fastest(numbers, name)
    shown = f"{_epochs_text(numbers, 'relu')} against {_epochs_text(numbers, name)}"
    for rate, *both in zip(numbers["learning_rates"], numbers["runs"]["relu"], numbers["runs"][name], strict=True):
        epochs = [run["epochs_to_learn"] for run in both]
        if None not in epochs:
            shown += f"; both at {rate:g} {epochs[0]:.1f} against {epochs[1]:.1f}"
            break
    return Claim(
        f"ReLU converges faster than {name} by a factor of at least {FASTER:g}, each at its best learning rate",
        relu is not None and (other is None or other[0] >= FASTER * relu[0]),
        shown,
    )


def _epochs_text(numbers: Numbers, name: str) -> str:
    best = fastest(numbers, name)
    return f"not within {numbers['epochs']} epochs" if best is None else f"{best[0]:.1f} epochs at rate {best[1]:g}"


def draw(numbers: Numbers) -> Figure:
    figure, ((over_epochs, over_rates), (losses, learning)) = panels(2, 2, width=1.35, height=1.05)
    rates, runs = numbers["learning_rates"], numbers["runs"]
    dead = {f"{rate:g}": [100 * share for share in run["dead"]] for rate, run in zip(rates, runs["relu"], strict=True)}
    draw_lines(over_epochs, dict(list(dead.items())[-5:]), range(numbers["epochs"] + 1), size=None)
    label(over_epochs, "epoch", "dead units, %", "ReLU", whole=True)
    over_epochs.set_ylim(top=1.3 * max(1.0, over_epochs.get_ylim()[1]))
    legend(over_epochs, "upper left", title="learning rate", ncols=5)

    for place, name in enumerate(NETWORKS):
        look_of = look(place) | {"label": name}
        if name in RECTIFIERS:
            over_rates.plot(rates, [100 * run["dead"][-1] for run in runs[name]], **look_of)
        if name == BIASED:
            continue
        best = fastest(numbers, name)
        chosen = rates.index(best[1]) if best else _lowest_loss(runs[name])
        if chosen is not None:
            curve = runs[name][chosen]["loss"]
            losses.plot(range(1, len(curve) + 1), curve, **look_of | {"label": f"{name}, rate {rates[chosen]:g}"})
        learning.plot(rates, or_nan(run["epochs_to_learn"] for run in runs[name]), **look_of)
    losses.axhline(numbers["learnt"], color="0.5", linewidth=0.8)
    label(over_rates, "learning rate", "dead units, %", f"after {numbers['epochs']} epochs", scale="x")
    label(losses, "epoch", "training loss", "at the best learning rate", scale="y", whole=True)
    y = f"epochs to a loss of {numbers['learnt']:g}"
    label(learning, "learning rate", y, "no marker: a seed did not get there", scale="x")
    learning.set_ylim(0, numbers["epochs"] + 1)
    for panel in (over_rates, losses, learning):
        legend(panel)
    for panel in (over_rates, learning):
        name_ticks(panel, rates)
        panel.minorticks_off()
    return figure


def _lowest_loss(runs: list[Any]) -> int | None:
    """Return the place of the run with the lowest loss at the end, of those in which no seed diverged."""
    found = [(run["loss"][-1], place) for place, run in enumerate(runs) if run["loss"]]
    return min(found)[1] if found else None
