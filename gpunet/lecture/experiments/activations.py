"""L3: sigmoid, tanh, ReLU, leaky ReLU and ELU with their derivatives, checked against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation, get_activation
from gpunet.backends import Backend, select_backend
from gpunet.lecture.derivations.activations import activation_named
from gpunet.lecture.experiment import Numbers, Settings
from gpunet.lecture.plane import rounded
from gpunet.lecture.plotting import COLOURS, MARKERS, label, panels
from gpunet.lecture.probing import run_activation
from gpunet.lecture.wording import tiny

Array = npt.NDArray[Any]

# The panels, each with the variants that it shows.
FAMILIES = {
    "sigmoid": ("sigmoid",),
    "tanh": ("tanh",),
    "ReLU": ("relu",),
    "leaky ReLU": ("leaky_relu(0.01)", "leaky_relu(0.1)"),
    "ELU": ("elu(1.0)", "elu(0.5)"),
}
REACH = 6.0
STEP = 1e-5  # of the central differences
FAR = 1e4  # scores at which a careless formula overflows
# What the paragraph says only where the numbers show it. Central differences of a step of 1e-5 in float64 are off by
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


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show."""
    variants = _variants(numbers)
    return {
        "differences_agree": all(entry["difference_error"] < DIFFERENCES_AGREE for entry in variants.values()),
        "formulas_agree": all(entry["formula_error"] < FORMULAS_AGREE for entry in variants.values()),
        "finite_far_away": all(entry["finite_far_away"] for entry in variants.values()),
        "sigmoid_is_flat": variants["sigmoid"]["largest_derivative"] <= 0.25,
    }


def describe(numbers: Numbers) -> str:
    """Return the paragraph."""
    shown, variants = claims(numbers), _variants(numbers)
    differences = max(entry["difference_error"] for entry in variants.values())
    formulas = max(entry["formula_error"] for entry in variants.values())
    return (
        "Each panel has an activation f(s), solid, and its derivative f'(s), dashed; the backward pass multiplies by "
        "the derivative, so where the dashed line is near 0 nothing gets through. "
        + (
            f"Sigmoid's is nowhere above {variants['sigmoid']['largest_derivative']:.2f}"
            if shown["sigmoid_is_flat"]
            else f"Sigmoid's reaches {variants['sigmoid']['largest_derivative']:.2f}, more than the 1/4 it should"
        )
        + f" and {variants['sigmoid']['derivative_at_5']:.4f} at s = 5, "
        f"tanh's {variants['tanh']['derivative_at_5']:.5f} there; "
        f"ReLU's is 1 for every s > 0 and 0 elsewhere, where leaky ReLU keeps its slope "
        f"({variants['leaky_relu(0.01)']['derivative_at_0']:g} and {variants['leaky_relu(0.1)']['derivative_at_0']:g} "
        "here, the lecture has both) and ELU decays smoothly to 0. "
        "The last panel checks the derivatives that the backward pass computes from the outputs: they "
        + ("agree" if shown["differences_agree"] else "do not agree")
        + f" with central differences in float64 (largest error {tiny(differences)}) and "
        + ("with" if shown["formulas_agree"] else "not with")
        + f" the lecture's formulas in s (largest difference {tiny(formulas)}). At s = -{FAR:g} and {FAR:g} "
        + ("every value and derivative is finite." if shown["finite_far_away"] else "some are not finite.")
    )


def draw(numbers: Numbers) -> Any:
    """Return the figure."""
    figure, axes = panels(2, 3, height=0.95)
    for place, (family, variants) in zip(axes.flat, numbers["families"].items(), strict=False):
        for variant, colour in zip(variants, COLOURS, strict=False):
            place.plot(numbers["s"], variant["values"], "-", color=colour, label=f"f, {variant['name']}")
            place.plot(numbers["s"], variant["derivatives"], "--", color=colour, label=f"f', {variant['name']}")
        label(place, x="score s", y="f(s), f'(s)", title=family)
        place.legend(fontsize=7, loc="upper left")
        place.axhline(0, color="black", linewidth=0.5)
        place.axvline(0, color="black", linewidth=0.5)
        place.set_ylim((-1.4, 1.6) if family in ("sigmoid", "tanh") else (-1.4, 4))
    _draw_errors(axes[1, 2], _variants(numbers))
    return figure


def _draw_errors(axes: Any, variants: dict[str, Numbers]) -> None:
    names = list(variants)
    floor = 1e-17  # where an error of 0 is drawn
    for key, title, place in (("difference_error", "central differences", 0), ("formula_error", "formulas in s", 1)):
        errors = [max(entry[key], floor) for entry in variants.values()]
        axes.plot(errors, range(len(names)), MARKERS[place], color=COLOURS[place], label=title, linestyle="")
    axes.set_xscale("log")
    axes.set_xlim(floor / 3, 1e-3)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    label(axes, x="largest difference (0 drawn as 1e-17)", y="", title="the backward pass checked against")
    axes.legend(fontsize=7, loc="center right")
