"""L13: layers that were pre-trained without labels start a deep sigmoid network better than random numbers do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.lecture.experiment import Numbers, Settings
from gpunet.lecture.plotting import COLOURS, MARKERS, STYLES, label, panels
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

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

STUCK = 0.5  # test error of ten classes; guessing has 0.9

# Learning rates suit the best random start: chosen from 0.03 to 0.4 for the classifier, 0.01 to 0.04 for the code.
SIZES: dict[str, Any] = {
    "data": "mnist5k",
    "train_rows": 2000,
    "test_rows": 2000,
    "batch_size": 100,
    "hidden": [128] * 4,
    "epochs": 20,
    "more_epochs": 20,
    "seeds": 5,
    "learning_rate": 0.2,
    "code": [256, 64, 16],
    "code_epochs": 10,
    "code_seeds": 3,
    "code_learning_rate": 0.02,
    "pretraining": 10,
    "pretraining_batch_size": 50,
}
# Everything runs, on 8 x 8 pixels.
QUICK_SIZES: dict[str, Any] = SIZES | {"data": "digits", "train_rows": 300, "test_rows": 200, "seeds": 2}
QUICK_SIZES |= {"hidden": [24, 24], "epochs": 2, "more_epochs": 1, "pretraining": 2}
QUICK_SIZES |= {"code": [24, 4], "code_epochs": 2, "code_seeds": 2}


def measure(settings: Settings) -> dict[str, Any]:
    """Train classifiers and auto-encoders from pre-trained and from random weights, for several seeds."""
    return compare_starts(settings, QUICK_SIZES if settings.quick else SIZES)


# --- what the numbers show --------------------------------------------------------------------------------------------


def final_errors(numbers: Numbers, kind: str = "errors") -> dict[str, Array]:
    """Return the error after the last epoch of each start, one per seed."""
    return {name: np.array([epochs[-1] for epochs in seeds]) for name, seeds in numbers[kind].items()}


def paired_gain(numbers: Numbers) -> Array:
    """Return, for each seed, how far the best of that seed's random sigmoid starts is above the pre-trained one."""
    final = final_errors(numbers)
    return np.min([final[name] for name in INITIALIZERS], axis=0) - final[PRETRAINED]


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show.

    ``pretraining_wins``: for every seed, the pre-trained sigmoid network has a lower final test error than each random
    one of that seed; ``more_epochs_do_not_help``: also than the widest of them after its additional epochs.
    ``xavier_is_stuck``: with Xavier's weights more than half are wrong on average. ``relu_gets_there``: ReLU with batch
    norm has a mean of no more than the pre-trained one's and the standard deviation of their differences.
    ``code_beats_random`` and ``code_beats_pca``: for every seed, the pre-trained auto-encoder reconstructs test images
    better than the random ones, and than PCA.
    """
    final, codes = final_errors(numbers), final_errors(numbers, "reconstruction_errors")
    relu = final[RELU] - final[PRETRAINED]
    return {
        "pretraining_wins": bool((paired_gain(numbers) > 0).all()),
        "more_epochs_do_not_help": bool((final[PRETRAINED] < np.array(numbers["later_errors"])).all()),
        "xavier_is_stuck": bool(final[XAVIER].mean() > STUCK),
        "relu_gets_there": bool(100 * relu.mean() <= _spread(relu)),
        "code_beats_random": bool(all((codes[PRETRAINED] < codes[name]).all() for name in CODE_INITIALIZERS)),
        "code_beats_pca": bool((codes[PRETRAINED] < np.array(numbers["pca_errors"])).all()),
    }


def describe(numbers: Numbers) -> str:
    """Say what to look at and what this run showed."""
    return f"{_describe_classifiers(numbers)} {_describe_codes(numbers)}"


def _describe_classifiers(numbers: Numbers) -> str:
    shown, final, gain = claims(numbers), final_errors(numbers), paired_gain(numbers)
    later = np.array(numbers["later_errors"])
    random = ", ".join(f"{_percent(final[name])} {name}" for name in INITIALIZERS)
    won = "for every seed" if shown["pretraining_wins"] else f"for {int((gain > 0).sum())} of {len(gain)} seeds"
    more = "do not make up for it" if shown["more_epochs_do_not_help"] else "make up for it for some seed"
    xavier = "is still far from learning" if shown["xavier_is_stuck"] else "has learnt"
    relu = "gets there from random weights" if shown["relu_gets_there"] else "does not get there"
    return (
        f"Top row: {len(numbers['hidden'])} sigmoid layers of {numbers['hidden'][0]} units without batch norm, trained "
        f"on {numbers['train_rows']:,} images of {numbers['data']} for {numbers['epochs']} epochs by the same SGD: "
        f"from weights that {numbers['pretraining']} epochs of contrastive divergence per layer found without labels "
        f"(left: some of the first layer's), or from random ones. The shares of {numbers['test_rows']:,} test images "
        f"that are wrong, mean and standard deviation of {numbers['seeds']} seeds, are {_percent(final[PRETRAINED])} "
        f"pre-trained, and {random}. The pre-trained network beats the best random start of its seed {won}, by "
        f"{100 * gain.mean():.1f} points on average (standard deviation {_spread(gain):.1f}). Pre-training takes time "
        f"of its own, but {numbers['more_epochs']} more epochs for {LARGE} {more}: {_percent(later)}. Xavier's start, "
        f"meant for activations of slope 1 at 0, where the sigmoid's is 1/4, {xavier} after {numbers['epochs']} "
        f"epochs. What ended this chapter of history is on the right: {RELU} {relu}, {_percent(final[RELU])}."
    )


def _describe_codes(numbers: Numbers) -> str:
    shown, codes = claims(numbers), final_errors(numbers, "reconstruction_errors")
    others = " and ".join(f"{codes[name].mean():.4f} from {name}" for name in CODE_INITIALIZERS)
    random = "lower than" if shown["code_beats_random"] else "which is not for every seed lower than"
    pca = "and than" if shown["code_beats_pca"] else "and not for every seed lower than"
    return (
        f"Bottom row: the auto-encoder with layers of {', '.join(map(str, numbers['code']))} units, the last one a "
        f"linear code, unrolled and fine-tuned for {numbers['code_epochs']} epochs. Pre-trained, its mean squared "
        f"error per pixel of test images is {codes[PRETRAINED].mean():.4f} (mean of {numbers['code_seeds']} seeds), "
        f"{random} {others}, {pca} the {np.mean(numbers['pca_errors']):.4f} of {numbers['code'][-1]} principal "
        "components."
    )


def _percent(errors: Array) -> str:
    return f"{100 * errors.mean():.1f} ± {_spread(errors):.1f} %"


def _spread(errors: Array) -> float:
    """Return the standard deviation over seeds in percentage points."""
    return float(100 * errors.std(ddof=1)) if len(errors) > 1 else 0.0


# --- the figure -------------------------------------------------------------------------------------------------------


def draw(numbers: Numbers) -> Figure:
    """Draw filters, errors by epoch and by seed; below, reconstructions and their errors."""
    figure, axes = panels(2, 3, width=1.15, height=1.1)
    names = [PRETRAINED, *INITIALIZERS, RELU]
    _draw_filters(axes[0, 0], numbers)
    _draw_curves(axes[0, 1], numbers["errors"], names, 1)
    axes[0, 1].legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False)
    label(axes[0, 1], x="epoch of back-propagation", y="test error (share wrong)", title="Classifiers: mean and range")
    _draw_seeds(axes[0, 2], final_errors(numbers), names)
    label(axes[0, 2], x="start", y="final test error (share wrong)", title="One line per seed, and means")
    for panel in axes[0, 1:]:
        _log_scale(panel, [0.03, 0.05, 0.1, 0.2, 0.5, 1.0])
    _draw_pictures(axes[1, 0], numbers)
    codes = [PRETRAINED, *CODE_INITIALIZERS]
    _draw_curves(axes[1, 1], numbers["reconstruction_errors"], codes, 0)
    pca = float(np.mean(numbers["pca_errors"]))
    axes[1, 1].axhline(pca, color="0.3", linewidth=1, linestyle=(0, (1, 2)), label="PCA")
    _log_scale(axes[1, 1], [0.02, 0.03, 0.05, 0.1, 0.2, 0.3])
    axes[1, 1].legend(fontsize=8)
    label(axes[1, 1], x="epoch of back-propagation", y="mean squared error", title="Auto-encoders: mean and range")
    final = final_errors(numbers, "reconstruction_errors") | {"PCA": np.array(numbers["pca_errors"])}
    _draw_seeds(axes[1, 2], final, [*codes, "PCA"])
    axes[1, 2].set_ylim(bottom=0)
    for panel in axes[:, 1]:
        panel.xaxis.get_major_locator().set_params(integer=True)
    label(axes[1, 2], x="start", y="final mean squared error", title="One line per seed, and means")
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
    return {"color": COLOURS[place], "linestyle": STYLES[place]}


def _draw_curves(axes: Any, errors: dict[str, Any], names: list[str], first: int) -> None:
    for name in names:
        curves = np.array(errors[name])
        epochs = np.arange(first, first + curves.shape[1])
        axes.plot(epochs, curves.mean(axis=0), linewidth=1.6, label=name, **_style(name))
        axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=_style(name)["color"], alpha=0.15)


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
    axes.imshow(_mosaic(grid, 0.0), cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_title(f"First machine: weights of {len(filters)} hidden units", fontsize=10)
    axes.set_axis_off()


def _draw_pictures(axes: Any, numbers: Numbers) -> None:
    names = list(numbers["pictures"])
    grid = [np.array(numbers["pictures"][name]) / PIXEL_LEVELS for name in names]
    mosaic = _mosaic(grid, 0.5)
    axes.imshow(mosaic, cmap="gray_r", vmin=0, vmax=1)
    height = mosaic.shape[0] / len(names)
    axes.set_yticks([height * (place + 0.5) for place in range(len(names))], names, fontsize=8)
    axes.set_xticks([])
    axes.set_title(f"Test images through {numbers['code'][-1]} numbers", fontsize=10)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)


def _mosaic(grid: list[Array], border: float) -> Array:
    """Return rows of square pictures as one picture, a pixel of ``border`` between them."""
    side = math.isqrt(grid[0].shape[1])
    columns = max(len(row) for row in grid)
    mosaic = np.full((len(grid) * (side + 1), columns * (side + 1)), border)
    for down, row in enumerate(grid):
        for right, picture in enumerate(row):
            top, left = down * (side + 1), right * (side + 1)
            mosaic[top : top + side, left : left + side] = picture.reshape(side, side)
    return mosaic[:-1, :-1]
