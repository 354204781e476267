"""L19: what zeros, N(0, .01^2), N(0, 1) and Xavier do to a deep tanh network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpunet.lecture.deep_network import draw_initializers, last_over_first, measure_initializers, spread_of
from gpunet.lecture.experiment import Numbers, Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ZEROS, SMALL, LARGE, XAVIER = "zeros", "N(0, 0.01²)", "N(0, 1)", "Xavier"
INITIALIZERS = {ZEROS: "zeros", SMALL: "normal(0.01)", LARGE: "normal(1)", XAVIER: "xavier_normal"}

# Thresholds of the claims.
FADED = 1e-3  # layer 10 over layer 1, or for gradients layer 1 over layer 10
GROWN = 1e3
SATURATED = 0.8  # share of the activations of every layer
HOMOGENEOUS = 5.0  # the largest layer over the smallest


def measure(settings: Settings) -> dict[str, Any]:
    """Look into the untrained network, once for each of the four."""
    return measure_initializers(settings, "tanh", INITIALIZERS)


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show.

    ``zeros_stay``: all activations and all gradients of hidden layers are 0. ``small_fade``: the activations' standard
    deviation falls below 1/1000 from layer 1 to 10, and the gradient's from 10 to 1. ``large_saturate``: at least 80 %
    of the activations of every layer are saturated. ``large_gradients_fade``, ``large_gradients_grow``: on their way
    from layer 10 to 1 they change by less than 1/1000, by more than 1000. ``xavier_stays``: standard deviations and
    gradients of all layers lie within a factor of 5.
    """
    zeros, small, large, xavier = (numbers["initializers"][name] for name in (ZEROS, SMALL, LARGE, XAVIER))
    back = _first_over_last(large["gradient"])
    return {
        "zeros_stay": max(zeros["std"]) == max(zeros["gradient"]) == 0,
        "small_fade": last_over_first(small["std"]) < FADED and _first_over_last(small["gradient"]) < FADED,
        "large_saturate": min(large["saturated"]) >= SATURATED,
        "large_gradients_fade": back < FADED,
        "large_gradients_grow": back > GROWN,
        "xavier_stays": spread_of(xavier["std"]) < HOMOGENEOUS and spread_of(xavier["gradient"]) < HOMOGENEOUS,
    }


def _first_over_last(layers: list[float]) -> float:
    return last_over_first(layers[::-1])


def describe(numbers: Numbers) -> str:
    """Say what to look at and what this run showed."""
    shown = claims(numbers)
    small, large, xavier = (numbers["initializers"][name] for name in (SMALL, LARGE, XAVIER))
    zeros = "stay 0 in every hidden layer" if shown["zeros_stay"] else "do not stay 0"
    fade = "fade" if shown["small_fade"] else "do not both fade"
    saturate = "almost all units saturate" if shown["large_saturate"] else "most units do not saturate"
    back = _first_over_last(large["gradient"])
    if shown["large_gradients_fade"]:
        gradients = f"and the gradients fade to {back:.1e} of their size from layer {numbers['depth']} to layer 1"
    elif shown["large_gradients_grow"]:
        gradients = (
            "so most factors tanh'(s) of the backward pass are near 0, as the lecture says; yet the gradients do not "
            f"vanish but grow by a factor of {back:.1e} from layer {numbers['depth']} to layer 1, because the few "
            "units that are not saturated pass them through weights of size 1"
        )
    else:
        gradients = f"and the gradients change by a factor of {back:.1e} from layer {numbers['depth']} to layer 1"
    stay = "stay homogeneous" if shown["xavier_stays"] else "do not stay homogeneous"
    return (
        f"Rows of histograms: activations (above, in one range) and gradients dJ/ds (below, each in its own) of tanh "
        f"networks with {numbers['depth']} hidden layers of {numbers['width']} units, before training, on "
        f"{numbers['rows']} N(0, 1) inputs; the lines are medians of {numbers['seeds']} seeds. With zero weights, "
        f"activations and gradients {zeros}, so they are not drawn: only the output biases learn. With {SMALL} both "
        f"{fade}: the activations' standard deviation goes from {small['std'][0]:.2g} in layer 1 to "
        f"{small['std'][-1]:.1e} in layer {numbers['depth']}, and the gradients' size back to "
        f"{_first_over_last(small['gradient']):.1e} of what it was. With {LARGE} {saturate} "
        f"({min(large['saturated']):.0%} or more in every layer), {gradients}. With Xavier's weights both {stay}: the "
        f"standard deviations lie between {min(xavier['std']):.2f} and {max(xavier['std']):.2f}, and the gradients of "
        f"the layers within a factor of {spread_of(xavier['gradient']):.1f}."
    )


def draw(numbers: Numbers) -> Figure:
    """Draw histograms layer by layer for three of the four, and all four over the layers."""
    return draw_initializers(
        numbers,
        limits=(-1.05, 1.05),
        histograms=(SMALL, LARGE, XAVIER),
        third="saturated",
        third_name="saturated activations (share)",
    )
