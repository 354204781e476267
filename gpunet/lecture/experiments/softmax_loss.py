"""L4: softmax, cross-entropy, its gradient p - y, the shift that keeps it finite, and J with L2 on every W_i."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from gpunet.lecture.digits import CLASSES, INPUTS, Digits, split_digits
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import COLOURS, Figure, draw_bars, draw_lines, label, legend, look, or_nan, panels
from gpunet.lecture.wording import none_where_not_finite, rounded, tiny
from gpunet.random import Purpose, host_generator
from gpunet.training import evaluate

MARGINS = 6.0
SCORES = (1.9, -0.4, 0.6, 2.4)  # of one example, whose class is the first
SCALES = (1.0, 10.0, 50.0, 80.0, 100.0, 200.0, 500.0, 1000.0, 10_000.0)
ROWS = 200  # to train on
LAMBDAS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
GRADIENTS_AGREE, FACTOR_AGREES = 1e-12, 1e-9  # of float64
FLOAT32_AGREES = 1e-6
SQUARES = r"$\Sigma_i\,\|W_i\|^2$"


def measure(settings: Settings) -> dict[str, Any]:
    """Read losses and gradients off the library's loss layer, and train for a range of lambda."""
    margins = np.linspace(-MARGINS, MARGINS, 121)
    return {
        "margins": rounded(margins),
        "margin_losses": _margin_losses(settings, margins),
        "gradient": _gradient(settings),
        "overflow": _overflow(settings),
        "penalty": _penalty(settings),
        "trained": [_trained(settings, split_digits(settings.seed, ROWS), l2) for l2 in LAMBDAS],
    }


def losses_of_scores(settings: Settings, scores: Array, labels: Array, dtype: str) -> tuple[Array, Array]:
    """Return the loss of each row of scores, (n,), and its gradient with respect to them, (n, c).

    They come from the library's linear network with W = I and b = 0, whose scores are its inputs.
    """
    classes = scores.shape[1]
    network = settings.network([classes, classes], dtype=dtype)
    network.set_parameters({"W1": np.eye(classes), "b1": np.zeros(classes)})
    rows = ((scores[row : row + 1], labels[row : row + 1]) for row in range(len(scores)))
    losses, gradients = zip(*(network.loss_and_gradients(*row, input_gradient=True) for row in rows), strict=True)
    return np.array(losses), np.concatenate([gradient["X"] for gradient in gradients])


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
    return {"scales": list(SCALES), "library": none_where_not_finite(losses), "naive": none_where_not_finite(naive)}


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
    changes = [np.abs(gradients[name] - plain[name]).max() for name in set(parameters) - set(weights)]
    return {
        "cost_error": abs(J - (loss + l2 * squares)),
        "factor": float(np.mean([factor.mean() for factor in factors])),
        "factor_error": max(float(np.abs(factor - 2).max()) for factor in factors),
        "bias_change": float(max(changes)),
    }


def _trained(settings: Settings, digits: Digits, l2: float) -> dict[str, Any]:
    network = settings.network([INPUTS, 64, CLASSES], batch_norm=False)
    digits.fit(network, 0.1, 0.9, epochs=3 if settings.quick else 150, batch_size=50, l2=l2)
    return {
        "l2": l2,
        "loss": evaluate(network, digits.X, digits.y).loss,
        "penalty": network.penalty(l2),
        "squared_weights": network.penalty(1.0),
        "test_accuracy": digits.test_accuracy(network),
    }


def about(numbers: Numbers) -> str:
    margins, trained = numbers["margin_losses"], numbers["trained"]
    return (
        f"Top left, what an example costs whose own class leads by a margin: cross-entropy is {margins['at_0']:.3f} "
        f"(log 2) where two scores are equal, and its slope is still {margins['slope_at_2']:.2f} at a margin of 2: "
        "examples that are right already still push. Top right, the gradient with respect to one example's scores. "
        "Bottom left, losses of scores that lead ever further. Bottom right, J divided in two after training on "
        f"{ROWS} images of digits: the mean loss goes from {trained[0]['loss']:.2g} to {trained[-1]['loss']:.2g}."
    )


def claims(numbers: Numbers) -> Claims:
    gradient, overflow, penalty = numbers["gradient"], numbers["overflow"], numbers["penalty"]
    lost = [scale for scale, loss in zip(overflow["scales"], overflow["naive"], strict=True) if loss is None]
    expected = np.logaddexp(0.0, overflow["scales"])
    errors = np.abs(np.array([np.inf if loss is None else loss for loss in overflow["library"]]) / expected - 1)
    squares = [entry["squared_weights"] for entry in numbers["trained"]]
    return {
        "gradient_is_p_minus_y": Claim(
            "The gradient is p - y, which is the lecture's -(y^T / y^T p)(diag(p) - p p^T)",
            max(gradient["error"], gradient["error_lecture"]) < GRADIENTS_AGREE,
            f"largest differences {tiny(gradient['error'])} and {tiny(gradient['error_lecture'])}, from central "
            f"differences {tiny(gradient['error_differences'])}",
        ),
        "naive_overflows": Claim(
            "exp(s) without the shift by the largest score overflows in float32",
            bool(lost),
            f"from a lead of {lost[0]:g}" if lost else "at none of the leads",
        ),
        "library_is_right": Claim.agree(
            "The library's loss is log(1 + exp(a)) for every lead a", float(errors.max()), FLOAT32_AGREES
        ),
        "weights_shrink": Claim(
            "The larger lambda is, the smaller the weights become",
            all(larger > smaller for larger, smaller in pairwise(squares)),
            f"sum ||W_i||^2 goes from {squares[0]:.0f} to {squares[-1]:.2g}",
        ),
        "factor_is_2": Claim(
            "The penalty's gradient is 2 lambda W, and biases have none",
            penalty["factor_error"] < FACTOR_AGREES and penalty["bias_change"] == 0,
            f"{penalty['factor']:.2f} lambda W, to {tiny(penalty['factor_error'])}",
        ),
    }


def draw(numbers: Numbers) -> Figure:
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
    draw_lines(axes, lines, margins, size=None)
    label(axes, "margin: own score minus the other", "loss of the example", "loss and its slope, two classes")
    legend(axes)


def _draw_gradient(axes: Any, gradient: Numbers) -> None:
    names = [f"{place}\n$s$ = {score:g}" for place, score in enumerate(gradient["scores"])]
    draw_bars(axes, {"p": gradient["p"], "y": gradient["y"], "$dl/ds$, from the library": gradient["gradient"]}, names)
    difference = np.asarray(gradient["p"]) - gradient["y"]
    beside = np.arange(len(names)) + 0.27
    axes.plot(beside, difference, "_", color="black", markersize=16, markeredgewidth=2, label="$p - y$")
    axes.set_ylim(-1.0, 1.5)
    label(axes, "class and its score; the example is of class 0", "", "the gradient of one example")
    legend(axes, "upper right", ncols=2)


def _draw_overflow(axes: Any, overflow: Numbers) -> None:
    scales = np.asarray(overflow["scales"])
    titles = {"library": "shifted by the largest score", "naive": "without the shift"}
    for place, (key, title) in enumerate(titles.items()):
        losses = or_nan(overflow[key])
        axes.plot(scales, losses, label=title, zorder=2 + place, **look(place, 9 - 4 * place))
        if (lost := scales[np.isnan(losses)]).size:
            axes.plot(lost, lost, "x", label=f"{title}: inf or nan", color=COLOURS[place], markersize=10, zorder=4)
    label(axes, "lead $a$ of the wrong class", "loss of the example", "scores (0, $a$) of class 0, float32", scale="xy")
    legend(axes)


def _draw_penalty(axes: Any, trained: list[Numbers]) -> None:
    places = range(len(trained))
    loss, penalty, squares = ([entry[key] for entry in trained] for key in ("loss", "penalty", "squared_weights"))
    axes.bar(places, loss, color=COLOURS[0], label="mean cross-entropy")
    stripes = {"color": COLOURS[1], "hatch": "//", "edgecolor": "white", "label": f"$\\lambda$ {SQUARES}"}
    axes.bar(places, penalty, bottom=loss, **stripes)
    axes.set_xticks(places, [f"{entry['l2']:g}" for entry in trained], rotation=30)
    label(axes, "$\\lambda$", "$J$ after training", f"how $J$ divides, and {SQUARES}")
    right = axes.twinx()
    right.semilogy(places, squares, color="black", marker="o", markersize=4)
    right.set_ylabel(f"{SQUARES} (line)", fontsize=9)
    right.tick_params(labelsize=8)
    legend(axes, "center left")
