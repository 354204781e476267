"""L10: ADALINE's error over the epochs for learning rates below, near and above the bound of its stability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.classic.adaline import Adaline, rate_bound, single_example_bound
from gpunet.errors import InvalidValueError
from gpunet.lecture.experiment import Numbers, Settings
from gpunet.lecture.plotting import COLOURS, MARKERS, STYLES, label, panels
from gpunet.random import Purpose, host_generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

ROWS, INPUTS = 200, 4
RATES_DRAWN = (0.1, 0.5, 0.9, 0.99, 1.01, 1.03)  # of the bound 2 / lambda_max
SINGLE_RATES_DRAWN = (0.5, 0.1, 0.02)  # of the bound 2 / max ||x||^2
RATES_SWEPT = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.03, 1.1)
SMALLEST_EXCESS = 1e-16  # stands for all below it, which is rounding

# Thresholds of the claims.
AGREES = 1e-3
LOWER = 3.0


def measure(settings: Settings) -> dict[str, Any]:
    """Train with all examples at once and with single ones, at rates that are fractions of the bounds."""
    generator = host_generator(settings.seed, Purpose.NOISE)
    X = generator.standard_normal((ROWS, INPUTS)) * np.linspace(0.5, 1.2, INPUTS) + 0.2
    y = np.where(X @ generator.standard_normal(INPUTS) + 0.6 * generator.standard_normal(ROWS) > 0, 1, -1)
    inputs = np.column_stack([X, np.ones(ROWS)])
    solution = np.linalg.lstsq(inputs, y, rcond=None)[0]
    bound, single = rate_bound(inputs), single_example_bound(inputs)
    smallest_loss = float(np.mean((y - inputs @ solution) ** 2))
    epochs = 30 if settings.quick else 200
    return {
        "epochs": epochs,
        "bound": bound,
        "single_bound": single,
        "smallest_loss": smallest_loss,
        "all_at_once": {f"{part:g}": _excess(X, y, solution, part * bound, epochs) for part in RATES_DRAWN},
        "single": {
            f"{part:g}": [
                max(loss - smallest_loss, SMALLEST_EXCESS)
                for loss in Adaline(learning_rate=part * single, epochs=epochs, seed=settings.seed)
                .fit(X, y)
                .history_["loss"]
            ]
            for part in SINGLE_RATES_DRAWN
        },
        "sweep": [_pace(X, y, inputs, solution, part, bound, epochs) for part in RATES_SWEPT],
    }


def _train(X: Array, y: Array, rate: float, epochs: int) -> tuple[Adaline, list[Array]]:
    """Return the estimator and (w, b) after each epoch, all examples at once; partial_fit refuses no rate."""
    model, weights = Adaline(learning_rate=rate, batch_size=None), []
    for _ in range(epochs):
        model.partial_fit(X, y)
        weights.append(np.append(model.coef_, model.intercept_))
    return model, weights


def _excess(X: Array, y: Array, solution: Array, rate: float, epochs: int) -> list[float]:
    """Return by how much the mean squared error exceeds that of the least-squares solution, after each epoch."""
    inputs = np.column_stack([X, np.ones(len(X))])
    _, weights = _train(X, y, rate, epochs)
    # mean((y - X w)^2) - mean((y - X w*)^2) = mean((X (w - w*))^2), without the cancellation.
    return [max(float(np.mean((inputs @ (w - solution)) ** 2)), SMALLEST_EXCESS) for w in weights]


def _pace(
    X: Array, y: Array, inputs: Array, solution: Array, part: float, bound: float, epochs: int
) -> dict[str, float | bool]:
    """Return the factor by which the distance to the solution changes per epoch in the end, and what it should be."""
    rate = part * bound
    model, weights = _train(X, y, rate, epochs)
    distances = np.array([np.linalg.norm(w - solution) for w in weights])
    usable = np.flatnonzero(distances > 1e-12 * np.linalg.norm(solution))
    last = int(usable[-1])
    eigenvalues = np.linalg.eigvalsh(inputs.T @ inputs / len(inputs))
    try:
        model.set_params(epochs=1).fit(X, y)
    except InvalidValueError:
        refused = True
    else:
        refused = False
    return {
        "part": part,
        "measured": float(distances[last] / distances[last - 1]),
        "predicted": float(np.abs(1 - rate * eigenvalues).max()),
        "refused": refused,
    }


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show.

    ``bound_decides``: below the bound the distance to the least-squares solution shrinks, above it grows. ``as_told``:
    at the pace max abs(1 - eta lambda), to a thousandth. ``refused``: fit refuses the rates above the bound and no
    other. ``single_examples_stay_off``: with single examples the error stays above the least-squares solution's, and
    the smallest rate ends at less than a third of the excess of the largest.
    """
    sweep = numbers["sweep"]
    ends = [_settled(curve) for curve in numbers["single"].values()]
    return {
        "bound_decides": all((step["measured"] < 1) == (step["part"] < 1) for step in sweep),
        "as_told": all(abs(step["measured"] - step["predicted"]) <= AGREES for step in sweep),
        "refused": all(step["refused"] == (step["part"] >= 1) for step in sweep),
        "single_examples_stay_off": min(ends) > SMALLEST_EXCESS and ends[-1] < ends[0] / LOWER,
    }


def _settled(curve: list[float]) -> float:
    """Return the mean over the last quarter of the epochs."""
    return float(np.mean(curve[-(len(curve) // 4) :]))


def _size(excess: float) -> str:
    return "down to rounding" if excess <= SMALLEST_EXCESS else f"{excess:.0e}"


def describe(numbers: Numbers) -> str:
    """Say what to look at and what this run showed."""
    shown, sweep = claims(numbers), numbers["sweep"]
    curves, single = numbers["all_at_once"], numbers["single"]
    decides = "exactly there" if shown["bound_decides"] else "not where the bound says"
    worst = max(abs(step["measured"] - step["predicted"]) for step in sweep)
    told = "as it should" if shown["as_told"] else "which is off"
    refused = (
        "fit refuses those rates, and only those"
        if shown["refused"]
        else "fit does not refuse exactly the rates above the bound"
    )
    parts = list(single)
    stay = (
        "keep the weights moving around the solution, the closer the smaller the rate is"
        if shown["single_examples_stay_off"]
        else "did not clearly end closer at smaller rates"
    )
    return (
        "All curves show by how much the mean of (y - yhat)^2 exceeds its least value, "
        f"{numbers['smallest_loss']:.3f}, that of the least-squares solution. On the left, every update uses all "
        f"examples: with lambda_max the largest eigenvalue of their correlation matrix, rates below 2 / lambda_max = "
        f"{numbers['bound']:.3f} converge and rates above diverge; here the change comes {decides} (after "
        f"{numbers['epochs']} epochs the excess is {_size(curves['0.5'][-1])} at half the bound, "
        f"{curves['0.99'][-1]:.0e} at 0.99 and {curves['1.01'][-1]:.0e} at 1.01 of it). In the middle, the factor by "
        f"which the distance to the solution changes in an epoch follows the theory's max |1 - eta lambda| to "
        f"{worst:.0e}, {told}; the best rate lies between the slowest direction's need and the steepest one's limit, "
        f"and {refused}. On the right, the "
        "Widrow-Hoff rule proper takes one example at a time, so that an epoch makes many updates and early progress "
        f"is fast; but examples that contradict one another {stay}: over the last quarter of the epochs the excess "
        f"is {_settled(single[parts[0]]):.0e} on average at {parts[0]} of 2 / max ||x||^2 = "
        f"{numbers['single_bound']:.3f}, and {_settled(single[parts[-1]]):.0e} at {parts[-1]} of it."
    )


def draw(numbers: Numbers) -> Figure:
    """Draw the excess error for both kinds of update, and the pace over the rate."""
    figure, axes = panels(1, 3, width=1.15, height=1.15)
    epochs = np.arange(1, numbers["epochs"] + 1)
    for panel, name in ((axes[0, 0], "all_at_once"), (axes[0, 2], "single")):
        for place, (part, curve) in enumerate(numbers[name].items()):
            panel.semilogy(epochs, curve, color=COLOURS[place], linestyle=STYLES[place], label=part)
    label(axes[0, 0], x="epoch", y="excess of the mean squared error", title="all examples at once")
    axes[0, 0].set_ylim(SMALLEST_EXCESS / 10, 1e12)
    axes[0, 0].legend(fontsize=8, title="rate / bound", title_fontsize=8, loc="upper left", ncols=3)
    label(axes[0, 2], x="epoch", y="excess of the mean squared error", title="one example at a time")
    axes[0, 2].set_ylim(top=10)
    axes[0, 2].legend(fontsize=8, title="rate / (2 / max $||x||^2$)", title_fontsize=8, loc="upper right", ncols=3)

    panel, sweep = axes[0, 1], numbers["sweep"]
    parts = [step["part"] for step in sweep]
    panel.plot(parts, [step["predicted"] for step in sweep], "--", color=COLOURS[1], label="max $|1-\\eta\\lambda|$")
    for refused, title in ((False, "measured"), (True, "measured; refused by fit")):
        steps = [step for step in sweep if step["refused"] == refused]
        panel.plot(
            [step["part"] for step in steps],
            [step["measured"] for step in steps],
            MARKERS[0] if not refused else MARKERS[6],
            color=COLOURS[0] if not refused else COLOURS[6],
            markersize=5,
            label=title,
        )
    panel.axhline(1, color=COLOURS[6], linewidth=0.8)
    label(panel, x="rate / bound $2/\\lambda_{max}$", y="factor of the distance per epoch", title="pace in the end")
    panel.legend(fontsize=8, loc="upper left")
    return figure
