"""L1: the linear scoring function s = W x + b, as templates of ten digits and as regions of the plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.lecture.digits import CLASSES, INPUTS, split_digits
from gpunet.lecture.experiment import Numbers, Settings
from gpunet.lecture.plane import clouds, decision_map, draw_points, draw_regions, rounded
from gpunet.lecture.plotting import COLOURS, DIVERGING_MAP, label, panels
from gpunet.lecture.wording import tiny
from gpunet.optimizers import SGD, Adam
from gpunet.random import Purpose, host_generator
from gpunet.training import evaluate, fit

SIDE = 8
CENTRES = [(-1.2, -0.8), (1.3, -0.6), (0.0, 1.3)]
EXTENT = 3.0
# What the paragraph says only where the numbers show it.
ACCURATE = 0.9
ROUNDING = 1e-5  # float32 scores of size 10


def measure(settings: Settings) -> dict[str, Any]:
    """Train s = W x + b with softmax cross-entropy on images of digits and on three clouds of points."""
    digits = split_digits(settings.seed, 300 if settings.quick else 1280)
    network = settings.network([INPUTS, CLASSES])
    fit(network, digits.X, digits.y, epochs=5 if settings.quick else 60, batch_size=50, optimizer=SGD(0.2), l2=1e-3)
    parameters = network.get_parameters()
    W, b = parameters["W1"].astype(np.float64), parameters["b1"].astype(np.float64)
    scores = network.logits(digits.X_test).astype(np.float64)
    right = scores.argmax(axis=1) == digits.y_test
    example = int(np.argmax(right))
    # Every pixel is empty in some image.
    empty = np.minimum(digits.X.min(axis=0), digits.X_test.min(axis=0))
    return {
        "templates": rounded(W),
        "biases": rounded(b),
        "train_accuracy": evaluate(network, digits.X, digits.y).accuracy,
        "test_accuracy": float(right.mean()),
        "test_rows": len(right),
        "best_match": _best_match(W, digits.X, digits.y),
        "difference_from_formula": float(np.abs(scores - (digits.X_test @ W.T + b)).max()),
        "example": {
            "pixels": rounded(digits.X_test[example] - empty),
            "label": int(digits.y_test[example]),
            "scores": rounded(scores[example]),
        },
        "plane": _plane(settings),
    }


def _best_match(W: Any, X: Any, y: Any) -> list[int]:
    """Return for each class the template that scores highest on the mean image of the class."""
    means = np.stack([X[y == digit].mean(axis=0) for digit in range(10)])
    return [int(best) for best in (means @ W.T).argmax(axis=1)]


def _plane(settings: Settings) -> dict[str, Any]:
    generator = host_generator(settings.seed, Purpose.SPLIT, 1)
    points, labels = clouds(90, CENTRES, 0.65, generator)
    network = settings.network([2, len(CENTRES)])
    fit(network, points, labels, epochs=20 if settings.quick else 150, batch_size=30, optimizer=Adam(0.05))
    parameters = network.get_parameters()
    return {
        "points": rounded(points),
        "labels": labels.tolist(),
        "weights": rounded(parameters["W1"]),
        "biases": rounded(parameters["b1"]),
        "decision": decision_map(network, EXTENT, 40),
        "accuracy": evaluate(network, points, labels).accuracy,
    }


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show."""
    example = numbers["example"]
    return {
        "scores_are_the_formula": numbers["difference_from_formula"] < ROUNDING,
        "accurate": numbers["test_accuracy"] >= ACCURATE,
        "templates_match": numbers["best_match"] == list(range(10)),
        "example_scores_highest": int(np.argmax(example["scores"])) == example["label"],
    }


def describe(numbers: Numbers) -> str:
    """Return the paragraph."""
    shown = claims(numbers)
    example = numbers["example"]
    matched = sum(best == digit for digit, best in enumerate(numbers["best_match"]))
    runner_up = sorted(example["scores"])[-2]
    return (
        "On the left, each row w_i of W is drawn as an image: red pixels speak for digit i, blue ones against it, so "
        "that w_i is a template and the score s_i = w_i x + b_i says how well an image x fits it. "
        + (
            "The mean image of each of the ten digits gets its highest score from its own template. "
            if shown["templates_match"]
            else f"Of the ten digits' mean images, {matched} get their highest score from their own template. "
        )
        + f"In the middle are the ten scores of one test image, a {example['label']}: "
        + (
            f"its own score, {max(example['scores']):.1f}, is the highest, ahead of {runner_up:.1f}. "
            if shown["example_scores_highest"]
            else "another digit's score is the highest. "
        )
        + f"Choosing the highest score is right for {numbers['test_accuracy']:.1%} of {numbers['test_rows']} test "
        f"images{'' if shown['accurate'] else ', which is poor for these data'}. "
        "On the right, for points in the plane, the regions in which each of three scores is the highest are bounded "
        f"by straight lines, and {numbers['plane']['accuracy']:.1%} of the points lie in their own; the arrows are the "
        "rows of W, drawn at one length: the directions in which the scores grow. "
        + (
            "The network's scores and W x + b worked out from its parameters agree to "
            if shown["scores_are_the_formula"]
            else "The network's scores and W x + b worked out from its parameters differ by "
        )
        + f"{tiny(numbers['difference_from_formula'])}."
    )


def draw(numbers: Numbers) -> Any:
    """Return the figure."""
    figure, axes = panels(1, 3, width=1.15, height=1.2)
    _draw_templates(figure, axes[0, 0], numbers)
    _draw_scores(axes[0, 1], numbers)
    _draw_plane(axes[0, 2], numbers["plane"])
    return figure


def _draw_templates(figure: Any, axes: Any, numbers: Numbers) -> None:
    pitch = SIDE + 1
    mosaic = np.full((3 * pitch - 1, 4 * pitch - 1), np.nan)
    for digit, template in enumerate(numbers["templates"]):
        row, column = (part * pitch for part in divmod(digit, 4))
        mosaic[row : row + SIDE, column : column + SIDE] = np.reshape(template, (SIDE, SIDE))
        axes.annotate(str(digit), (column - 0.3, row), fontsize=9, ha="left", va="center")
    largest = float(np.nanmax(np.abs(mosaic)))
    image = axes.imshow(mosaic, cmap=DIVERGING_MAP, vmin=-largest, vmax=largest)
    axes.set_title("the rows of W as images, 0 to 9", fontsize=10)
    axes.axis("off")
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", shrink=0.8, pad=0.02)
    bar.set_label("weight of a pixel", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _draw_scores(axes: Any, numbers: Numbers) -> None:
    example = numbers["example"]
    colours = [COLOURS[1] if digit == example["label"] else COLOURS[0] for digit in range(10)]
    axes.bar(range(10), example["scores"], color=colours)
    axes.axhline(0, color="black", linewidth=0.6)
    label(axes, x="digit i", y="score s_i = w_i x + b_i", title="the scores of one test image")
    axes.set_xticks(range(10))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.45 * (high - low))
    inset = axes.inset_axes((0.72, 0.7, 0.28, 0.28))
    inset.imshow(np.reshape(example["pixels"], (SIDE, SIDE)), cmap="gray_r")
    inset.set_xticks([])
    inset.set_yticks([])


def _draw_plane(axes: Any, plane: Numbers) -> None:
    label(axes, x="x_1", y="x_2", title="where each of three scores is the highest")
    draw_regions(axes, plane["decision"], EXTENT)
    draw_points(axes, plane["points"], plane["labels"], 14)
    for number, (w, colour) in enumerate(zip(plane["weights"], COLOURS, strict=False)):
        tip = 1.3 * np.asarray(w) / np.linalg.norm(w)
        axes.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 2}, zorder=4)
        axes.annotate(
            f"w_{number}",
            1.3 * tip,
            fontsize=9,
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
            zorder=5,
        )
