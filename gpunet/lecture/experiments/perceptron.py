"""L9: the perceptron's updates, how many mistakes it makes against Novikoff's bound, and classes that overlap."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.classic.perceptron import Perceptron
from gpunet.classic.separability import separation
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plane import COORDINATES, LINE, clouds, draw_line, draw_points, name_what_is_drawn
from gpunet.lecture.plotting import COLOURS, MAP, Figure, draw_lines, draw_range, label, legend, look, panels
from gpunet.lecture.wording import rounded, tiny
from gpunet.random import Purpose, host_generator

NORMAL = np.array([0.6, 0.8, 0.15])  # the line that the separable classes keep their distance from, and its bias
MARGINS = (0.4, 0.2, 0.1, 0.05, 0.02, 0.01)
POINTS_SHOWN_MARGIN = 0.1
OVERLAPPING = [(-0.7, -0.4), (0.7, 0.4)]
TEST_ROWS = 2000

GRADIENTS_AGREE = 1e-8
MORE_MISTAKES = 3.0
MORE_ACCURATE = 0.01
STEADIER = 0.5

STEP = 1e-6  # of the central differences


def measure(settings: Settings) -> dict[str, Any]:
    """Train on separable classes of several margins, and on overlapping ones with and without averaging."""
    runs, rows = (2, 40) if settings.quick else (10, 200)
    return {
        "path": _path(settings),
        "bound": [_against_bound(settings, margin, run, rows) for margin in MARGINS for run in range(runs)],
        "overlapping": _overlapping(settings, runs=2 if settings.quick else 20, epochs=5 if settings.quick else 30),
    }


def _separable(settings: Settings, margin: float, rows: int, index: int) -> tuple[Array, Array]:
    """Return points of a square, (rows, 2), that keep a distance from a line, and their labels."""
    generator = host_generator(settings.seed, Purpose.NOISE, index)
    points = generator.uniform(-1, 1, (20 * rows, 2))
    scores = (points @ NORMAL[:2] + NORMAL[2]) / np.linalg.norm(NORMAL)
    kept = np.flatnonzero(np.abs(scores) >= margin)[:rows]
    return points[kept], (scores[kept] > 0).astype(np.int64)


def _path(settings: Settings) -> dict[str, Any]:
    """Return weights and mean loss after every update, for a set small enough to see, and how it fits the gradient."""
    X, y = _separable(settings, POINTS_SHOWN_MARGIN, 60, 0)
    signs, inputs = 2 * y - 1, np.column_stack([X, np.ones(len(X))])
    model = Perceptron()
    weights, errors = [np.zeros(3)], [0.0]
    updates_before = -1
    while len(weights) > updates_before:  # until an epoch without a mistake
        updates_before = len(weights)
        for row, x in enumerate(inputs):
            model.partial_fit(X[row : row + 1], y[row : row + 1], classes=[0, 1])
            if model.mistakes_ == len(weights):
                weights.append(np.append(model.coef_, model.intercept_))
                # At a score of 0 the loss has a kink and no gradient.
                if abs(x @ weights[-2]) > 10 * STEP:
                    gradient = _loss_gradient(x, int(signs[row]), weights[-2])
                    errors.append(float(np.abs(weights[-1] - weights[-2] + gradient).max()))
    return {
        "X": rounded(X),
        "y": y.tolist(),
        "weights": [w.tolist() for w in weights[1:]],
        "losses": [float(np.maximum(0, -signs * (inputs @ w)).mean()) for w in weights[1:]],
        "gradient_error": max(errors),
        "accuracy": model.score(X, y),
    }


def _loss_gradient(x: Array, sign: int, w: Array) -> Array:
    """Return the gradient of the perceptron loss max(0, -y w x) with respect to w, by central differences."""
    above, below = (np.maximum(0, -sign * ((w + step * np.eye(len(w))) @ x)) for step in (STEP, -STEP))
    gradient: Array = (above - below) / (2 * STEP)
    return gradient


def _against_bound(settings: Settings, margin: float, run: int, rows: int) -> dict[str, float]:
    X, y = _separable(settings, margin, rows, 1 + run)
    best = separation(X, y)
    model = Perceptron(max_epochs=None, seed=settings.seed + run).fit(X, y)
    return {
        "asked": margin,
        "margin": best.margin / best.radius,
        "mistakes": model.mistakes_,
        "bound": best.mistake_bound,
        "accuracy": model.score(X, y),
    }


def _overlapping(settings: Settings, runs: int, epochs: int) -> dict[str, Any]:
    """Return the test accuracy after each epoch, for each run, of w and of its average."""
    accuracies: dict[str, list[list[float]]] = {"plain": [], "averaged": []}
    for run in range(runs):
        generator = host_generator(settings.seed, Purpose.NOISE, 1000 + run)
        X, y = clouds(200 + TEST_ROWS, OVERLAPPING, 0.8, generator)
        orders = [generator.permutation(200) for _ in range(epochs)]
        for name, found in accuracies.items():
            model = Perceptron(averaged=name == "averaged")
            found.append([])
            for order in orders:
                model.partial_fit(X[:200][order], y[:200][order])
                found[-1].append(model.score(X[200:], y[200:]))
    return {"test_rows": TEST_ROWS, **accuracies}


def about(numbers: Numbers) -> str:
    losses = numbers["path"]["losses"]
    return (
        f"On the left each line is the decision boundary after one of {len(losses)} updates w <- w + y x, from dark to "
        "light. The second panel has the mean loss over all examples; it rises with "
        f"{int((np.diff(losses) > 0).sum())} of the updates, since each looks at one example. In the third each mark "
        "is such a run, under Novikoff's bound (R / gamma)^2, which allows for the worst order and data. On the right "
        "the classes overlap, and the test accuracy of w jumps with the last mistakes it happened to make."
    )


def claims(numbers: Numbers) -> Claims:
    path, bound, mistakes = numbers["path"], numbers["bound"], _mean_mistakes(numbers)
    narrowest, widest = min(mistakes), max(mistakes)
    accuracies = [np.array(numbers["overlapping"][name]) for name in ("plain", "averaged")]
    plain, averaged = (float(one[:, -1].mean()) for one in accuracies)
    jumps, steps = (100 * float(np.abs(np.diff(one, axis=1)).mean()) for one in accuracies)
    exact = [run["accuracy"] == 1 for run in [path, *bound]]
    closest = max(run["mistakes"] / run["bound"] for run in bound)
    return {
        "descends_the_loss": Claim(
            "An update is a step of gradient descent, at rate 1, on its example's loss max(0, -y (w x + b)), and the "
            "mean loss ends at 0",
            path["gradient_error"] < GRADIENTS_AGREE and path["losses"][-1] == 0,
            f"largest difference from central differences {tiny(path['gradient_error'])}",
        ),
        "separates": Claim(
            "On classes that a line separates, every run ends with every example right",
            all(exact),
            f"{sum(exact)} of {len(exact)}",
        ),
        "small_margins_cost": Claim(
            f"Small margins cost mistakes: the smallest {MORE_MISTAKES:g} times those of the largest",
            mistakes[narrowest] >= MORE_MISTAKES * mistakes[widest],
            f"{mistakes[widest]:.0f} on average at {widest:g}, {mistakes[narrowest]:.0f} at {narrowest:g}",
        ),
        "within_bound": Claim("No run exceeds the bound", closest <= 1, f"the nearest makes {closest:.0%} of it"),
        "averaging_helps": Claim(
            f"The average of w over all examples seen is more accurate in the end, by {MORE_ACCURATE:.0%} or more",
            averaged >= plain + MORE_ACCURATE,
            f"{averaged:.1%} against {plain:.1%}, means of {len(accuracies[0])} runs",
        ),
        "averaging_steadies": Claim(
            f"From epoch to epoch it changes less than {STEADIER:g} times as much",
            steps < STEADIER * jumps,
            f"{steps:.2f} against {jumps:.2f} percentage points",
        ),
    }


def _mean_mistakes(numbers: Numbers) -> dict[float, float]:
    """Return the mean number of mistakes for each margin asked for."""
    mistakes: dict[float, list[int]] = {}
    for run in numbers["bound"]:
        mistakes.setdefault(run["asked"], []).append(run["mistakes"])
    return {margin: float(np.mean(found)) for margin, found in mistakes.items()}


def draw(numbers: Numbers) -> Figure:
    figure, ((path, loss, bound, overlapping),) = panels(1, 4, width=0.95, height=1.1)
    _draw_path(path, numbers["path"])
    draw_lines(loss, {"": numbers["path"]["losses"]})
    label(loss, "update", "mean of $\\max(0, -y\\,(w x + b))$", "perceptron loss, the same run", whole=True)
    _draw_bound(bound, numbers["bound"])
    _draw_overlapping(overlapping, numbers["overlapping"])
    return figure


def _draw_path(panel: Any, path: Numbers) -> None:
    from matplotlib import colormaps

    updates = len(path["weights"])
    for number, weights in enumerate(path["weights"]):
        is_last = number + 1 == updates
        shade = LINE if is_last else colormaps[MAP](0.9 * number / updates)
        name = {0: "first line", updates - 1: "last line"}.get(number)
        draw_line(panel, weights, color=shade, linewidth=2.2 if is_last else 0.9, label=name)
    draw_points(panel, path["X"], path["y"], size=16)
    panel.set_xlim(-1.1, 1.1)
    panel.set_ylim(-1.1, 1.1)
    panel.set_aspect("equal")
    label(panel, *COORDINATES, f"boundary after each of {updates} updates")
    name_what_is_drawn(panel)


def _draw_bound(panel: Any, runs: list[Numbers]) -> None:
    margins = np.array([run["margin"] for run in runs])
    ticks = np.geomspace(margins.min(), margins.max(), 50)
    panel.plot(ticks, ticks**-2, "--", color=COLOURS[1], label="bound $(R/\\gamma)^2$")
    panel.plot(margins, [run["mistakes"] for run in runs], "o", color=COLOURS[0], markersize=4, label="one run")
    label(panel, "margin $\\gamma / R$", "mistakes until none is left", "separable classes", scale="xy")
    legend(panel)


def _draw_overlapping(panel: Any, accuracies: Numbers) -> None:
    for place, (name, title) in enumerate({"plain": "$w$", "averaged": "average of $w$"}.items()):
        runs = np.array(accuracies[name])
        style = look(place, 3) | {"label": f"{title} (mean, 10-90 % of runs)"}
        draw_range(panel, range(1, runs.shape[1] + 1), runs, (0.1, 0.9), **style)
    label(panel, "epoch", f"accuracy on {accuracies['test_rows']} test points", "overlapping classes")
    low, high = panel.get_ylim()
    panel.set_ylim(low - 0.3 * (high - low), high)
    legend(panel, "lower right")
