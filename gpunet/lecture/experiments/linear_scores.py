"""L1: the linear scoring function s = W x + b, as templates of ten digits and as regions of the plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.lecture.digits import CLASSES, INPUTS, split_digits
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plane import clouds, decision_map, draw_plane, name_what_is_drawn
from gpunet.lecture.plotting import COLOURS, DIVERGING_MAP, Figure, label, legend, mosaic, panels
from gpunet.lecture.wording import rounded
from gpunet.optimizers import Adam
from gpunet.random import Purpose, host_generator
from gpunet.training import evaluate, fit

SIDE = 8
CENTRES = [(-1.2, -0.8), (1.3, -0.6), (0.0, 1.3)]
EXTENT = 3.0
ACCURATE = 0.9
ROUNDING = 1e-5  # float32 scores of size 10


def measure(settings: Settings) -> dict[str, Any]:
    """Train s = W x + b with softmax cross-entropy on images of digits and on three clouds of points."""
    digits = split_digits(settings.seed, 300 if settings.quick else 1280)
    network = settings.network([INPUTS, CLASSES])
    digits.fit(network, 0.2, epochs=5 if settings.quick else 60, batch_size=50, l2=1e-3)
    W, b = (network.get_parameters()[name].astype(np.float64) for name in ("W1", "b1"))
    scores = network.logits(digits.X_test).astype(np.float64)
    right = scores.argmax(axis=1) == digits.y_test
    example = int(np.argmax(right))
    means = np.stack([digits.X[digits.y == digit].mean(axis=0) for digit in range(CLASSES)])
    # Every pixel is empty in some image.
    empty = np.minimum(digits.X.min(axis=0), digits.X_test.min(axis=0))
    return {
        "templates": rounded(W),
        "biases": rounded(b),
        "train_accuracy": evaluate(network, digits.X, digits.y).accuracy,
        "test_accuracy": float(right.mean()),
        "test_rows": len(right),
        # The template that scores highest on the mean image of each class.
        "best_match": (means @ W.T).argmax(axis=1).tolist(),
        "difference_from_formula": float(np.abs(scores - (digits.X_test @ W.T + b)).max()),
        "example": {
            "pixels": rounded(digits.X_test[example] - empty),
            "label": int(digits.y_test[example]),
            "scores": rounded(scores[example]),
        },
        "plane": _plane(settings),
    }


def _plane(settings: Settings) -> dict[str, Any]:
    points, labels = clouds(90, CENTRES, 0.65, host_generator(settings.seed, Purpose.SPLIT, 1))
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


def about(numbers: Numbers) -> str:
    return (
        "Left, each row w_i of W as an image: red pixels speak for digit i, blue ones against it. In the middle, the "
        f"scores of one test image, a {numbers['example']['label']}. Right, the regions in which each of three scores "
        f"is the highest; {numbers['plane']['accuracy']:.1%} of the points lie in their own, and the arrows are the "
        "rows of W, drawn at one length: the directions in which the scores grow."
    )


def claims(numbers: Numbers) -> Claims:
    scores, own = numbers["example"]["scores"], numbers["example"]["label"]
    matched = sum(best == digit for digit, best in enumerate(numbers["best_match"]))
    others = max(scores[:own] + scores[own + 1 :])
    return {
        "templates_match": Claim(
            "Each digit's mean image gets its highest score from its own template", matched == CLASSES, f"{matched} do"
        ),
        "example_scores_highest": Claim(
            "The test image's own score is the highest", scores[own] > others, f"{scores[own]:.1f}, then {others:.1f}"
        ),
        "accurate": Claim.at_least(
            "The share of test images that are right is", numbers["test_accuracy"], ACCURATE, ".1%"
        ),
        "scores_are_the_formula": Claim.agree(
            "The network's scores are W x + b worked out from its parameters",
            numbers["difference_from_formula"],
            ROUNDING,
        ),
    }


def draw(numbers: Numbers) -> Figure:
    figure, (axes,) = panels(1, 3, width=0.9, height=1.05)
    _draw_templates(figure, axes[0], numbers["templates"])
    _draw_scores(axes[1], numbers["example"])
    _draw_regions(axes[2], numbers["plane"])
    return figure


def _draw_templates(figure: Figure, axes: Any, templates: list[list[float]]) -> None:
    pictures = mosaic([templates[first : first + 4] for first in (0, 4, 8)], np.nan)
    largest = float(np.nanmax(np.abs(pictures)))
    image = axes.imshow(pictures, cmap=DIVERGING_MAP, vmin=-largest, vmax=largest)
    for digit in range(CLASSES):
        row, column = ((SIDE + 1) * part for part in divmod(digit, 4))
        axes.annotate(str(digit), (column - 0.3, row), fontsize=9, ha="left", va="center")
    axes.set_title("the rows of W as images, 0 to 9", fontsize=10)
    axes.axis("off")
    bar = figure.colorbar(image, cax=axes.inset_axes((0.1, -0.12, 0.8, 0.05)), orientation="horizontal")
    bar.set_label("weight of a pixel", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _draw_scores(axes: Any, example: Numbers) -> None:
    own = example["label"]
    names = {f"the image's own digit, {own}": [own], "other digits": [d for d in range(CLASSES) if d != own]}
    for colour, (name, digits) in zip((COLOURS[1], COLOURS[0]), names.items(), strict=True):
        axes.bar(digits, [example["scores"][digit] for digit in digits], color=colour, label=name)
    axes.axhline(0, color="black", linewidth=0.6)
    label(axes, "digit $i$", "score $s_i = w_i x + b_i$", "the scores of one test image")
    axes.set_xticks(range(10))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.45 * (high - low))
    legend(axes, "upper left")
    inset = axes.inset_axes((0.72, 0.7, 0.28, 0.28))
    inset.imshow(np.reshape(example["pixels"], (SIDE, SIDE)), cmap="gray_r")
    inset.set_xticks([])
    inset.set_yticks([])


def _draw_regions(axes: Any, plane: Numbers) -> None:
    title = "where each of three scores is the highest"
    draw_plane(axes, plane["decision"], plane["points"], plane["labels"], EXTENT, title, size=14)
    name_what_is_drawn(axes)
    for number, (w, colour) in enumerate(zip(plane["weights"], COLOURS, strict=False)):
        tip: Array = 1.3 * np.asarray(w) / np.linalg.norm(w)
        axes.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 2}, zorder=4)
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        axes.annotate(f"$w_{number}$", 1.3 * tip, fontsize=9, ha="center", va="center", bbox=box, zorder=5)
