"""L15: where a unit's inputs are all positive, the gradients of its weights share a sign, and the path zig-zags."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.lecture.digits import CLASSES, INPUTS, split_digits
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import COLOURS, Figure, draw_lines, label, legend, name_ticks, panels
from gpunet.network import Network
from gpunet.random import Purpose, host_generator

# Inputs of the two-weight problem: uniform, of the same mean square 1/3.
RANGES = {"positive": (0.0, 1.0), "zero-centred": (-1.0, 1.0)}
START, OPTIMUM = np.array([-1.0, 1.0]), np.array([1.0, -1.0])
EXTENT = 2.5  # of the drawn part of the plane
TOLERANCE = 0.1  # steps are counted until the distance to the optimum is this share of the first
ACTIVATIONS = ("sigmoid", "relu", "tanh", "leaky_relu", "elu")

SLOWER = 1.5
LONGER = 1.2
FEW = 0.1


def measure(settings: Settings) -> dict[str, Any]:
    """Follow gradient descent on two weights, and look at the signs of gradients inside networks."""
    orders = 3 if settings.quick else 20
    rates = [0.5, 1.0] if settings.quick else [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0]
    batch_sizes = [1, 4] if settings.quick else [1, 2, 4, 8, 16, 32, 64]
    return {
        "tolerance": TOLERANCE,
        "orders": orders,
        "paths": {name: _fastest(settings, name, rates, orders) for name in RANGES},
        "batch_sizes": batch_sizes,
        "signs": {name: _signs_in_network(settings, name, batch_sizes) for name in ACTIVATIONS},
    }


def _fastest(settings: Settings, name: str, rates: list[float], orders: int) -> dict[str, Any]:
    """Return what descent with the learning rate that needs the fewest steps, on average, does."""
    limit = 60 if settings.quick else 400
    best: dict[str, Any] = {}
    for rate in rates:
        runs = [_descend(settings, RANGES[name], rate, limit, order) for order in range(orders)]
        steps = float(np.mean([len(path) - 1 for path in runs]))
        if best and steps >= best["steps"]:
            continue
        moves = [np.diff(path, axis=0) for path in runs]
        straight = float(np.linalg.norm(OPTIMUM - START)) * (1 - TOLERANCE)
        best = {
            "learning_rate": rate,
            "steps": steps,
            "length_over_straight": float(np.mean([np.linalg.norm(move, axis=1).sum() for move in moves])) / straight,
            "same_sign": float(np.mean(np.prod(np.concatenate(moves), axis=1) > 0)),
            "reached": bool(all(np.linalg.norm(path[-1] - OPTIMUM) <= _radius() for path in runs)),
            "path": sorted(runs, key=len)[orders // 2].tolist(),
            "curvature": _curvature(RANGES[name]),
        }
    return best


def _descend(settings: Settings, bounds: tuple[float, float], rate: float, limit: int, order: int) -> Array:
    """Return the weights (steps + 1, 2) of a linear unit trained by one example at a time, until they are close."""
    inputs = host_generator(settings.seed, Purpose.NOISE, order).uniform(*bounds, (limit, 2))
    targets = inputs @ OPTIMUM[:, np.newaxis]
    unit = settings.network([2, 1], loss="squared_error", dtype="float64")
    path = [START]
    for x, t in zip(inputs, targets, strict=True):
        if np.linalg.norm(path[-1] - OPTIMUM) <= _radius():
            break
        unit.set_parameters({"W1": path[-1][np.newaxis]})  # the bias stays 0: two weights can be drawn
        _, gradients = unit.loss_and_gradients(x[np.newaxis], t[np.newaxis])
        path.append(path[-1] - rate * gradients["W1"][0])
    return np.array(path)


def _radius() -> float:
    return TOLERANCE * float(np.linalg.norm(OPTIMUM - START))


def _curvature(bounds: tuple[float, float]) -> list[list[float]]:
    """Return E[x x^T], the second derivative of J, for independent uniform inputs."""
    low, high = bounds
    mean, variance = (low + high) / 2, (high - low) ** 2 / 12
    return (variance * np.eye(2) + mean**2).tolist()


def _signs_in_network(settings: Settings, activation: str, batch_sizes: list[int]) -> dict[str, Any]:
    """Return how one-sided the gradients of the second layer's units are, after some training on the digits."""
    width, batches = (10, 5) if settings.quick else (50, 50)
    digits = split_digits(settings.seed)
    network = settings.network([INPUTS, width, width, CLASSES], activation=activation, batch_norm=False)
    digits.fit(network, 0.1, epochs=2, batch_size=32)
    generator = host_generator(settings.seed, Purpose.NOISE)
    found: dict[str, Any] = {"one_sign": [], "balance": []}
    for size in batch_sizes:
        chosen = [generator.choice(len(digits.y), size, replace=False) for _ in range(batches)]
        rows = np.concatenate([_second_layer_gradients(network, digits.X[i], digits.y[i]) for i in chosen])
        found["one_sign"].append(float(((rows >= 0).all(axis=1) | (rows <= 0).all(axis=1)).mean()))
        # abs(sum_j g_j) / sum_j abs(g_j)
        sums = np.abs(rows.sum(axis=1, dtype=np.float64)) / np.abs(rows).sum(axis=1, dtype=np.float64)
        found["balance"].append(float(sums.mean()))
    return found


def _second_layer_gradients(network: Network, X: Array, y: Array) -> Array:
    """Return dJ/dw_i, one row for each unit of the second layer that gets a gradient at all."""
    gradient = network.loss_and_gradients(X, y)[1]["W2"]
    return gradient[np.abs(gradient).max(axis=1) > 0]


def about(numbers: Numbers) -> str:
    sigmoid, tanh = (numbers["signs"][name]["balance"][-1] for name in ("sigmoid", "tanh"))
    return (
        "The upper panels show a linear unit learning two weights from one example at a time, from the dot to the star "
        "(the run of median length of each kind of inputs, at its best learning rate): the gradient (h - t) x is a "
        "multiple of x. Below, networks learn the digits: on the left the units of the second hidden layer whose "
        "weights' gradients have no two opposite signs; on the right how one-sided they stay, the sum of their "
        f"components being, with {numbers['batch_sizes'][-1]} examples, {sigmoid:.0%} of the sum of absolute values "
        f"after sigmoid and {tanh:.0%} after tanh."
    )


def claims(numbers: Numbers) -> Claims:
    positive, centred = numbers["paths"]["positive"], numbers["paths"]["zero-centred"]
    one_sign = {name: signs["one_sign"] for name, signs in numbers["signs"].items()}
    sigmoid, relu, tanh = (one_sign[name][0] for name in ("sigmoid", "relu", "tanh"))
    lengths = positive["length_over_straight"], centred["length_over_straight"]
    return {
        "moves_share_a_sign": Claim(
            "With inputs in [0, 1] every step moves both weights the same way, with those in [-1, 1] not",
            positive["same_sign"] == 1 and centred["same_sign"] < 1,
            f"{positive['same_sign']:.0%} of the steps and {centred['same_sign']:.0%}",
        ),
        "slower": Claim(
            f"The zig-zag takes {SLOWER:g} times the steps to within {numbers['tolerance']:.0%} of the first distance",
            positive["steps"] >= SLOWER * centred["steps"],
            f"{positive['steps']:.0f} against {centred['steps']:.0f}, means of {numbers['orders']} runs",
        ),
        "longer": Claim(
            f"Its way is {LONGER:g} times as long",
            lengths[0] >= LONGER * lengths[1],
            f"{lengths[0]:.1f} times the straight line against {lengths[1]:.1f}",
        ),
        "in_networks": Claim(
            "For single examples every unit's gradients share a sign after sigmoid and ReLU, neither zero-centred, and "
            f"fewer than {FEW:.0%} of them after tanh",
            sigmoid == 1 == relu and tanh < FEW,
            f"{sigmoid:.0%}, {relu:.0%} and {tanh:.1%}",
        ),
        "batches_help": Claim(
            "Averaging over a batch softens this",
            one_sign["sigmoid"][-1] < sigmoid,
            f"{one_sign['sigmoid'][-1]:.0%} after sigmoid with {numbers['batch_sizes'][-1]} examples",
        ),
    }


def draw(numbers: Numbers) -> Figure:
    figure, axes = panels(2, 2, width=1.25, height=1.1)
    for panel, (name, path) in zip(axes[0], numbers["paths"].items(), strict=True):
        _draw_path(panel, name, path)
    legend(axes[0, 1], "upper left", bbox_to_anchor=(1, 1))
    titles = {"one_sign": ("share of units", "gradient of one sign")}
    titles["balance"] = ("$|\\Sigma_j\\,g_j|$ / $\\Sigma_j\\,|g_j|$", "how one-sided it is")
    for panel, (key, (y, title)) in zip(axes[1], titles.items(), strict=True):
        draw_lines(panel, {name: signs[key] for name, signs in numbers["signs"].items()}, numbers["batch_sizes"])
        label(panel, "batch size", y, title)
        name_ticks(panel, numbers["batch_sizes"], base=2)
        panel.set_ylim(-0.03, 1.03)
    legend(axes[1, 1], "upper left", title="activation", bbox_to_anchor=(1, 1))
    return figure


def _draw_path(panel: Any, name: str, path: Numbers) -> None:
    ticks = np.linspace(-EXTENT, EXTENT, 101)
    offsets = np.stack(np.meshgrid(ticks, ticks), axis=-1) - OPTIMUM
    cost = 0.5 * np.einsum("...i,ij,...j", offsets, np.array(path["curvature"]), offsets)
    # Grey, which no path has.
    panel.contour(ticks, ticks, cost, levels=np.geomspace(0.01, 4, 9), colors="0.7", linewidths=0.8, zorder=1)
    panel.plot([], [], color="0.7", linewidth=0.8, label="equal cost")
    weights = np.array(path["path"])
    line = {"color": COLOURS[1], "linewidth": 1.2, "marker": ".", "markersize": 4, "label": "weights, step by step"}
    panel.plot(*weights.T, zorder=2, **line)
    panel.plot(*START, "o", color=COLOURS[6], zorder=3, label="start")
    panel.plot(*OPTIMUM, "*", color=COLOURS[6], markersize=12, zorder=3, label="optimum")
    panel.set_xlim(-EXTENT, EXTENT)
    panel.set_ylim(-EXTENT, EXTENT)
    title = f"{name} inputs, learning rate {path['learning_rate']:g}: {len(weights) - 1} steps"
    label(panel, "weight $w_1$", "weight $w_2$", title)
