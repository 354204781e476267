"""L11: what a Madaline learns that an ADALINE cannot: XOR, and the parity of some of 20 features."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.classic.adaline import Adaline
from gpunet.classic.madaline import Madaline
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plane import draw_line, draw_plane, exclusive_or, grid, name_what_is_drawn
from gpunet.lecture.plotting import COLOURS, MARKERS, Figure, draw_lines, label, legend, look, panels
from gpunet.lecture.probing import fit_quietly
from gpunet.lecture.wording import rounded
from gpunet.random import Purpose, host_generator

EXTENT, RESOLUTION = 2.0, 301
FEATURES = 20
RELEVANT = (1, 2, 3, 4)
TRAINING_ROWS, TEST_ROWS = 1000, 2000

LEARNT = 0.95
GUESSING = 0.6
ONE_LINE = 0.8  # above the three of four clouds that a line can get right
HIGH, LOW, SUDDEN = 0.4, 0.05, 5


def measure(settings: Settings) -> dict[str, Any]:
    """Train on four clouds, and on the parity of the first k of 20 features of -1 and +1, k = 1 to 4."""
    seeds, epochs, rows = (2, 3, 200) if settings.quick else (5, 40, TRAINING_ROWS)
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
    madaline = fit_quietly(Madaline(hidden_units=2, seed=settings.seed), X, y)
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
    madaline = fit_quietly(Madaline(seed=seed, max_epochs=epochs), X[:rows], y[:rows])
    return {
        "ADALINE": adaline.score(X[rows:], y[rows:]),
        "Madaline": madaline.score(X[rows:], y[rows:]),
        "converged": madaline.converged_,
        "errors": [errors / rows for errors in madaline.history_["errors"]],
    }


def about(numbers: Numbers) -> str:
    return (
        "The first two panels show four clouds whose class is the XOR of their signs, divided by an ADALINE and by a "
        f"Madaline of two hidden units, whose two lines are drawn, after {numbers['xor']['epochs']} epochs. The others "
        f"have the parity, the product, of the first k of {numbers['features']} features of -1 and +1, from "
        f"{numbers['training_rows']} examples, with 5 hidden units, {len(numbers['parity']['3'])} seeds and at most "
        f"{numbers['max_epochs']} epochs; for k of 2 or more no feature alone says anything."
    )


def claims(numbers: Numbers) -> Claims:
    xor, parity = numbers["xor"]["accuracy"], numbers["parity"]
    adaline, madaline = (
        {k: [run[name] for run in runs] for k, runs in parity.items()} for name in ("ADALINE", "Madaline")
    )
    means = {k: f"means {np.mean(madaline[k]):.1%} and {np.mean(adaline[k]):.1%}" for k in parity}
    longest = max([_fall(run["errors"]) for run in parity["3"] if run["converged"]], default=0)
    return {
        "xor_needs_two_lines": Claim(
            f"No line separates the clouds: the ADALINE gets at most {ONE_LINE:.0%}",
            xor["ADALINE"] <= ONE_LINE,
            f"{xor['ADALINE']:.0%}",
        ),
        "xor_learnt": Claim("The Madaline learns them all", xor["Madaline"] == 1, f"{xor['Madaline']:.0%}"),
        "one_line_learnt": Claim(
            f"For k = 1 one line is enough: Madaline and ADALINE reach {LEARNT:.0%} on test rows from every seed",
            min(*adaline["1"], *madaline["1"]) >= LEARNT,
            means["1"],
        ),
        "parity_of_three_learnt": Claim.at_least(
            "For k = 3 the Madaline's worst seed reaches", min(madaline["3"]), LEARNT
        ),
        "adaline_guesses": Claim(
            f"There an ADALINE can only guess, below {GUESSING:.0%} in the mean",
            float(np.mean(adaline["3"])) < GUESSING,
            means["3"],
        ),
        "sudden": Claim(
            f"Errors stay near one half for some epochs, then fall from {HIGH:.0%} to {LOW:.0%} within {SUDDEN}",
            longest <= SUDDEN,
            f"{longest} at most",
        ),
        "parity_of_four_is_too_hard": Claim(
            f"The parity of 4 is beyond it here: no seed gets above {GUESSING:.0%}",
            max(madaline["4"]) < GUESSING,
            means["4"],
        ),
    }


def _fall(errors: list[float]) -> int:
    """Return how many epochs after the last with a high share of errors the first with a low one comes."""
    high = [epoch for epoch, share in enumerate(errors) if share >= HIGH]
    low = next(epoch for epoch, share in enumerate(errors) if share < LOW)
    return low - high[-1] if high else 0


def draw(numbers: Numbers) -> Figure:
    figure, (axes,) = panels(1, 4, width=0.95, height=1.1)
    xor, points = numbers["xor"], grid(EXTENT, RESOLUTION)
    hidden = np.where(_scores(points, xor["hidden"]) > 0, 1.0, -1.0)
    answers = {"ADALINE": _scores(points, [xor["adaline"]]), "Madaline": _scores(hidden, [xor["output"]])}
    for panel, (name, scores) in zip(axes, answers.items(), strict=False):
        title = f"{name}: {xor['accuracy'][name]:.0%} right"
        draw_plane(panel, scores.reshape(RESOLUTION, RESOLUTION), xor["X"], xor["y"], EXTENT, title, size=14)
    for unit, name in zip(xor["hidden"], ("hidden unit", ""), strict=True):
        draw_line(axes[1], unit, color=COLOURS[6], linestyle="--", linewidth=1.2, label=name)
    for panel in axes[:2]:
        name_what_is_drawn(panel)
    draw_lines(axes[2], {f"{seed}": run["errors"] for seed, run in enumerate(numbers["parity"]["3"], 1)}, size=3)
    label(axes[2], "epoch", "share of training examples wrong", "Madaline, parity of $k$ = 3")
    axes[2].set_ylim(-0.02, 0.72)
    legend(axes[2], "upper center", title="seed", ncols=5, handlelength=1.5)
    _draw_accuracies(axes[3], numbers)
    return figure


def _scores(inputs: Array, units: list[list[float]]) -> Array:
    """Return w . x + b for each row and each unit (w, b)."""
    weights = np.array(units)
    return inputs @ weights[:, :-1].T + weights[:, -1]


def _draw_accuracies(panel: Any, numbers: Numbers) -> None:
    ks = np.array([int(relevant) for relevant in numbers["parity"]])
    for place, name in enumerate(("ADALINE", "Madaline")):
        beside = ks + 0.08 * (2 * place - 1)
        values = [[run[name] for run in runs] for runs in numbers["parity"].values()]
        for k, found in zip(beside, values, strict=True):
            panel.plot(np.full(len(found), k), found, MARKERS[place], color=COLOURS[place], markersize=5)
        panel.plot(beside, [np.mean(found) for found in values], label=name, **look(place, 6))
    panel.axhline(0.5, color=COLOURS[6], linewidth=0.8, linestyle=":", label="guessing")
    panel.set_xticks(ks)
    panel.set_ylim(0.25, 1.03)
    label(panel, "relevant features $k$ of 20", f"accuracy on {numbers['test_rows']} test rows", "parity")
    legend(panel, "lower left")
