"""L12: the generalised delta rule on the problems of 1986: XOR, the encoder, and symmetry."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.classic.delta_rule import DeltaRule
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import COLOURS, MAP, Figure, draw_bars, label, legend, panels
from gpunet.lecture.probing import fit_quietly
from gpunet.lecture.wording import rounded

PATTERNS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float64)
XOR = np.array([0.0, 1.0, 1.0, 0.0])
XOR_TOLERANCE = 0.2
TOLERANCE = 0.3
BITS = 6

MOST = 0.7
APART = 0.3
OPPOSITE = 0.1
DISTINCT = 1.3
SYMMETRY_ATTEMPTS = 3


def measure(settings: Settings) -> dict[str, Any]:
    """Train on XOR from several seeds, on the 8-3-8 encoder, and on the symmetry of 6 bits."""
    return {
        "xor": _xor(settings, seeds=2 if settings.quick else 20, epochs=20 if settings.quick else 500),
        "encoder": _encoder(settings, epochs=20 if settings.quick else 1500),
        "symmetry": _symmetry(settings, epochs=2 if settings.quick else 900),
    }


def _rule(settings: Settings, **arguments: Any) -> DeltaRule:
    return DeltaRule(**{"device": settings.device, "seed": settings.seed, "dtype": "float32", **arguments})


def _xor(settings: Settings, seeds: int, epochs: int) -> dict[str, Any]:
    runs = []
    for run in range(seeds):
        arguments = {"learning_rate": 0.5, "epochs": epochs, "tolerance": XOR_TOLERANCE}
        model = _rule(settings, seed=settings.seed * seeds + run, **arguments)
        fit_quietly(model, PATTERNS, XOR)
        outputs = rounded(model.predict(PATTERNS), 3)
        runs.append({"error": rounded(model.history_["error"]), "learnt": model.converged_, "outputs": outputs})
    return {"learning_rate": 0.5, "momentum": 0.9, "epochs": epochs, "tolerance": XOR_TOLERANCE, "runs": runs}


def _encoder(settings: Settings, epochs: int) -> dict[str, Any]:
    patterns = np.eye(8)
    model = fit_quietly(_rule(settings, hidden_units=3, epochs=epochs, tolerance=TOLERANCE), patterns, patterns)
    return {
        "codes": rounded(model.hidden_outputs(patterns), 3),
        "epochs": model.n_iter_,
        "right": int((model.predict(patterns).argmax(axis=1) == np.arange(8)).sum()),
    }


def _symmetry(settings: Settings, epochs: int) -> dict[str, Any]:
    """Return the hidden weights of the first seed that learns which 6-bit patterns are palindromes."""
    patterns = np.array([[code >> bit & 1 for bit in range(BITS)] for code in range(2**BITS)], dtype=np.float64)
    targets = (patterns == patterns[:, ::-1]).all(axis=1).astype(np.float64)
    for attempt in range(1, SYMMETRY_ATTEMPTS + 1):
        # The rate and the range of the paper's own solution.
        arguments = {"learning_rate": 0.1, "initial_range": 0.3, "epochs": epochs, "tolerance": TOLERANCE}
        model = _rule(settings, seed=settings.seed * SYMMETRY_ATTEMPTS + attempt - 1, **arguments)
        if fit_quietly(model, patterns, targets).converged_:
            break
    parameters = model.network_.get_parameters()
    return {
        "weights": rounded(parameters["W1"]),
        "epochs": model.n_iter_,
        "attempts": attempt,
        "accuracy": float(np.mean((model.predict(patterns) > 0.5) == (targets > 0.5))),
    }


def _closest(codes: npt.ArrayLike) -> float:
    """Return the least distance between two codes, in the unit where they differ most."""
    outputs = np.asarray(codes, np.float64)
    distances = np.abs(outputs[:, np.newaxis] - outputs).max(axis=2)
    return float(distances[~np.eye(len(outputs), dtype=bool)].min())


def _sizes(weights: npt.ArrayLike) -> list[float]:
    """Return the mean sizes of the weights of the pairs of bits, the smallest first and as 1."""
    sizes = np.abs(np.asarray(weights, np.float64))
    pairs = np.sort((sizes + sizes[:, ::-1])[:, : BITS // 2], axis=1).mean(axis=0)
    return [float(size / pairs.min()) for size in pairs]


def about(numbers: Numbers) -> str:
    xor, symmetry = numbers["xor"], numbers["symmetry"]
    return (
        f"On the left, E = 1/2 sum (t - o)^2 over the four patterns of XOR, for {len(xor['runs'])} seeds with two "
        f"hidden sigmoid units, updates after each pattern, eta = {xor['learning_rate']:g} and alpha = "
        f"{xor['momentum']:g}. In the middle, the outputs of the hidden units of the 8-3-8 encoder after "
        f"{numbers['encoder']['epochs']} epochs. On the right, the weights from six bits to two hidden units that "
        f"decide whether the bits read the same both ways, after {symmetry['epochs']} epochs (attempt "
        f"{symmetry['attempts']} of {SYMMETRY_ATTEMPTS} seeds)."
    )


def claims(numbers: Numbers) -> Claims:
    encoder, symmetry, runs = numbers["encoder"], numbers["symmetry"], numbers["xor"]["runs"]
    learnt = [len(run["error"]) for run in runs if run["learnt"]]
    stuck = [run["error"][-1] for run in runs if not run["learnt"]]
    weights, right = np.array(symmetry["weights"]), symmetry["accuracy"]
    sizes, apart = _sizes(weights), _closest(encoder["codes"])
    unlike = float(np.abs(weights + weights[:, ::-1]).max() / np.abs(weights).max())
    return {
        "most_learn": Claim(
            f"At least {MOST:.0%} of the seeds learn XOR: they come within {XOR_TOLERANCE:g} of every target",
            len(learnt) >= MOST * len(runs),
            f"{len(learnt)} of {len(runs)}" + (f", {np.median(learnt):.0f} epochs in the median" if learnt else ""),
        ),
        "some_stuck": Claim(
            "Some stay in a local minimum or on a plateau that the rule does not leave",
            bool(stuck),
            f"{len(stuck)}" + (f", with E of about {np.median(stuck):.2f}" if stuck else ""),
        ),
        "encoder_learnt": Claim(
            "The encoder reproduces its patterns", encoder["right"] == 8, f"{encoder['right']} of 8"
        ),
        "codes_differ": Claim.at_least("In some unit any two of its codes differ by", apart, APART, ".2f"),
        "symmetry_learnt": Claim("All 64 patterns of six bits are classified rightly", right == 1, f"{right:.0%}"),
        "antisymmetric": Claim(
            f"Bits of a pair weigh opposite, to {OPPOSITE:g} of the largest weight: a palindrome adds up to nothing",
            unlike <= OPPOSITE,
            f"{unlike:.2f}",
        ),
        "distinct_sizes": Claim(
            f"The three pairs' sizes differ by factors of {DISTINCT:g} or more; the paper has 1 : 2 : 4, with which no "
            "other pattern adds up to nothing",
            all(larger >= DISTINCT * smaller for smaller, larger in pairwise(sizes)),
            " : ".join(f"{size:.1f}" for size in sizes),
        ),
    }


def draw(numbers: Numbers) -> Figure:
    figure, axes = panels(1, 3, width=1.1, height=1.1)
    _draw_errors(axes[0, 0], numbers["xor"])
    _draw_codes(figure, axes[0, 1], np.array(numbers["encoder"]["codes"]))
    _draw_weights(axes[0, 2], np.array(numbers["symmetry"]["weights"]))
    return figure


def _draw_errors(panel: Any, xor: Numbers) -> None:
    for learnt, colour, style in ((True, COLOURS[0], "-"), (False, COLOURS[1], "--")):
        runs = [run["error"] for run in xor["runs"] if run["learnt"] == learnt]
        for place, errors in enumerate(runs):
            title = f"{len(runs)} {'learnt' if learnt else 'stuck'}" if place == 0 else None
            panel.plot(np.arange(1, len(errors) + 1), errors, style, color=colour, linewidth=0.9, label=title)
    label(panel, "epoch", "$E$, summed over the four patterns", f"XOR, {len(xor['runs'])} seeds")
    panel.set_ylim(bottom=0)
    legend(panel, "upper right")


def _draw_codes(figure: Figure, panel: Any, codes: Array) -> None:
    image = panel.imshow(codes, cmap=MAP, vmin=0, vmax=1, aspect="auto")
    for (row, unit), value in np.ndenumerate(codes):
        panel.text(unit, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color="k" if value > 0.5 else "w")
    panel.set_xticks(range(codes.shape[1]), [str(unit + 1) for unit in range(codes.shape[1])])
    panel.set_yticks(range(len(codes)), [str(row + 1) for row in range(len(codes))])
    label(panel, "hidden unit", "pattern", "8-3-8 encoder: hidden outputs")
    panel.grid(False)
    figure.colorbar(image, ax=panel, shrink=0.9).ax.tick_params(labelsize=8)


def _draw_weights(panel: Any, weights: Array) -> None:
    bits = [str(bit) for bit in range(1, BITS + 1)]
    draw_bars(panel, {f"hidden unit {unit}": values for unit, values in enumerate(weights, start=1)}, bits)
    panel.axvline((BITS - 1) / 2, color=COLOURS[6], linewidth=0.8, linestyle=":")
    panel.set_ylim(1.05 * weights.min(), 1.45 * weights.max())
    label(panel, "input bit", "weight to the hidden unit", "symmetry of 6 bits")
    legend(panel, "upper right", ncols=2)
