"""L4: softmax, cross-entropy, its gradient p - y, the shift that keeps it finite, and J with L2 on every W_i."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.lecture.digits import CLASSES, INPUTS, split_digits
from gpunet.lecture.experiment import Numbers, Settings
from gpunet.lecture.plane import rounded
from gpunet.lecture.plotting import COLOURS, MARKERS, STYLES, label, panels
from gpunet.lecture.wording import tiny
from gpunet.optimizers import SGD
from gpunet.random import Purpose, host_generator
from gpunet.training import evaluate, fit

Array = npt.NDArray[Any]

MARGINS = 6.0
SCORES = (1.9, -0.4, 0.6, 2.4)  # of one example, whose class is the first
SCALES = (1.0, 10.0, 50.0, 80.0, 100.0, 200.0, 500.0, 1000.0, 10_000.0)
ROWS = 200  # to train on
LAMBDAS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
# What the paragraph says only where the numbers show it; the gradients are float64.
GRADIENTS_AGREE = 1e-12
FLOAT32_AGREES = 1e-6


def measure(settings: Settings) -> dict[str, Any]:
    """Read losses and gradients off the library's loss layer, and train for a range of lambda."""
    margins = np.linspace(-MARGINS, MARGINS, 121)
    return {
        "margins": rounded(margins),
        "margin_losses": _margin_losses(settings, margins),
        "gradient": _gradient(settings),
        "overflow": _overflow(settings),
        "penalty": _penalty(settings),
        "trained": _trained(settings),
    }


def losses_of_scores(settings: Settings, scores: Array, labels: Array, dtype: str) -> tuple[Array, Array]:
    """Return the loss of each row of scores, (n,), and its gradient with respect to them, (n, c).

    They come from the library's linear network with W = I and b = 0, whose scores are its inputs.
    """
    classes = scores.shape[1]
    network = settings.network([classes, classes], dtype=dtype)
    network.set_parameters({"W1": np.eye(classes), "b1": np.zeros(classes)})
    rows = [
        network.loss_and_gradients(scores[row : row + 1], labels[row : row + 1], input_gradient=True)
        for row in range(len(scores))
    ]
    return np.array([loss for loss, _ in rows]), np.concatenate([gradients["X"] for _, gradients in rows])


def _margin_losses(settings: Settings, margins: Array) -> dict[str, Any]:
    """Return what an example costs that leads by a margin, with two classes."""
    scores = np.stack([margins, np.zeros_like(margins)], axis=1)
    losses, gradients = losses_of_scores(settings, scores, np.zeros(len(margins), np.int64), "float64")
    return {
        "cross_entropy": rounded(losses, 6),
        "slope_at_2": float(gradients[np.argmin(np.abs(margins - 2)), 0]),
        "slope": rounded(gradients[:, 0], 6),
        "at_0": float(losses[len(margins) // 2]),
        "error": float(np.abs(losses - np.log1p(np.exp(-margins))).max()),
    }


def _gradient(settings: Settings) -> dict[str, Any]:
    """Return p, y and dl/ds for one example, and how far dl/ds is from p - y and from central differences."""
    scores, labels = np.array([SCORES]), np.array([0])
    _, gradient = losses_of_scores(settings, scores, labels, "float64")
    p = np.exp(scores[0] - scores.max())
    p /= p.sum()
    y = np.eye(len(SCORES))[0]
    step = 1e-5
    moved = np.concatenate([scores + step * np.eye(len(SCORES)), scores - step * np.eye(len(SCORES))])
    losses, _ = losses_of_scores(settings, moved, np.zeros(len(moved), np.int64), "float64")
    above, below = np.split(losses, 2)
    return {
        "scores": list(SCORES),
        "p": rounded(p),
        "y": y.tolist(),
        "gradient": rounded(gradient[0]),
        "error": float(np.abs(gradient[0] - (p - y)).max()),
        "error_lecture": float(np.abs(gradient[0] - (-(y / p[0]) @ (np.diag(p) - np.outer(p, p)))).max()),
        "error_differences": float(np.abs(gradient[0] - (above - below) / (2 * step)).max()),
    }


def _overflow(settings: Settings) -> dict[str, Any]:
    """Return the loss of scores (0, a) of class 0 in float32, by the library and without shift; None is not finite."""
    scores = np.array([[0.0, scale] for scale in SCALES], np.float32)
    losses, _ = losses_of_scores(settings, scores, np.zeros(len(scores), np.int64), "float32")
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        powers = np.exp(scores)
        naive = -np.log(powers[:, 0] / powers.sum(axis=1))
    return {
        "scales": list(SCALES),
        "library": [_finite(loss) for loss in losses],
        "naive": [_finite(loss) for loss in naive],
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _penalty(settings: Settings) -> dict[str, float]:
    """Compare J and its gradients with and without L2 for a 3-layer network."""
    l2 = 0.37
    network = settings.network([5, 7, 6, 3], batch_norm=False, dtype="float64", initial_bias=0.1)
    generator = host_generator(settings.seed, Purpose.SPLIT, 1)
    X, y = generator.standard_normal((13, 5)), generator.integers(0, 3, 13)
    parameters = network.get_parameters()
    loss, plain = network.loss_and_gradients(X, y)
    J, gradients = network.loss_and_gradients(X, y, l2=l2)
    weights = [name for name in parameters if name.startswith("W")]
    squares = sum(float((parameters[name] ** 2).sum()) for name in weights)
    factors = [(gradients[name] - plain[name]) / (l2 * parameters[name]) for name in weights]
    return {
        "cost_error": abs(J - (loss + l2 * squares)),
        "factor": float(np.mean([factor.mean() for factor in factors])),
        "factor_error": max(float(np.abs(factor - 2).max()) for factor in factors),
        "bias_change": max(
            float(np.abs(gradients[name] - plain[name]).max()) for name in set(parameters) - set(weights)
        ),
    }


def _trained(settings: Settings) -> list[dict[str, Any]]:
    digits = split_digits(settings.seed, ROWS)
    return [_trained_with(settings, digits, l2) for l2 in LAMBDAS]


def _trained_with(settings: Settings, digits: Any, l2: float) -> dict[str, Any]:
    network = settings.network([INPUTS, 64, CLASSES], batch_norm=False)
    epochs = 3 if settings.quick else 150
    fit(network, digits.X, digits.y, epochs=epochs, batch_size=50, optimizer=SGD(0.1, momentum=0.9), l2=l2)
    return {
        "l2": l2,
        "loss": evaluate(network, digits.X, digits.y).loss,
        "penalty": network.penalty(l2),
        "squared_weights": network.penalty(1.0),
        "test_accuracy": evaluate(network, digits.X_test, digits.y_test).accuracy,
    }


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show."""
    gradient, overflow, penalty = numbers["gradient"], numbers["overflow"], numbers["penalty"]
    squares = [entry["squared_weights"] for entry in numbers["trained"]]
    return {
        "gradient_is_p_minus_y": max(gradient["error"], gradient["error_lecture"]) < GRADIENTS_AGREE,
        "library_is_right": _is_right(overflow),
        "naive_overflows": None in overflow["naive"],
        "factor_is_2": penalty["factor_error"] < 1e-9 and penalty["bias_change"] == 0,
        "weights_shrink": all(larger > smaller for larger, smaller in pairwise(squares)),
    }


def _is_right(overflow: Numbers) -> bool:
    """Return whether the library's losses are log(1 + exp(a)) to a few units in the last place of float32."""
    expected = np.logaddexp(0.0, overflow["scales"])
    losses = [np.inf if loss is None else loss for loss in overflow["library"]]
    return bool(np.all(np.abs(losses / expected - 1) < FLOAT32_AGREES))


def describe(numbers: Numbers) -> str:
    """Return the paragraph."""
    shown = claims(numbers)
    overflow, trained, penalty = numbers["overflow"], numbers["trained"], numbers["penalty"]
    first_lost = next(
        (scale for scale, loss in zip(overflow["scales"], overflow["naive"], strict=True) if loss is None), None
    )
    return (
        "Top left, what an example costs whose own class leads by a margin: cross-entropy is "
        f"{numbers['margin_losses']['at_0']:.3f} (log 2) where two scores are equal, and its slope is still "
        f"{numbers['margin_losses']['slope_at_2']:.2f} at a margin of 2, so that examples that are right already still "
        "push. Top right, the gradient with respect to the "
        "scores of one example: "
        + ("it is p - y, as it should be" if shown["gradient_is_p_minus_y"] else "it differs from p - y")
        + f" (largest difference {tiny(numbers['gradient']['error'])}; from "
        "the lecture's -(y^T / y^T p)(diag(p) - p p^T) by "
        f"{tiny(numbers['gradient']['error_lecture'])}, from central differences by "
        f"{tiny(numbers['gradient']['error_differences'])}). Bottom left, "
        + (
            f"exp(s) without the shift by the largest score is lost at a lead of {first_lost:g} in float32"
            if shown["naive_overflows"]
            else "here exp(s) does without the shift by the largest score"
        )
        + (
            ", and the library's loss is log(1 + exp(a)) for all. "
            if shown["library_is_right"]
            else ", and the library's loss is not log(1 + exp(a)) for all. "
        )
        + f"Bottom right, J = mean cross-entropy + lambda sum ||W_i||^2 after training on {ROWS} images of digits: "
        + (
            "with lambda the weights become smaller throughout"
            if shown["weights_shrink"]
            else "here the weights do not become smaller with every larger lambda"
        )
        + f", sum ||W_i||^2 going from {trained[0]['squared_weights']:.0f} to {trained[-1]['squared_weights']:.2g}, "
        f"while the mean loss goes from {trained[0]['loss']:.2g} to {trained[-1]['loss']:.2g}. "
        "The penalty's gradient is "
        + ("2 lambda W, and biases have none" if shown["factor_is_2"] else f"{penalty['factor']:.2f} lambda W")
        + f" (largest error {tiny(penalty['factor_error'])} of the factor)."
    )


def draw(numbers: Numbers) -> Any:
    """Return the figure."""
    figure, axes = panels(2, 2, width=1.25)
    _draw_margins(axes[0, 0], numbers)
    _draw_gradient(axes[0, 1], numbers["gradient"])
    _draw_overflow(axes[1, 0], numbers["overflow"])
    _draw_penalty(axes[1, 1], numbers["trained"])
    return figure


def _draw_margins(axes: Any, numbers: Numbers) -> None:
    margins, losses = np.asarray(numbers["margins"]), numbers["margin_losses"]
    lines = {
        "cross-entropy, log(1 + exp(-margin))": losses["cross_entropy"],
        "hinge, max(0, 1 - margin)": np.maximum(0, 1 - margins),
        "perceptron, max(0, -margin)": np.maximum(0, -margins),
        "0-1": (margins < 0).astype(float),
        "slope of cross-entropy": losses["slope"],
    }
    for (name, values), colour, style in zip(lines.items(), COLOURS, STYLES, strict=False):
        axes.plot(margins, values, color=colour, linestyle=style, label=name)
    label(axes, x="margin: own score minus the other", y="loss of the example", title="loss and its slope, two classes")
    axes.legend(fontsize=8)


def _draw_gradient(axes: Any, gradient: Numbers) -> None:
    places = np.arange(len(gradient["scores"]))
    for shift, (name, colour) in enumerate((("p", COLOURS[0]), ("y", COLOURS[5]), ("gradient", COLOURS[1]))):
        title = "dl/ds, from the library" if name == "gradient" else name
        axes.bar(places + 0.27 * (shift - 1), gradient[name], 0.25, color=colour, label=title)
    difference = np.asarray(gradient["p"]) - gradient["y"]
    axes.plot(places + 0.27, difference, "_", color="black", markersize=16, markeredgewidth=2, label="p - y")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xticks(places, [f"{place}\ns = {score:g}" for place, score in enumerate(gradient["scores"])])
    axes.set_ylim(-1.0, 1.5)
    label(axes, x="class and its score; the example is of class 0", y="", title="the gradient of one example")
    axes.legend(fontsize=8, ncols=2, loc="upper right")


def _draw_overflow(axes: Any, overflow: Numbers) -> None:
    scales = np.asarray(overflow["scales"])
    for key, place in (("library", 0), ("naive", 1)):
        losses = np.array([np.nan if loss is None else loss for loss in overflow[key]])
        title = "shifted by the largest score" if key == "library" else "without the shift"
        axes.loglog(
            scales, losses, color=COLOURS[place], marker=MARKERS[place], linestyle=STYLES[place], label=title,
            markersize=9 - 4 * place, zorder=2 + place,
        )  # fmt: skip
        lost = np.isnan(losses)
        if lost.any():
            axes.plot(
                scales[lost],
                scales[lost],
                "x",
                color=COLOURS[place],
                markersize=10,
                label=f"{title}: inf or nan",
                zorder=4,
            )
    label(axes, x="lead a of the wrong class", y="loss of the example", title="scores (0, a) of class 0, float32")
    axes.legend(fontsize=8)


def _draw_penalty(axes: Any, trained: list[Numbers]) -> None:
    places = range(len(trained))
    loss, penalty = ([entry[key] for entry in trained] for key in ("loss", "penalty"))
    axes.bar(places, loss, color=COLOURS[0], label="mean cross-entropy")
    axes.bar(
        places, penalty, bottom=loss, color=COLOURS[1], label="lambda sum ||W_i||^2", hatch="//", edgecolor="white"
    )
    axes.set_xticks(places, [f"{entry['l2']:g}" for entry in trained], rotation=30)
    label(axes, x="lambda", y="J after training", title="how J divides, and sum ||W_i||^2")
    right = axes.twinx()
    right.plot(places, [entry["squared_weights"] for entry in trained], color="black", marker="o", markersize=4)
    right.set_yscale("log")
    right.set_ylabel("sum ||W_i||^2 (line)", fontsize=9)
    right.tick_params(labelsize=8)
    axes.legend(fontsize=8, loc="center left")
