"""L13: layers that were pre-trained without labels start a deep sigmoid network better than random numbers do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import DIVERGING_MAP, MARKERS, Figure, draw_range, label, legend, look, mosaic, panels
from gpunet.lecture.starts import (
    CODE_INITIALIZERS,
    INITIALIZERS,
    LARGE,
    PIXEL_LEVELS,
    PRETRAINED,
    RELU,
    XAVIER,
    compare_starts,
)

STUCK = 0.5  # test error of ten classes; guessing has 0.9

# Learning rates suit the best random start: chosen from 0.03 to 0.4 for the classifier, 0.01 to 0.04 for the code.
SIZES: dict[str, Any] = {"data": "mnist5k", "train_rows": 2000, "test_rows": 2000, "batch_size": 100}
SIZES |= {"hidden": [128] * 4, "epochs": 20, "more_epochs": 20, "seeds": 5, "learning_rate": 0.2}
SIZES |= {"code": [256, 64, 16], "code_epochs": 10, "code_seeds": 3, "code_learning_rate": 0.02}
SIZES |= {"pretraining": 10, "pretraining_batch_size": 50}
# Everything runs, on 8 x 8 pixels.
QUICK_SIZES: dict[str, Any] = SIZES | {"data": "digits", "train_rows": 300, "test_rows": 200, "seeds": 2}
QUICK_SIZES |= {"hidden": [24, 24], "epochs": 2, "more_epochs": 1, "pretraining": 2}
QUICK_SIZES |= {"code": [24, 4], "code_epochs": 2, "code_seeds": 2}


def measure(settings: Settings) -> dict[str, Any]:
    """Train classifiers and auto-encoders from pre-trained and from random weights, for several seeds."""
    return compare_starts(settings, QUICK_SIZES if settings.quick else SIZES)


def final_errors(numbers: Numbers, kind: str = "errors") -> dict[str, Array]:
    """Return the error after the last epoch of each start, one per seed."""
    return {name: np.array([epochs[-1] for epochs in seeds]) for name, seeds in numbers[kind].items()}


def paired_gain(numbers: Numbers) -> Array:
    """Return, for each seed, how far the best of that seed's random sigmoid starts is above the pre-trained one."""
    final = final_errors(numbers)
    return np.min([final[name] for name in INITIALIZERS], axis=0) - final[PRETRAINED]


def about(numbers: Numbers) -> str:
    final = final_errors(numbers)
    random = ", ".join(f"{_percent(final[name])} {name}" for name in (*INITIALIZERS, RELU))
    return (
        f"Top row: {len(numbers['hidden'])} sigmoid layers of {numbers['hidden'][0]} units without batch norm, trained "
        f"on {numbers['train_rows']:,} images of {numbers['data']} for {numbers['epochs']} epochs by the same SGD: "
        f"from weights that {numbers['pretraining']} epochs of contrastive divergence per layer found without labels "
        f"(left: some of the first layer's), or from random ones. The shares of {numbers['test_rows']:,} test images "
        f"that are wrong, mean and standard deviation of {numbers['seeds']} seeds, are {_percent(final[PRETRAINED])} "
        f"pre-trained, and {random}. Bottom row: the auto-encoder with layers of "
        f"{', '.join(map(str, numbers['code']))} units, the last one a linear code, unrolled and fine-tuned for "
        f"{numbers['code_epochs']} epochs, its mean squared error per pixel of test images a mean of "
        f"{numbers['code_seeds']} seeds."
    )


def claims(numbers: Numbers) -> Claims:
    final, codes, gain = final_errors(numbers), final_errors(numbers, "reconstruction_errors"), paired_gain(numbers)
    later, pca = np.array(numbers["later_errors"]), np.array(numbers["pca_errors"])
    relu = final[RELU] - final[PRETRAINED]
    others = " and ".join(f"{codes[name].mean():.4f} from {name}" for name in CODE_INITIALIZERS)
    return {
        "pretraining_wins": Claim(
            "The pre-trained network beats the best random sigmoid start of its seed, for every seed",
            bool((gain > 0).all()),
            f"{int((gain > 0).sum())} of {len(gain)}, by {100 * gain.mean():.1f} points on average, standard deviation "
            f"{_spread(gain):.1f}",
        ),
        "more_epochs_do_not_help": Claim(
            f"{numbers['more_epochs']} more epochs for {LARGE} do not make up for it for any seed",
            bool((final[PRETRAINED] < later).all()),
            _percent(later),
        ),
        "xavier_is_stuck": Claim(
            f"Xavier's start, meant for a slope of 1 at 0 where the sigmoid's is 1/4, has more than {STUCK:.0%} wrong",
            bool(final[XAVIER].mean() > STUCK),
            _percent(final[XAVIER]),
        ),
        "relu_gets_there": Claim(
            f"{RELU} gets there from random weights, to within a standard deviation: it ended this chapter of history",
            bool(100 * relu.mean() <= _spread(relu)),
            _percent(final[RELU]),
        ),
        "code_beats_random": Claim(
            "The pre-trained auto-encoder reconstructs better than the random ones, for every seed",
            all(bool((codes[PRETRAINED] < codes[name]).all()) for name in CODE_INITIALIZERS),
            f"{codes[PRETRAINED].mean():.4f} against {others}",
        ),
        "code_beats_pca": Claim(
            f"And better than {numbers['code'][-1]} principal components",
            bool((codes[PRETRAINED] < pca).all()),
            f"{pca.mean():.4f}",
        ),
    }


def _percent(errors: Array) -> str:
    return f"{100 * errors.mean():.1f} ± {_spread(errors):.1f} %"


def _spread(errors: Array) -> float:
    """Return the standard deviation over seeds in percentage points."""
    return float(100 * errors.std(ddof=1)) if len(errors) > 1 else 0.0


def draw(numbers: Numbers) -> Figure:
    figure, axes = panels(2, 3, width=1.15, height=1.1)
    names = [PRETRAINED, *INITIALIZERS, RELU]
    _draw_filters(axes[0, 0], numbers)
    _draw_curves(axes[0, 1], numbers["errors"], names, 1)
    legend(axes[0, 1], "upper center", ncols=3, bbox_to_anchor=(0.5, -0.2), frameon=False)
    label(
        axes[0, 1], "epoch of back-propagation", "test error (share wrong)", "Classifiers: mean and range", whole=True
    )
    _draw_seeds(axes[0, 2], final_errors(numbers), names)
    label(axes[0, 2], "start", "final test error (share wrong)", "One line per seed, and means")
    for panel in axes[0, 1:]:
        _log_scale(panel, [0.03, 0.05, 0.1, 0.2, 0.5, 1.0])
    _draw_pictures(axes[1, 0], numbers)
    codes = [PRETRAINED, *CODE_INITIALIZERS]
    _draw_curves(axes[1, 1], numbers["reconstruction_errors"], codes, 0)
    pca = float(np.mean(numbers["pca_errors"]))
    axes[1, 1].axhline(pca, color="0.3", linewidth=1, linestyle=(0, (1, 2)), label="PCA")
    _log_scale(axes[1, 1], [0.02, 0.03, 0.05, 0.1, 0.2, 0.3])
    legend(axes[1, 1])
    label(axes[1, 1], "epoch of back-propagation", "mean squared error", "Auto-encoders: mean and range", whole=True)
    final = final_errors(numbers, "reconstruction_errors") | {"PCA": np.array(numbers["pca_errors"])}
    _draw_seeds(axes[1, 2], final, [*codes, "PCA"])
    axes[1, 2].set_ylim(bottom=0)
    label(axes[1, 2], "start", "final mean squared error", "One line per seed, and means")
    return figure


def _log_scale(axes: Any, ticks: list[float]) -> None:
    """Make the vertical axis logarithmic, with plain numbers at those ticks that lie on it."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_yticks(shown, [f"{tick:g}" for tick in shown])
    axes.set_yticks([], minor=True)


def _style(name: str) -> dict[str, Any]:
    """Return a start's colour and line style, the same in every panel."""
    place = list(dict.fromkeys([PRETRAINED, *INITIALIZERS, RELU, *CODE_INITIALIZERS])).index(name)
    return look(place, None)


def _draw_curves(axes: Any, errors: dict[str, Any], names: list[str], first: int) -> None:
    for name in names:
        epochs = range(first, first + len(errors[name][0]))
        draw_range(axes, epochs, errors[name], (0, 1), linewidth=1.6, label=name, **_style(name))


def _draw_seeds(axes: Any, final: dict[str, Array], names: list[str]) -> None:
    """Draw each seed's errors as a line from start to start: pairs can be compared."""
    table = np.array([final[name] for name in names])
    for number, column in enumerate(table.T):
        axes.plot(column, color="0.7", linewidth=0.8, marker=MARKERS[number % len(MARKERS)], markersize=4, zorder=1)
    for place, (name, row) in enumerate(zip(names, table, strict=True)):
        colour = "0.3" if name == "PCA" else _style(name)["color"]
        axes.plot([place - 0.3, place + 0.3], [row.mean()] * 2, color=colour, linewidth=3, zorder=2)
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right")


def _draw_filters(axes: Any, numbers: Numbers) -> None:
    filters = np.array(numbers["filters"])
    rows = math.ceil(math.sqrt(len(filters)))
    grid = [filters[start : start + rows] for start in range(0, len(filters), rows)]
    axes.imshow(mosaic(grid, 0.0), cmap=DIVERGING_MAP, vmin=-1, vmax=1)
    axes.set_title(f"First machine: weights of {len(filters)} hidden units", fontsize=10)
    axes.set_axis_off()


def _draw_pictures(axes: Any, numbers: Numbers) -> None:
    names = list(numbers["pictures"])
    grid = [np.array(numbers["pictures"][name]) / PIXEL_LEVELS for name in names]
    pictures = mosaic(grid, 0.5)
    axes.imshow(pictures, cmap="gray_r", vmin=0, vmax=1)
    height = pictures.shape[0] / len(names)
    axes.set_yticks([height * (place + 0.5) for place in range(len(names))], names, fontsize=8)
    axes.set_xticks([])
    axes.set_title(f"Test images through {numbers['code'][-1]} numbers", fontsize=10)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
