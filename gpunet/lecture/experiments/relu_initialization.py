"""L20: Xavier's weights fail a deep ReLU network, and He's repair it."""

from __future__ import annotations

from typing import Any

from gpunet.lecture.deep_network import (
    draw_initializers,
    fades,
    keeps,
    last_over_first,
    measure_initializers,
    spread_of,
)
from gpunet.lecture.experiment import Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import Figure

XAVIER, HE = "Xavier", "He"
INITIALIZERS = {XAVIER: "xavier_normal", HE: "he_normal"}

FADED = 0.1  # layer 10 over layer 1; gradients: layer 1 over layer 10
HOMOGENEOUS = 2.0  # the largest layer over the smallest


def measure(settings: Settings) -> dict[str, Any]:
    """Look into the untrained network with either kind of weights."""
    return measure_initializers(settings, "relu", INITIALIZERS)


def about(numbers: Numbers) -> str:
    xavier, he = (numbers["initializers"][name]["dead"][-1] for name in (XAVIER, HE))
    return (
        "A ReLU passes on half of a symmetric input, and with it half of its mean square: look at how the upright "
        "histograms of Xavier's activations shorten from layer to layer (the spike at 0 and the tail cut off), and "
        "those of He's do not. Below are the gradients dJ/ds of some layers, in units of each layer's root mean "
        f"square. The network has {numbers['depth']} hidden layers of {numbers['width']} ReLU units, on "
        f"{numbers['rows']} N(0, 1) inputs (lines: medians of {numbers['seeds']} seeds). In its last layer "
        f"{xavier:.0%} of the units are 0 for every input with Xavier's weights and {he:.0%} with He's: behind many "
        "layers all inputs look alike."
    )


def claims(numbers: Numbers) -> Claims:
    xavier, he = (numbers["initializers"][name] for name in (XAVIER, HE))
    rate = last_over_first(xavier["std"]) ** (1 / (numbers["depth"] - 1))
    return {
        "xavier_fades": Claim(
            f"Xavier's weights let activations and gradients fade below {FADED:g} of what they were",
            fades(xavier, FADED),
            f"the standard deviation goes from {xavier['std'][0]:.2g} to {xavier['std'][-1]:.2g}, by a factor of "
            f"{rate:.2f} per layer where 1/√2 = 0.71 is expected, the gradients' size to "
            f"{last_over_first(xavier['gradient'][::-1]):.2g}",
        ),
        "he_keeps": Claim(
            f"He's, with twice the variance, keep both within a factor of {HOMOGENEOUS:g}",
            keeps(he, HOMOGENEOUS),
            f"standard deviations of {min(he['std']):.2f} to {max(he['std']):.2f}, gradients within a factor of "
            f"{spread_of(he['gradient']):.2f}",
        ),
    }


def draw(numbers: Numbers) -> Figure:
    third: dict[str, Any] = {"third": "dead", "third_name": "dead units (share)", "cut_spike": True}
    return draw_initializers(numbers, limits=(-0.1, 4.0), histograms=(XAVIER, HE), **third)
