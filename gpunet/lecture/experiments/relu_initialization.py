"""L20: Xavier's weights fail a deep ReLU network, and He's repair it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpunet.lecture.deep_network import draw_initializers, last_over_first, measure_initializers, spread_of
from gpunet.lecture.experiment import Numbers, Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

XAVIER, HE = "Xavier", "He"
INITIALIZERS = {XAVIER: "xavier_normal", HE: "he_normal"}

# Thresholds of the claims.
FADED = 0.1  # layer 10 over layer 1; gradients: layer 1 over layer 10
HOMOGENEOUS = 2.0  # the largest layer over the smallest


def measure(settings: Settings) -> dict[str, Any]:
    """Look into the untrained network with either kind of weights."""
    return measure_initializers(settings, "relu", INITIALIZERS)


def claims(numbers: Numbers) -> dict[str, bool]:
    """Return what the numbers show.

    ``xavier_fades``: from layer 1 to 10 the activations' standard deviation falls below a tenth, and from 10 to 1 the
    gradients' size. ``he_keeps``: either stays within a factor of 2 over all layers.
    """
    xavier, he = (numbers["initializers"][name] for name in (XAVIER, HE))
    return {
        "xavier_fades": last_over_first(xavier["std"]) < FADED and last_over_first(xavier["gradient"][::-1]) < FADED,
        "he_keeps": spread_of(he["std"]) < HOMOGENEOUS and spread_of(he["gradient"]) < HOMOGENEOUS,
    }


def describe(numbers: Numbers) -> str:
    """Say what to look at and what this run showed."""
    shown = claims(numbers)
    xavier, he = (numbers["initializers"][name] for name in (XAVIER, HE))
    depth = numbers["depth"]
    rate = last_over_first(xavier["std"]) ** (1 / (depth - 1)) if depth > 1 else 1.0
    fades = "Xavier's weights let both fade" if shown["xavier_fades"] else "Xavier's weights do not let both fade"
    keeps = "He's, with twice the variance, keep both" if shown["he_keeps"] else "He's do not keep both"
    return (
        "A ReLU passes on half of a symmetric input, and with it half of its mean square: look at how the histograms "
        "of Xavier's rows narrow from layer to layer (activations above, in one range, the spike at 0 cut off; "
        "gradients dJ/ds below, each in its own), and those of He's do not. In a network of "
        f"{depth} hidden layers of {numbers['width']} ReLU units, on {numbers['rows']} N(0, 1) inputs (lines: medians "
        f"of {numbers['seeds']} seeds), {fades}: the activations' standard deviation goes from {xavier['std'][0]:.2g} "
        f"to {xavier['std'][-1]:.2g}, by a factor of {rate:.2f} per layer (1/√2 = 0.71 is expected), and the "
        f"gradients' size back to {last_over_first(xavier['gradient'][::-1]):.2g} of what it was. {keeps}: the "
        f"standard deviations lie between {min(he['std']):.2f} and {max(he['std']):.2f}, and the gradients of the "
        f"layers within a factor of {spread_of(he['gradient']):.2f}. {_dead(numbers)}"
    )


def _dead(numbers: Numbers) -> str:
    """Say how many units of the last layer are 0 for every input."""
    depth = numbers["depth"]
    xavier, he = (numbers["initializers"][name]["dead"][-1] for name in (XAVIER, HE))
    if xavier == he:
        return (
            f"With both, {he:.0%} of the units in layer {depth} are 0 for every input: the weights are the same but "
            "for a factor, which changes no sign, and behind many layers all inputs look alike."
        )
    return (
        f"Of the units in layer {depth}, {xavier:.0%} are 0 for every input with Xavier's weights, {he:.0%} with He's."
    )


def draw(numbers: Numbers) -> Figure:
    """Draw histograms layer by layer, and both over the layers."""
    return draw_initializers(
        numbers,
        limits=(-0.1, 3.0),
        histograms=(XAVIER, HE),
        cut_spike=True,
        third="dead",
        third_name="dead units (share)",
    )
