"""L3: sigmoid, tanh, ReLU, leaky ReLU, ELU and later ones with their derivatives, checked against differences."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.activations import Activation, get_activation
from gpunet.backends import Backend, select_backend
from gpunet.lecture.derivations.activations import activation_named
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import COLOURS, Figure, draw_differences, label, legend, panels
from gpunet.lecture.probing import run_activation
from gpunet.lecture.wording import rounded

# The panels, each with the variants that it shows.
FAMILIES = {
    "sigmoid": ("sigmoid",),
    "tanh": ("tanh",),
    "ReLU": ("relu",),
    "leaky ReLU": ("leaky_relu(0.01)", "leaky_relu(0.1)"),
    "ELU": ("elu(1.0)", "elu(0.5)"),
    "later: SELU, softplus": ("selu", "softplus"),
    "later: s times a gate": ("gelu", "gelu_tanh", "silu", "mish"),
    "later: straight lines": ("hard_sigmoid", "hard_tanh", "hard_swish"),
}
REACH = 6.0
STEP = 1e-5  # of the central differences
FAR = 1e4  # scores at which a careless formula overflows
# Central differences of a step of 1e-5 in float64 are off by
# about STEP^2 / 6 times the third derivative, and by rounding of about 1e-16 / STEP.
DIFFERENCES_AGREE, FORMULAS_AGREE = 1e-9, 1e-14


def measure(settings: Settings) -> dict[str, Any]:
    """Run forward and backward of every activation through the backend's operations."""
    backend = select_backend(settings.device)
    shown = np.linspace(-REACH, REACH, 61 if settings.quick else 241)
    return {
        "s": rounded(shown, 6),
        "families": {
            family: [_measured(backend, get_activation(name), shown, settings.quick) for name in names]
            for family, names in FAMILIES.items()
        },
    }


def _measured(backend: Backend, activation: Activation, shown: Array, quick: bool) -> dict[str, Any]:
    values, derivatives = run_activation(backend, activation, shown)
    # An odd number of steps keeps every difference away from 0, where some derivatives jump.
    checked = np.linspace(-REACH, REACH, 500 if quick else 20_000)
    _, computed = run_activation(backend, activation, checked)
    above, below = (run_activation(backend, activation, checked + step)[0] for step in (STEP, -STEP))
    lecture = activation_named(activation.name, slope=activation.parameter, alpha=activation.parameter)
    far = [run_activation(backend, activation, np.array([-FAR, FAR], dtype)) for dtype in (np.float32, np.float64)]
    return {
        "name": str(activation),
        "values": rounded(values),
        "derivatives": rounded(derivatives),
        "difference_error": float(np.abs(computed - (above - below) / (2 * STEP)).max()),
        "formula_error": float(np.abs(computed - lecture.derivative(checked)).max()),
        "largest_derivative": float(computed.max()),
        "derivative_at_5": float(run_activation(backend, activation, np.array([-5.0, 5.0]))[1].min()),
        "derivative_at_0": float(run_activation(backend, activation, np.zeros(1))[1][0]),
        "finite_far_away": bool(all(np.isfinite(part).all() for pair in far for part in pair)),
    }


def _variants(numbers: Numbers) -> dict[str, Numbers]:
    return {variant["name"]: variant for family in numbers["families"].values() for variant in family}


def about(numbers: Numbers) -> str:
    variants = _variants(numbers)
    leaks = " and ".join(f"{variants[name]['derivative_at_0']:g}" for name in FAMILIES["leaky ReLU"])
    return (
        "Each panel has an activation f(s), solid, and its derivative f'(s), dashed; the backward pass multiplies by "
        "the derivative, so where the dashed line is near 0 nothing gets through: at s = 5 sigmoid's is "
        f"{variants['sigmoid']['derivative_at_5']:.4f} and tanh's {variants['tanh']['derivative_at_5']:.5f}. Leaky "
        f"ReLU keeps its slope below 0 ({leaks} here, the lecture has both). Then come activations that are younger "
        "than the lecture, and the last panel checks the derivatives that the backward pass computes."
    )


def claims(numbers: Numbers) -> Claims:
    variants = _variants(numbers)
    errors = {key: max(entry[key] for entry in variants.values()) for key in ("difference_error", "formula_error")}
    finite = sum(one["finite_far_away"] for one in variants.values())
    steepest = variants["sigmoid"]["largest_derivative"]
    return {
        "sigmoid_is_flat": Claim("Sigmoid's derivative is nowhere above 1/4", steepest <= 0.25, f"{steepest:.2f}"),
        "differences_agree": Claim.agree(
            "The derivatives agree with central differences in float64", errors["difference_error"], DIFFERENCES_AGREE
        ),
        "formulas_agree": Claim.agree(
            "They agree with the lecture's formulas in s", errors["formula_error"], FORMULAS_AGREE
        ),
        "finite_far_away": Claim(
            f"At s = -{FAR:g} and {FAR:g} all are finite", finite == len(variants), f"{finite} of {len(variants)}"
        ),
    }


def draw(numbers: Numbers) -> Figure:
    figure, axes = panels(3, 3, height=0.95)
    for place, (family, variants) in zip(axes.flat, numbers["families"].items(), strict=False):
        for variant, colour in zip(variants, COLOURS, strict=False):
            place.plot(numbers["s"], variant["values"], "-", color=colour, label=f"$f$, {variant['name']}")
            place.plot(numbers["s"], variant["derivatives"], "--", color=colour, label=f"$f'$, {variant['name']}")
        label(place, "score $s$", "$f(s)$, $f'(s)$", family)
        legend(place, "upper left", 7)
        place.axhline(0, color="black", linewidth=0.5)
        place.axvline(0, color="black", linewidth=0.5)
        place.set_ylim((-1.4, 1.6) if family in ("sigmoid", "tanh") else (-1.4, 4))
    by_name = _variants(numbers)
    titles = {"difference_error": "central differences", "formula_error": "formulas in $s$"}
    errors = {title: [one[key] for one in by_name.values()] for key, title in titles.items()}
    draw_differences(axes[2, 2], errors, list(by_name), 1e-3)
    axes[2, 2].invert_yaxis()
    axes[2, 2].set_title("the backward pass checked against", fontsize=10)
    legend(axes[2, 2], "center right", 7)
    return figure
