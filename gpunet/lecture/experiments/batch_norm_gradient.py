"""L24: the gradient through batch norm in its three terms, checked, and what goes wrong where one is dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunet.activations import Identity
from gpunet.backends import Backend
from gpunet.lecture.derivations import batch_norm as derivation
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import COLOURS, Figure, draw_bars, draw_lines, label, legend, panels
from gpunet.lecture.probing import numeric_gradient
from gpunet.lecture.wording import tiny
from gpunet.random import Purpose, host_generator

EPSILON = 1e-5
TERMS = (r"through $\hat{s}$", "through $v_b$", r"through $\mu_b$")
# Gradients that somebody might use who forgot a term, or both statistics.
DROPPED = {
    "all three terms": [0, 1, 2],
    "variance term dropped": [0, 2],
    "mean term dropped": [0, 1],
    "both dropped": [0],
}
LEARNING_RATE = 0.02
STEP = 1e-5  # of the finite differences

# The finite differences' own error is of the order of STEP squared.
AGREES = 1e-12
AGREES_WITH_DIFFERENCES = 1e-7
VANISHES = 1e-12
STANDS_STILL = 1e-3  # epsilon leaves a little of a gradient for the scale
GROWS = 0.1
SAME_COST = 1e-3


class _NormalisedScores:
    """J(S) = cross-entropy of softmax(Shat W^T) for a batch of scores S, all through the backend's operations.

    Attributes
    ----------
    S : ndarray, (n, m), float64
        Scores whose units have different means and standard deviations.
    """

    def __init__(self, settings: Settings, rows: int, units: int, classes: int) -> None:
        # The backend of a float64 network; nothing of the network itself is used.
        self.backend: Backend = settings.network([units, classes], dtype="float64").backend
        generator = host_generator(settings.seed, Purpose.NOISE)
        scale, offset = generator.uniform(0.5, 3, units), generator.normal(0, 2, units)
        self.S: Array = scale * generator.standard_normal((rows, units)) + offset
        self._labels = self.backend.asarray(generator.integers(0, classes, rows).astype(np.int32))
        self._W = self.backend.asarray(generator.standard_normal((classes, units)))
        # What the backend's operation writes besides its output.
        self._mean, self._inverse_std, self._running_mean, self._running_variance = (
            self.backend.zeros(units, np.float64) for _ in range(4)
        )

    def cost(self, S: Array) -> float:
        """Return J."""
        return self._forward(S)[0]

    def gradients(self, S: Array) -> tuple[Array, Array]:
        """Return dJ/dShat, and dJ/dS of the backend's fused operation."""
        _, d_normalised, s, normalised = self._forward(S)
        ds = self.backend.empty(S.shape, np.float64)
        self.backend.batch_norm_activation_backward(
            d_normalised, s, normalised, None, None, Identity(), self._mean, self._inverse_std, ds, None, None
        )
        return self.backend.to_numpy(d_normalised).copy(), self.backend.to_numpy(ds).copy()

    def _forward(self, S: Array) -> tuple[float, Array, Array, Array]:
        """Return J, dJ/dShat, S and Shat, the arrays on the device."""
        backend = self.backend
        s, normalised = backend.asarray(np.ascontiguousarray(S)), backend.empty(S.shape, np.float64)
        statistics = self._mean, self._inverse_std, self._running_mean, self._running_variance
        backend.batch_norm_activation_forward(s, None, None, Identity(), normalised, *statistics, 0.0, EPSILON)
        logits = backend.empty((len(S), self._W.shape[0]), np.float64)
        backend.gemm(normalised, self._W, logits, transpose_b=True)
        d_logits, value = backend.empty(logits.shape, np.float64), backend.zeros(2, np.float64)
        backend.softmax_cross_entropy(logits, self._labels, None, d_logits, value)
        d_normalised = backend.empty(S.shape, np.float64)
        backend.gemm(d_logits, self._W, d_normalised)
        return float(backend.to_numpy(value)[0]), d_normalised, s, normalised


def measure(settings: Settings) -> dict[str, Any]:
    """Compute the terms, compare four ways to the gradient, and descend with terms dropped."""
    rows, units, classes, steps = (6, 3, 3, 10) if settings.quick else (24, 8, 5, 100)
    problem = _NormalisedScores(settings, rows, units, classes)
    dJ_dS_hat, fused = problem.gradients(problem.S)
    terms = derivation.three_terms(dJ_dS_hat, problem.S, EPSILON)
    exact = terms.sum(axis=0)
    dropped = {name: terms[kept].sum(axis=0) for name, kept in DROPPED.items()}
    normalised = derivation.normalise(problem.S, EPSILON).S_hat
    unit = int(np.argmax(np.abs(terms[1]).mean(axis=0) * np.abs(terms[2]).mean(axis=0)))
    collected = derivation.gradient_of_scores_closed_form(dJ_dS_hat, problem.S, EPSILON)

    def sizes(of: Callable[[Array], Array]) -> dict[str, float]:
        """Return the largest sum over the batch, relative to the gradient's largest element, by what is dropped."""
        largest = float(np.abs(exact).max())
        return {name: float(np.abs(of(gradient).sum(axis=0)).max()) / largest for name, gradient in dropped.items()}

    return {"rows": rows, "units": units, "steps": steps, "unit": unit} | {
        "terms": terms[:, :, unit].tolist(),
        "total": exact[:, unit].tolist(),
        "errors": {
            "fused operation": _error(fused, exact),
            "collected formula": _error(collected, exact),
            "finite differences": _error(numeric_gradient(problem.cost, problem.S, STEP), exact),
        },
        "sums": sizes(lambda gradient: gradient),
        "shares": sizes(lambda gradient: gradient * normalised),
        "wrong": {name: _error(gradient, exact) for name, gradient in dropped.items()},
        "descent": {name: _descend(problem, kept, steps) for name, kept in DROPPED.items()},
    }


def _error(gradient: Array, exact: Array) -> float:
    """Return ||gradient - exact|| / ||exact||."""
    return float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))


def _descend(problem: _NormalisedScores, kept: list[int], steps: int) -> dict[str, Any]:
    """Learn scales exp(c) and biases b of the centred scores, exp(c) s_i + b, with a gradient of some of the terms.

    Neither can change J, up to epsilon: the normalisation takes both out again. The track has the largest absolute
    value of b, and of c, after each step.
    """
    centred = problem.S - problem.S.mean(axis=0)
    log_scale, bias = np.zeros(centred.shape[1]), np.zeros(centred.shape[1])
    track: dict[str, list[float]] = {"bias": [0.0], "log_scale": [0.0], "cost": [problem.cost(centred)]}
    for _ in range(steps):
        scaled = np.exp(log_scale) * centred
        dJ_dS_hat, _ = problem.gradients(scaled + bias)
        dJ_dS = derivation.three_terms(dJ_dS_hat, scaled + bias, EPSILON)[kept].sum(axis=0)
        bias -= LEARNING_RATE * dJ_dS.sum(axis=0)
        log_scale -= LEARNING_RATE * (dJ_dS * scaled).sum(axis=0)
        track["bias"].append(float(np.abs(bias).max()))
        track["log_scale"].append(float(np.abs(log_scale).max()))
        track["cost"].append(problem.cost(np.exp(log_scale) * centred + bias))
    return track


def _cost_change(track: Numbers) -> float:
    """Return the largest change of J along a descent, relative to J."""
    costs = np.array(track["cost"])
    return float(np.abs(costs / costs[0] - 1).max())


def about(numbers: Numbers) -> str:
    return (
        "The upper left panel shows, for one unit and each example of a batch, the lecture's three terms of dJ/ds_i "
        "and their sum, which is much smaller than its parts where they cancel. Without the variance's term a gradient "
        f"is off by {numbers['wrong']['variance term dropped']:.0%}, without the mean's by "
        f"{numbers['wrong']['mean term dropped']:.0%}. The lower panels learn a scale and a bias just before the "
        "normalisation, which takes them out again."
    )


def claims(numbers: Numbers) -> Claims:
    errors, descent, exact = numbers["errors"], numbers["descent"], "all three terms"
    true, no_variance, no_mean = (descent[name] for name in (exact, "variance term dropped", "mean term dropped"))
    return {
        "terms_agree": Claim(
            f"Four ways to the gradient of {numbers['rows']} examples and {numbers['units']} units agree",
            max(errors["fused operation"], errors["collected formula"]) < AGREES
            and errors["finite differences"] < AGREES_WITH_DIFFERENCES,
            "relative to the three terms: " + ", ".join(f"{name} {tiny(error)}" for name, error in errors.items()),
        ),
        "sums_vanish": Claim.agree(
            "Shifting a whole batch changes nothing, so its gradients add up to 0", numbers["sums"][exact], VANISHES
        ),
        "no_radial_part": Claim.agree(
            "So do the dJ/ds_i shat_i, since scaling it changes nothing but epsilon's part",
            numbers["shares"][exact],
            100 * EPSILON,
        ),
        "true_gradient_stays": Claim.agree(
            f"In {numbers['steps']} steps the true gradient leaves bias and log scale alone",
            max(true["bias"][-1], true["log_scale"][-1]),
            STANDS_STILL,
        ),
        "mean_term_holds_bias": Claim(
            f"Without the mean's term the bias runs away, beyond {GROWS:g}, and the cost stays: nothing ever stops it",
            no_mean["bias"][-1] > GROWS and _cost_change(no_mean) < SAME_COST,
            f"to {no_mean['bias'][-1]:.1f}, the cost changing by {tiny(_cost_change(no_mean))} of itself",
        ),
        "variance_term_holds_scale": Claim(
            f"Without the variance's the log of the scale does, beyond {GROWS:g}",
            no_variance["log_scale"][-1] > GROWS and _cost_change(no_variance) < SAME_COST,
            f"to {no_variance['log_scale'][-1]:.1f}, the cost changing by {tiny(_cost_change(no_variance))}",
        ),
    }


def draw(numbers: Numbers) -> Figure:
    figure, ((terms_panel, errors_panel), (bias_panel, scale_panel)) = panels(2, 2, width=1.35)
    draw_bars(
        terms_panel, dict(zip(TERMS, numbers["terms"], strict=True)), [str(row + 1) for row in range(numbers["rows"])]
    )
    terms_panel.plot(numbers["total"], "_", color=COLOURS[6], markersize=7, markeredgewidth=2, label="sum")
    label(terms_panel, "example", "$dJ/ds$ of one unit", "the three terms")
    terms_panel.margins(y=0.3)
    legend(terms_panel, "upper center", 7, ncols=2)

    # An error of exactly 0 has no place on a logarithmic axis.
    drawn = {name: max(error, float(np.finfo(np.float64).eps) / 10) for name, error in numbers["errors"].items()}
    errors_panel.barh(list(drawn), list(drawn.values()), color=COLOURS[0])
    label(errors_panel, "relative difference to the terms' sum", "", "four ways, one gradient", scale="x")
    errors_panel.set_xlim(1e-17, 1e-6)

    for panel, quantity in ((bias_panel, "bias"), (scale_panel, "log_scale")):
        lines = {name: numbers["descent"][name][quantity] for name in DROPPED}
        draw_lines(panel, lines, range(numbers["steps"] + 1), size=None)
        top = panel.get_ylim()[1]
        panel.set_ylim(-0.05 * top, 1.45 * top)
        legend(panel, "upper left", 7)
    label(bias_panel, "step", "largest $|b|$", "a bias before batch norm")
    label(scale_panel, "step", "largest |log(scale)|", "a scale before batch norm")
    return figure
