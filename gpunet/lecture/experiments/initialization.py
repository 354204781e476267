"""L19: what zeros, N(0, .01^2), N(0, 1) and Xavier do to a deep tanh network."""

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

ZEROS, SMALL, LARGE, XAVIER = "zeros", "N(0, 0.01²)", "N(0, 1)", "Xavier"
INITIALIZERS = {ZEROS: "zeros", SMALL: "normal(0.01)", LARGE: "normal(1)", XAVIER: "xavier_normal"}

FADED = 1e-3  # layer 10 over layer 1, or for gradients layer 1 over layer 10
GROWN = 1e3
SATURATED = 0.8  # share of the activations of every layer
HOMOGENEOUS = 5.0  # the largest layer over the smallest


def measure(settings: Settings) -> dict[str, Any]:
    """Look into the untrained network, once for each of the four."""
    return measure_initializers(settings, "tanh", INITIALIZERS)


def about(numbers: Numbers) -> str:
    return (
        f"Tanh networks with {numbers['depth']} hidden layers of {numbers['width']} units, before training, on "
        f"{numbers['rows']} N(0, 1) inputs. Upper row: the activations of each layer, an upright histogram as wide as "
        "it is dense. Middle row: the gradients dJ/ds of some layers, in units of each layer's root mean square. Lower "
        f"row: medians of {numbers['seeds']} seeds. Those of zero weights are not drawn: there only the output biases "
        "learn."
    )


def claims(numbers: Numbers) -> Claims:
    zeros, small, large, xavier = (numbers["initializers"][name] for name in (ZEROS, SMALL, LARGE, XAVIER))
    back, depth = last_over_first(large["gradient"][::-1]), numbers["depth"]
    return {
        "zeros_stay": Claim(
            "With zero weights activations and gradients are 0 in every hidden layer",
            max(zeros["std"]) == max(zeros["gradient"]) == 0,
            f"at most {max(zeros['std']):g} and {max(zeros['gradient']):g}",
        ),
        "small_fade": Claim(
            f"With {SMALL} both fade, below {FADED:g} of what they were",
            fades(small, FADED),
            f"the activations' standard deviation goes from {small['std'][0]:.2g} in layer 1 to {small['std'][-1]:.1e} "
            f"in layer {depth}, the gradients' size back to {last_over_first(small['gradient'][::-1]):.1e}",
        ),
        "large_saturate": Claim(
            f"With {LARGE} at least {SATURATED:.0%} of the units of every layer saturate, so most factors tanh'(s) of "
            "the backward pass are near 0",
            min(large["saturated"]) >= SATURATED,
            f"{min(large['saturated']):.0%} or more",
        ),
        "large_gradients_fade": Claim(
            f"Therefore the gradients fade below {FADED:g} on their way to layer 1, as the lecture says",
            back < FADED,
            f"a factor of {back:.1e}",
        ),
        "large_gradients_grow": Claim(
            f"They grow by more than {GROWN:g}: the few units that do not saturate pass them through weights of size 1",
            back > GROWN,
            f"a factor of {back:.1e} from layer {depth} to layer 1",
        ),
        "xavier_stays": Claim(
            f"With Xavier's weights both stay homogeneous, within a factor of {HOMOGENEOUS:g}",
            keeps(xavier, HOMOGENEOUS),
            f"standard deviations of {min(xavier['std']):.2f} to {max(xavier['std']):.2f}, gradients within a factor "
            f"of {spread_of(xavier['gradient']):.1f}",
        ),
    }


def draw(numbers: Numbers) -> Figure:
    histograms, name = (SMALL, LARGE, XAVIER), "saturated activations (share)"
    return draw_initializers(numbers, limits=(-1.05, 1.05), histograms=histograms, third="saturated", third_name=name)
