"""L9: the perceptron's updates, how many mistakes it makes against Novikoff's bound, and classes that overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.classic.perceptron import Perceptron
from gpunet.classic.separability import separation
from gpunet.lecture.experiment import Numbers, Settings
from gpunet.lecture.plane import LINE, clouds, draw_points, rounded
from gpunet.lecture.plotting import COLOURS, MAP, MARKERS, STYLES, label, panels
from gpunet.lecture.wording import tiny
from gpunet.random import Purpose, host_generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

NORMAL = np.array([0.6, 0.8, 0.15])  # the line that the separable classes keep their distance from, and its bias
MARGINS = (0.4, 0.2, 0.1, 0.05, 0.02, 0.01)
POINTS_SHOWN_MARGIN = 0.1
OVERLAPPING = [(-0.7, -0.4), (0.7, 0.4)]
TEST_ROWS = 2000

# Thresholds of the claims.
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
    weights: list[list[float]] = []
    losses, errors = [], [0.0]
    before = np.zeros(3)
    while not weights or model.history_["mistakes"][-len(X) :] != [0] * len(X):
        for row in range(len(X)):
            mistakes = 0 if not weights else model.mistakes_
            model.partial_fit(X[row : row + 1], y[row : row + 1], classes=[0, 1])
            if model.mistakes_ > mistakes:
                weights.append([*model.coef_.tolist(), model.intercept_])
                after = np.array(weights[-1])
                losses.append(float(np.maximum(0, -signs * (inputs @ after)).mean()))
                # At a score of 0 the loss has a kink and no gradient.
                if abs(inputs[row] @ before) > 10 * STEP:
                    gradient = _loss_gradient(inputs[row], int(signs[row]), before)
                    errors.append(float(np.abs(after - before + gradient).max()))
                before = after
    return {
        "X": rounded(X),
        "y": y.tolist(),
        "weights": weights,
        "losses": losses,
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


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show.

    ``descends_the_loss``: every update is minus the gradient of the perceptron loss of its example, and the mean loss
    ends at 0. ``separates``: every run on separable classes ended without a mistake on its examples.
    ``within_bound``: none made more mistakes than Novikoff's bound. ``small_margins_cost``: the smallest margin made at
    least 3 times the mistakes of the largest. ``averaging_helps``: on overlapping classes the average's accuracy after
    the last epoch is at least a percentage point higher, in the mean. ``averaging_steadies``: it varies less than half
    as much from epoch to epoch.
    """
    mistakes = _mean_mistakes(numbers)
    last = {name: np.mean(_last(numbers, name)) for name in ("plain", "averaged")}
    wobble = {name: _wobble(numbers, name) for name in ("plain", "averaged")}
    return {
        "descends_the_loss": numbers["path"]["gradient_error"] < GRADIENTS_AGREE and numbers["path"]["losses"][-1] == 0,
        "separates": all(run["accuracy"] == 1 for run in [numbers["path"], *numbers["bound"]]),
        "within_bound": all(run["mistakes"] <= run["bound"] for run in numbers["bound"]),
        "small_margins_cost": mistakes[min(mistakes)] >= MORE_MISTAKES * mistakes[max(mistakes)],
        "averaging_helps": bool(last["averaged"] >= last["plain"] + MORE_ACCURATE),
        "averaging_steadies": wobble["averaged"] < STEADIER * wobble["plain"],
    }


def _mean_mistakes(numbers: Numbers) -> dict[float, float]:
    """Return the mean number of mistakes for each margin asked for."""
    asked = sorted({run["asked"] for run in numbers["bound"]})
    return {
        margin: float(np.mean([run["mistakes"] for run in numbers["bound"] if run["asked"] == margin]))
        for margin in asked
    }


def _last(numbers: Numbers, name: str) -> list[float]:
    """Return each run's accuracy after the last epoch."""
    return [run[-1] for run in numbers["overlapping"][name]]


def _wobble(numbers: Numbers, name: str) -> float:
    """Return the mean change of the accuracy from one epoch to the next."""
    return float(np.abs(np.diff(numbers["overlapping"][name], axis=1)).mean())


def describe(numbers: Numbers) -> str:
    """Say what to look at and what this run showed."""
    shown, mistakes = claims(numbers), _mean_mistakes(numbers)
    closest = max(run["mistakes"] / run["bound"] for run in numbers["bound"])
    within = (
        f"no run exceeds it, and the nearest makes {closest:.0%} of it"
        if shown["within_bound"]
        else "some run exceeds it, which must not happen"
    )
    end = "ends with every example right" if shown["separates"] else "does not end with every example right everywhere"
    cost = "small margins cost mistakes" if shown["small_margins_cost"] else "small margins cost few mistakes more"
    plain, averaged = (np.mean(_last(numbers, name)) for name in ("plain", "averaged"))
    descends = "is" if shown["descends_the_loss"] else "should be, but is not,"
    path = numbers["path"]
    helps = "is more accurate" if shown["averaging_helps"] else "is not clearly more accurate"
    steadies = "steadier" if shown["averaging_steadies"] else "not clearly steadier"
    return (
        "On the left each line is the decision boundary after one of the "
        f"{len(numbers['path']['weights'])} updates w <- w + y x, from dark to light; an update turns the boundary "
        "towards the example it got wrong, examples that are right change nothing, and on classes that a line "
        f"separates, learning {end}. The update {descends} a step of gradient descent at learning rate 1 on the "
        "perceptron loss of that example, max(0, -y (w x + b)) (largest difference from central differences "
        f"{tiny(path['gradient_error'])}); the second panel has its mean over all examples, from "
        f"{path['losses'][0]:.2f} after the first update to {path['losses'][-1]:.2g} after the last; it rises with "
        f"{int((np.diff(path['losses']) > 0).sum())} of them, since each update looks at one example. In "
        f"the third panel each mark is one such run: {cost} "
        f"({mistakes[max(mistakes)]:.0f} on average at {max(mistakes):g}, {mistakes[min(mistakes)]:.0f} at "
        f"{min(mistakes):g}); Novikoff's bound (R / gamma)^2, computed for each set from its best line, allows for the "
        f"worst order and the worst data: {within}. On the right the classes overlap, and learning never ends: the "
        f"test accuracy of w jumps with the last mistakes it happened to make, while the average of w over all "
        f"examples seen {helps} after the last epoch ({averaged:.1%} against {plain:.1%}, means of "
        f"{len(numbers['overlapping']['plain'])} runs) and {steadies} (changes from epoch to epoch of "
        f"{100 * _wobble(numbers, 'averaged'):.2f} against {100 * _wobble(numbers, 'plain'):.2f} percentage points)."
    )


def draw(numbers: Numbers) -> Figure:
    """Draw boundary and loss after each update, mistakes over the margin, and accuracy on overlapping classes."""
    figure, axes = panels(1, 4, width=0.95, height=1.1)
    _draw_path(axes[0, 0], numbers["path"])
    _draw_losses(axes[0, 1], numbers["path"]["losses"])
    _draw_bound(axes[0, 2], numbers["bound"])
    _draw_overlapping(axes[0, 3], numbers["overlapping"])
    return figure


def _draw_path(panel: Any, path: Numbers) -> None:
    from matplotlib import colormaps

    extent = 1.1
    for number, (first, second, bias) in enumerate(path["weights"]):
        is_last = number + 1 == len(path["weights"])
        norm = first**2 + second**2
        if norm == 0:
            continue
        foot, along = -bias / norm * np.array([first, second]), np.array([-second, first]) / np.sqrt(norm)
        ends = np.array([foot - 4 * along, foot + 4 * along])
        shade = LINE if is_last else colormaps[MAP](0.9 * number / len(path["weights"]))
        panel.plot(*ends.T, color=shade, linewidth=2.2 if is_last else 0.9)
    draw_points(panel, path["X"], path["y"], size=16)
    panel.set_xlim(-extent, extent)
    panel.set_ylim(-extent, extent)
    panel.set_aspect("equal")
    label(panel, x="$x_1$", y="$x_2$", title=f"after each of {len(path['weights'])} updates; black: the last")


def _draw_losses(panel: Any, losses: list[float]) -> None:
    panel.plot(range(1, len(losses) + 1), losses, color=COLOURS[0], marker=MARKERS[0], markersize=4)
    panel.xaxis.get_major_locator().set_params(integer=True)
    label(panel, x="update", y="mean of max(0, -y (w x + b))", title="perceptron loss, the same run")


def _draw_bound(panel: Any, runs: list[Numbers]) -> None:
    margins = np.array([run["margin"] for run in runs])
    ticks = np.geomspace(margins.min(), margins.max(), 50)
    panel.loglog(ticks, ticks**-2, "--", color=COLOURS[1], label="bound $(R/\\gamma)^2$")
    panel.loglog(margins, [run["mistakes"] for run in runs], "o", color=COLOURS[0], markersize=4, label="one run")
    label(panel, x="margin $\\gamma / R$", y="mistakes until none is left", title="separable classes")
    panel.legend(fontsize=8)


def _draw_overlapping(panel: Any, accuracies: Numbers) -> None:
    for place, (name, title) in enumerate({"plain": "w", "averaged": "average of w"}.items()):
        runs = np.array(accuracies[name])
        epochs = np.arange(1, runs.shape[1] + 1)
        low, high = np.quantile(runs, [0.1, 0.9], axis=0)
        panel.fill_between(epochs, low, high, color=COLOURS[place], alpha=0.18, linewidth=0)
        panel.plot(
            epochs,
            runs.mean(axis=0),
            color=COLOURS[place],
            linestyle=STYLES[place],
            marker=MARKERS[place],
            markersize=3,
            label=f"{title} (mean, 10-90 % of runs)",
        )
    label(panel, x="epoch", y=f"accuracy on {accuracies['test_rows']} test points", title="overlapping classes")
    low, high = panel.get_ylim()
    panel.set_ylim(low - 0.3 * (high - low), high)
    panel.legend(fontsize=8, loc="lower right")
