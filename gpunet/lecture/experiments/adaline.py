"""L10: ADALINE's error over the epochs for learning rates below, near and above the bound of its stability."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.classic.adaline import Adaline, rate_bound, single_example_bound
from gpunet.errors import InvalidValueError
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import COLOURS, MARKERS, Figure, draw_lines, label, legend, panels
from gpunet.lecture.wording import listing
from gpunet.random import Purpose, host_generator

ROWS, INPUTS = 200, 4
RATES_DRAWN = (0.1, 0.5, 0.9, 0.99, 1.01, 1.03)  # of the bound 2 / lambda_max
SINGLE_RATES_DRAWN = (0.5, 0.1, 0.02)  # of the bound 2 / max ||x||^2
RATES_SWEPT = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.03, 1.1)
SMALLEST_EXCESS = 1e-16  # stands for all below it, which is rounding

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
    eigenvalues = np.linalg.eigvalsh(inputs.T @ inputs / ROWS)
    epochs = 30 if settings.quick else 200

    def offsets(part: float) -> list[Array]:
        """Return (w, b) less the solution after each epoch, all examples at once; partial_fit refuses no rate."""
        model, found = Adaline(learning_rate=part * bound, batch_size=None), []
        for _ in range(epochs):
            model.partial_fit(X, y)
            found.append(np.append(model.coef_, model.intercept_) - solution)
        return found

    def refused(part: float) -> bool:
        try:
            Adaline(learning_rate=part * bound, batch_size=None, epochs=1).fit(X, y)
        except InvalidValueError:
            return True
        return False

    def losses(part: float) -> list[float]:
        model = Adaline(learning_rate=part * single, epochs=epochs, seed=settings.seed).fit(X, y)
        return [max(loss - smallest_loss, SMALLEST_EXCESS) for loss in model.history_["loss"]]

    return {
        "epochs": epochs,
        "bound": bound,
        "single_bound": single,
        "smallest_loss": smallest_loss,
        # mean((y - X w)^2) - mean((y - X w*)^2) = mean((X (w - w*))^2), without the cancellation.
        "all_at_once": {
            f"{part:g}": [max(float(np.mean((inputs @ offset) ** 2)), SMALLEST_EXCESS) for offset in offsets(part)]
            for part in RATES_DRAWN
        },
        "single": {f"{part:g}": losses(part) for part in SINGLE_RATES_DRAWN},
        "sweep": [
            {
                "part": part,
                "measured": _pace(offsets(part), 1e-12 * float(np.linalg.norm(solution))),
                "predicted": float(np.abs(1 - part * bound * eigenvalues).max()),
                "refused": refused(part),
            }
            for part in RATES_SWEPT
        ],
    }


def _pace(offsets: list[Array], smallest: float) -> float:
    """Return the factor by which the distance to the solution changes per epoch, in the last that is not rounding."""
    distances = np.array([np.linalg.norm(offset) for offset in offsets])
    last = np.flatnonzero(distances > smallest)[-1]
    return float(distances[last] / distances[last - 1])


def _settled(curve: list[float]) -> float:
    """Return the mean over the last quarter of the epochs."""
    return float(np.mean(curve[-(len(curve) // 4) :]))


def about(numbers: Numbers) -> str:
    return (
        "Curves show by how much the mean of (y - yhat)^2 exceeds that of the least-squares solution, "
        f"{numbers['smallest_loss']:.3f}. On the left every update uses all examples: with lambda_max the largest "
        f"eigenvalue of their correlation matrix, the bound is 2 / lambda_max = {numbers['bound']:.3f}. In the middle "
        "is the factor by which the distance to the solution changes in an epoch. On the right the rule takes one "
        "example at a time: examples that contradict one another keep the weights moving."
    )


def claims(numbers: Numbers) -> Claims:
    sweep, curves = numbers["sweep"], numbers["all_at_once"]
    ends = {part: _settled(curve) for part, curve in numbers["single"].items()}
    (largest, first), *_, (smallest, last) = ends.items()
    return {
        "bound_decides": Claim(
            "Below the bound the distance to the solution shrinks, above it grows",
            all((step["measured"] < 1) == (step["part"] < 1) for step in sweep),
            f"the excess after {numbers['epochs']} epochs is "
            + listing(f"{curves[part][-1]:.0e} at {part}" for part in ("0.5", "0.99", "1.01")),
        ),
        "as_told": Claim.agree(
            "It does so at theory's pace, max |1 - eta lambda|",
            max(abs(step["measured"] - step["predicted"]) for step in sweep),
            AGREES,
        ),
        "refused": Claim(
            "fit refuses the rates above the bound and no other",
            all(step["refused"] == (step["part"] >= 1) for step in sweep),
            f"refused: {listing(step['part'] for step in sweep if step['refused'])}",
        ),
        "single_examples_stay_off": Claim(
            f"With single examples an excess stays, {LOWER:g} times smaller at the smallest rate than at the largest",
            min(ends.values()) > SMALLEST_EXCESS and last < first / LOWER,
            f"over the last quarter {first:.0e} on average at {largest} of 2 / max ||x||^2 = "
            f"{numbers['single_bound']:.3f}, {last:.0e} at {smallest}",
        ),
    }


def draw(numbers: Numbers) -> Figure:
    figure, ((left, middle, right),) = panels(1, 3, width=1.15, height=1.15)
    titles = {"all_at_once": "all examples at once", "single": "one example at a time"}
    for panel, (name, title) in zip((left, right), titles.items(), strict=True):
        draw_lines(panel, numbers[name], size=None)
        label(panel, "epoch", "excess of the mean squared error", title, scale="y")
    left.set_ylim(SMALLEST_EXCESS / 10, 1e12)
    right.set_ylim(top=10)
    legend(left, "upper left", title="rate / bound", ncols=3)
    legend(right, "upper right", title="rate / (2 / max $||x||^2$)", ncols=3)

    sweep = numbers["sweep"]
    parts, predicted = ([step[key] for step in sweep] for key in ("part", "predicted"))
    middle.plot(parts, predicted, "--", color=COLOURS[1], label="max $|1-\\eta\\lambda|$")
    for refused, place, title in ((False, 0, "measured"), (True, 6, "measured; refused by fit")):
        points = [(step["part"], step["measured"]) for step in sweep if step["refused"] == refused]
        middle.plot(*zip(*points, strict=True), MARKERS[place], color=COLOURS[place], markersize=5, label=title)
    middle.axhline(1, color=COLOURS[6], linewidth=0.8)
    label(middle, "rate / bound $2/\\lambda_{max}$", "factor of the distance per epoch", "pace in the end")
    legend(middle, "upper left")
    return figure
