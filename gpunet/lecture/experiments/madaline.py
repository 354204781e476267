"""L11: what a Madaline learns that an ADALINE cannot: XOR, and the parity of some of 20 features."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpunet.classic.adaline import Adaline
from gpunet.classic.madaline import Madaline
from gpunet.errors import ConvergenceWarning
from gpunet.lecture.experiment import Numbers, Settings
from gpunet.lecture.plane import draw_points, draw_regions, exclusive_or, grid, rounded
from gpunet.lecture.plotting import COLOURS, MARKERS, STYLES, label, panels
from gpunet.random import Purpose, host_generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

EXTENT, RESOLUTION = 2.0, 301
FEATURES = 20
RELEVANT = (1, 2, 3, 4)
TRAINING_ROWS, TEST_ROWS = 1000, 2000

# Thresholds of the claims.
LEARNT = 0.95
GUESSING = 0.6
ONE_LINE = 0.8  # above the three of four clouds that a line can get right
HIGH, LOW, SUDDEN = 0.4, 0.05, 5


def measure(settings: Settings) -> dict[str, Any]:
    """Train on four clouds, and on the parity of the first k of 20 features of -1 and +1, k = 1 to 4."""
    seeds = 2 if settings.quick else 5
    epochs = 3 if settings.quick else 40
    rows = 200 if settings.quick else TRAINING_ROWS
    return {
        "xor": _xor(settings),
        "features": FEATURES,
        "training_rows": rows,
        "test_rows": TEST_ROWS,
        "max_epochs": epochs,
        "parity": {
            str(relevant): [_parity(settings, relevant, run, rows, epochs) for run in range(seeds)]
            for relevant in RELEVANT
        },
    }


def _xor(settings: Settings) -> dict[str, Any]:
    """Return the weights of an ADALINE and of a Madaline with two hidden units, (w_1, w_2, b), on four clouds."""
    X, y = exclusive_or(80, 0.2, host_generator(settings.seed, Purpose.NOISE))
    adaline = Adaline(seed=settings.seed).fit(X, y)
    madaline = _fit(Madaline(hidden_units=2, seed=settings.seed), X, y)
    return {
        "X": rounded(X),
        "y": y.tolist(),
        "adaline": [*adaline.coef_.tolist(), adaline.intercept_],
        "hidden": np.column_stack([madaline.hidden_coef_, madaline.hidden_intercept_]).tolist(),
        "output": [*madaline.output_coef_.tolist(), madaline.output_intercept_],
        "accuracy": {"ADALINE": adaline.score(X, y), "Madaline": madaline.score(X, y)},
        "epochs": madaline.n_iter_,
    }


def _parity(settings: Settings, relevant: int, run: int, rows: int, epochs: int) -> dict[str, Any]:
    generator = host_generator(settings.seed, Purpose.NOISE, 1 + run)
    X = generator.choice([-1.0, 1.0], (rows + TEST_ROWS, FEATURES))
    y = X[:, :relevant].prod(axis=1)
    seed = settings.seed + run
    adaline = Adaline(learning_rate=0.005, seed=seed).fit(X[:rows], y[:rows])
    madaline = _fit(Madaline(seed=seed, max_epochs=epochs), X[:rows], y[:rows])
    return {
        "ADALINE": adaline.score(X[rows:], y[rows:]),
        "Madaline": madaline.score(X[rows:], y[rows:]),
        "converged": madaline.converged_,
        "errors": [errors / rows for errors in madaline.history_["errors"]],
    }


def _fit(model: Madaline, X: Array, y: Array) -> Madaline:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the numbers say which runs converged
        return model.fit(X, y)


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show.

    ``xor_learnt``: the Madaline classifies all clouds rightly; ``xor_needs_two_lines``: the ADALINE at most 80 %.
    ``one_line_learnt``: for k = 1 every seed of either reaches a test accuracy of 0.95.
    ``parity_of_three_learnt``: every seed's Madaline reaches a test accuracy of 0.95, where ``adaline_guesses`` below
    0.6 in the mean. ``sudden``: in every run that ends without errors, at most 5 epochs lie between the last with 40%
    wrong and the first with less than 5%. ``parity_of_four_is_too_hard``: no seed's Madaline gets above 0.6 there.
    """
    xor, three, four = numbers["xor"]["accuracy"], numbers["parity"]["3"], numbers["parity"]["4"]
    return {
        "xor_learnt": xor["Madaline"] == 1,
        "xor_needs_two_lines": xor["ADALINE"] <= ONE_LINE,
        "one_line_learnt": min(min(run["ADALINE"], run["Madaline"]) for run in numbers["parity"]["1"]) >= LEARNT,
        "parity_of_three_learnt": min(run["Madaline"] for run in three) >= LEARNT,
        "adaline_guesses": float(np.mean([run["ADALINE"] for run in three])) < GUESSING,
        "sudden": all(_fall(run["errors"]) <= SUDDEN for run in three if run["converged"]),
        "parity_of_four_is_too_hard": max(run["Madaline"] for run in four) < GUESSING,
    }


def _fall(errors: list[float]) -> int:
    """Return how many epochs after the last with a high share of errors the first with a low one comes."""
    high = [epoch for epoch, share in enumerate(errors) if share >= HIGH]
    low = next(epoch for epoch, share in enumerate(errors) if share < LOW)
    return low - high[-1] if high else 0


def describe(numbers: Numbers) -> str:
    """Say what to look at and what this run showed."""
    shown, xor, parity = claims(numbers), numbers["xor"], numbers["parity"]
    mean = {
        (name, relevant): float(np.mean([run[name] for run in runs]))
        for relevant, runs in parity.items()
        for name in ("ADALINE", "Madaline")
    }
    one_line = "no line separates" if shown["xor_needs_two_lines"] else "a line separates better than it should"
    learnt = "learns them" if shown["xor_learnt"] else "does not learn all of them from this seed"
    three = "learns it from every seed" if shown["parity_of_three_learnt"] else "does not learn it well from every seed"
    guesses = "can only guess" if shown["adaline_guesses"] else "does better than guessing"
    sudden = (
        "its errors stay near one half for some epochs, and then are gone within a few"
        if shown["sudden"]
        else "its errors fall step by step"
    )
    one = "both learn it" if shown["one_line_learnt"] else "yet not both learn it from every seed"
    four = (
        "the parity of 4 is beyond it here, and every seed stays at guessing"
        if shown["parity_of_four_is_too_hard"]
        else "the parity of 4 it learns at least in part"
    )
    return (
        f"The first two panels show four clouds whose class is the XOR of their signs: {one_line} them (the ADALINE "
        f"gets {xor['accuracy']['ADALINE']:.0%} right), and a Madaline of two hidden units, whose two lines are drawn, "
        f"{learnt} ({xor['accuracy']['Madaline']:.0%}, after {xor['epochs']} epochs). The task of the other panels is "
        f"the parity, the product, of the first k of {numbers['features']} features of -1 and +1, from "
        f"{numbers['training_rows']} examples; k is not told, and for k of 2 or more no feature alone says anything. "
        f"With 5 hidden units and k = 3, Madaline Rule II {three}: a test accuracy of {mean['Madaline', '3']:.1%} "
        f"(mean of {len(parity['3'])} seeds) where an ADALINE {guesses} ({mean['ADALINE', '3']:.1%}); {sudden}. "
        f"For k = 1 one line is enough, and {one} ({mean['Madaline', '1']:.1%} and "
        f"{mean['ADALINE', '1']:.1%}); {four} ({mean['Madaline', '4']:.1%} after {numbers['max_epochs']} epochs)."
    )


def draw(numbers: Numbers) -> Figure:
    """Draw the regions on XOR, the errors over the epochs, and the accuracy over k."""
    figure, axes = panels(1, 4, width=0.95, height=1.1)
    xor = numbers["xor"]
    points = grid(EXTENT, RESOLUTION)
    adaline = _scores(points, [xor["adaline"]])[:, 0]
    hidden = np.where(_scores(points, xor["hidden"]) > 0, 1.0, -1.0)
    madaline = _scores(hidden, [xor["output"]])[:, 0]
    for panel, name, scores in zip(axes[0, :2], ("ADALINE", "Madaline"), (adaline, madaline), strict=True):
        draw_regions(panel, scores.reshape(RESOLUTION, RESOLUTION), EXTENT)
        draw_points(panel, xor["X"], xor["y"], size=14)
        label(panel, x="$x_1$", y="$x_2$", title=f"{name}: {xor['accuracy'][name]:.0%} right")
        panel.grid(False)
    for first, second, bias in xor["hidden"]:
        foot = -bias / (first**2 + second**2) * np.array([first, second])
        ends = np.array([foot + side * 4 * EXTENT * np.array([-second, first]) for side in (-1, 1)])
        axes[0, 1].plot(*ends.T, color=COLOURS[6], linestyle="--", linewidth=1.2, scalex=False, scaley=False)
    _draw_errors(axes[0, 2], numbers["parity"]["3"])
    _draw_accuracies(axes[0, 3], numbers)
    return figure


def _scores(inputs: Array, units: list[list[float]]) -> Array:
    """Return w . x + b for each row and each unit (w, b)."""
    weights = np.array(units)
    return inputs @ weights[:, :-1].T + weights[:, -1]


def _draw_errors(panel: Any, runs: list[Numbers]) -> None:
    for place, run in enumerate(runs):
        look = {"color": COLOURS[place], "linestyle": STYLES[place], "marker": MARKERS[place], "markersize": 3}
        panel.plot(np.arange(1, len(run["errors"]) + 1), run["errors"], **look, label=f"{place + 1}")
    label(panel, x="epoch", y="share of training examples wrong", title="Madaline, parity of k = 3")
    panel.set_ylim(-0.02, 0.72)
    panel.legend(fontsize=8, title="seed", title_fontsize=8, ncols=5, loc="upper center", handlelength=1.5)


def _draw_accuracies(panel: Any, numbers: Numbers) -> None:
    for place, name in enumerate(("ADALINE", "Madaline")):
        offset = 0.08 * (2 * place - 1)
        ks = [int(relevant) for relevant in numbers["parity"]]
        values = [[run[name] for run in runs] for runs in numbers["parity"].values()]
        for k, found in zip(ks, values, strict=True):
            panel.plot(np.full(len(found), k + offset), found, MARKERS[place], color=COLOURS[place], markersize=5)
        means = [np.mean(found) for found in values]
        panel.plot(
            np.array(ks) + offset,
            means,
            color=COLOURS[place],
            linestyle=STYLES[place],
            marker=MARKERS[place],
            label=name,
        )
    panel.axhline(0.5, color=COLOURS[6], linewidth=0.8, linestyle=":", label="guessing")
    panel.set_xticks(ks)
    panel.set_ylim(0.25, 1.03)
    label(panel, x="relevant features k of 20", y=f"accuracy on {numbers['test_rows']} test rows", title="parity")
    panel.legend(fontsize=8, loc="lower left")
