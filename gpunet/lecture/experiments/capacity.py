"""L8: the decision boundary with the number of hidden nodes, the initial weights and L2; big model or small model."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plane import decision_map, draw_plane, moons, name_classes
from gpunet.lecture.plotting import COLOURS, MARKERS, Figure, label, panels
from gpunet.lecture.wording import listing, rounded
from gpunet.network import Network
from gpunet.optimizers import Adam
from gpunet.random import Purpose, host_generator
from gpunet.schedules import CosineRate
from gpunet.training import evaluate, fit

ROWS, NOISE = 100, 0.32
EXTENT = 2.2
WIDTHS = (2, 3, 10, 100)
BIG = 100
LAMBDAS = (3e-4, 1e-3, 3e-3, 1e-2)  # to choose from
SHOWN_LAMBDAS = (1e-4, 1e-3, 1e-2)
SMALL_WIDTHS = (2, 3, 4, 6)
TRIALS = 12
STEPS, REPEATS, RATE = 500, 20, 0.03
SHIFT_OF_SEED = 1000  # between the initial weights of the first row of panels and those of the second
CLEAR = 2.0  # standard errors of a mean difference
SMOOTHER = 0.9  # of the boundary's length
DIFFERENT = 0.01  # of the square
FITS = 0.7  # of the narrowest network's training error
OVERFITS = 0.03  # error on new points less that on the training points


def measure(settings: Settings) -> dict[str, Any]:
    """Train 2-m-2 networks on two noisy half moons."""
    points, labels = moons(ROWS, NOISE, host_generator(settings.seed, Purpose.SPLIT))
    test = moons(4000, NOISE, host_generator(settings.seed, Purpose.SPLIT, 1))
    resolution = 40 if settings.quick else 80

    def shown(m: int, seed: int, l2: float) -> dict[str, Any]:
        network = _trained(settings, points, labels, m, seed, l2)
        return {
            "m": m,
            "l2": l2,
            "train_error": _error(network, points, labels),
            "test_error": _error(network, *test),
            "decision": decision_map(network, EXTENT, resolution),
        }

    return {
        "points": rounded(points),
        "labels": labels.tolist(),
        "by_width": [[shown(m, seed, 0.0) for m in WIDTHS] for seed in (0, SHIFT_OF_SEED)],
        "by_l2": [shown(BIG, 0, l2) for l2 in SHOWN_LAMBDAS],
        "trials": [_trial(settings, trial) for trial in range(2 if settings.quick else TRIALS)],
    }


def _trained(settings: Settings, X: Array, y: Array, m: int, seed: int, l2: float) -> Network:
    network = settings.network([2, m, 2], batch_norm=False, seed=settings.seed + seed)
    # Every point twenty times: an epoch of one small step would cost more than the step.
    many, answers = np.tile(X, (REPEATS, 1)), np.tile(y, REPEATS)
    epochs = 1 if settings.quick else STEPS // REPEATS
    optimizer = Adam(CosineRate(RATE, epochs * REPEATS))
    fit(network, many, answers, epochs=epochs, batch_size=len(X), optimizer=optimizer, l2=l2)
    return network


def _error(network: Network, X: Array, y: Array) -> float:
    return 1 - (evaluate(network, X, y).accuracy or 0.0)


def _trial(settings: Settings, trial: int) -> dict[str, Any]:
    """Return test errors of new data and weights: width and lambda are chosen on other data than they are judged on."""
    train, validation, test = (
        moons(rows, NOISE, host_generator(settings.seed, Purpose.SPLIT, 10 + 3 * trial + part))
        for part, rows in enumerate((ROWS, ROWS, 4000))
    )

    def judged(m: int, l2: float) -> dict[str, Any]:
        network = _trained(settings, *train, m, trial + 1, l2)
        return {"m": m, "l2": l2, "validation": _error(network, *validation), "test": _error(network, *test)}

    big = [judged(BIG, l2) for l2 in LAMBDAS]
    small = [judged(m, 0.0) for m in SMALL_WIDTHS]
    return {
        "big": judged(BIG, 0.0),
        "big_with_l2": min(big, key=lambda one: one["validation"]),
        "small": min(small, key=lambda one: one["validation"]),
    }


def _summary(numbers: Numbers) -> dict[str, tuple[float, float]]:
    """Return mean and standard deviation of the test error over the trials."""
    errors = {name: [trial[name]["test"] for trial in numbers["trials"]] for name in ("big", "big_with_l2", "small")}
    return {name: (float(np.mean(found)), float(np.std(found, ddof=1))) for name, found in errors.items()}


def _standard_errors_ahead(numbers: Numbers, better: str, worse: str) -> float:
    """Return the mean difference of the test errors, in standard errors of it: pairs share their data."""
    gaps = [trial[worse]["test"] - trial[better]["test"] for trial in numbers["trials"]]
    return float(np.mean(gaps) / max(float(np.std(gaps, ddof=1)) / len(gaps) ** 0.5, 1e-12))


def _percent(entries: list[Numbers], key: str) -> str:
    return listing(f"{entry[key]:.0%}" for entry in entries)


def about(numbers: Numbers) -> str:
    first, _ = numbers["by_width"]
    points = len(numbers["labels"])
    summary = _summary(numbers).items()
    errors = {name: f"{100 * mean:.1f} \u00b1 {100 * spread:.1f}%" for name, (mean, spread) in summary}
    return (
        f"Two half moons with noise, {points} points, and 2-m-2 networks. Upper row, m = "
        f"{listing(entry['m'] for entry in first)} without regularisation: {_percent(first, 'train_error')} of the "
        f"points are on the wrong side, and {_percent(first, 'test_error')} of new ones. Middle row, from other "
        f"initial weights. Lower row, m = {BIG} with L2: {_percent(numbers['by_l2'], 'test_error')} of new points are "
        f"wrong. Last panel, {len(numbers['trials'])} draws of data and weights: the error on 4,000 new points is "
        f"{errors['big']} with m = {BIG} (mean and standard deviation), {errors['big_with_l2']} with lambda chosen on "
        f"{points} other points, and {errors['small']} without L2 and m chosen there from {SMALL_WIDTHS[0]} to "
        f"{SMALL_WIDTHS[-1]}."
    )


def claims(numbers: Numbers) -> Claims:
    first, second = numbers["by_width"]
    narrow, wide = first[0], first[-1]
    differences = [_disagreement(one, other) for one, other in zip(first, second, strict=True)]
    lengths = [_boundary_length(entry) for entry in (wide, numbers["by_l2"][-1])]
    helps, beats = (_standard_errors_ahead(numbers, "big_with_l2", worse) for worse in ("big", "small"))
    return {
        "wide_fits_training": Claim(
            f"Many nodes fit the points better: {BIG} have less than {FITS:g} of the error of {WIDTHS[0]}",
            wide["train_error"] < FITS * narrow["train_error"],
            f"{wide['train_error']:.0%} and {narrow['train_error']:.0%}",
        ),
        "wide_overfits": Claim(
            f"They fit noise too: on new points the error is larger by more than {OVERFITS:g}",
            _gap(wide) > OVERFITS and _gap(wide) > _gap(narrow),
            f"by {_gap(wide):.3f}, with m = {WIDTHS[0]} by {_gap(narrow):.3f}",
        ),
        "depends_on_initialisation": Claim(
            f"Other initial weights change more than {DIFFERENT:.0%} of the square for some m",
            max(differences) > DIFFERENT,
            listing(f"{share:.0%}" for share in differences),
        ),
        "l2_smooths": Claim(
            f"L2 smooths the boundary: lambda = {SHOWN_LAMBDAS[-1]:g} leaves less than {SMOOTHER:g} of its length",
            lengths[1] < SMOOTHER * lengths[0],
            f"{lengths[1]:.1f} and {lengths[0]:.1f} units along the grid",
        ),
        "l2_helps_big": Claim(
            f"L2 helps the big model, by more than {CLEAR:g} standard errors", helps > CLEAR, f"{helps:+.1f}"
        ),
        "big_with_l2_beats_small": Claim(
            f"With L2 it beats the small one, as the lecture has it, by more than {CLEAR:g} standard errors",
            beats > CLEAR,
            f"{beats:+.1f}",
        ),
    }


def _gap(entry: Numbers) -> float:
    return float(entry["test_error"] - entry["train_error"])


def _disagreement(one: Numbers, other: Numbers) -> float:
    """Return the share of the square that two networks give to different classes."""
    return float(np.mean((np.asarray(one["decision"]) > 0) != (np.asarray(other["decision"]) > 0)))


def _boundary_length(entry: Numbers) -> float:
    """Return the length of the boundary along the edges of the grid's cells, in units of x."""
    answers = np.asarray(entry["decision"]) > 0
    changes = (answers[1:] != answers[:-1]).sum() + (answers[:, 1:] != answers[:, :-1]).sum()
    return float(changes * 2 * EXTENT / (len(answers) - 1))


def draw(numbers: Numbers) -> Figure:
    figure, axes = panels(3, 4, width=0.68, height=0.97)
    for row, start in enumerate(("", "other weights, ")):
        for place, entry in zip(axes[row], numbers["by_width"][row], strict=True):
            _draw_boundary(place, numbers, entry, f"{start}$m$ = {entry['m']}")
    for place, entry in zip(axes[2], numbers["by_l2"], strict=False):
        _draw_boundary(place, numbers, entry, f"$m$ = {entry['m']}, $\\lambda$ = {entry['l2']:g}")
    _draw_trials(axes[2, 3], numbers)
    name_classes(figure, axes[0, 0])
    return figure


def _draw_boundary(axes: Any, numbers: Numbers, entry: Numbers, title: str) -> None:
    errors = f"{entry['train_error']:.0%} of these points wrong,\n{entry['test_error']:.1%} of new ones"
    draw_plane(axes, entry["decision"], numbers["points"], numbers["labels"], EXTENT, f"{title}\n{errors}")


def _draw_trials(axes: Any, numbers: Numbers) -> None:
    names = {"big": f"$m$ = {BIG}", "big_with_l2": f"$m$ = {BIG}\nwith L2", "small": "small $m$"}
    for place, (name, (mean, spread)) in enumerate(_summary(numbers).items()):
        errors = [100 * trial[name]["test"] for trial in numbers["trials"]]
        beside = np.linspace(-0.25, 0.05, len(errors))
        axes.plot(place + beside, errors, MARKERS[0], color=COLOURS[4], markersize=4)
        axes.errorbar(place + 0.2, 100 * mean, 100 * spread, color=COLOURS[place], marker=MARKERS[1], capsize=4)
    axes.set_xticks(range(len(names)), names.values())
    label(axes, "", "new points wrong, %", f"{len(numbers['trials'])} draws, and their\nmean and standard deviation")
