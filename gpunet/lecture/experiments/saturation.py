"""L14: a saturated sigmoid or tanh passes no gradient on."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.activations import get_activation
from gpunet.layers import Linear
from gpunet.lecture.experiment import Array, Claim, Claims, Numbers, Settings
from gpunet.lecture.plotting import COLOURS, STYLES, Figure, draw_lines, label, legend, panels
from gpunet.lecture.probing import hidden_scores, run_activation
from gpunet.network import Network
from gpunet.random import Purpose, host_generator

SQUASHING = ("sigmoid", "tanh")
ACTIVATIONS = (*SQUASHING, "relu")
CLASSES = 10
SATURATED = 5.0  # the lecture's abs(s) > 5

SMALL_DERIVATIVE = 0.03  # of the largest derivative, at abs(s) = 5
KILLED = 0.05  # of the gradient that reaches the first layer's scores with inputs of standard deviation 1
KEPT = 0.5
FADED = 1e-3  # the first hidden layer's gradient over the last one's


def measure(settings: Settings) -> dict[str, Any]:
    """Evaluate f and f', and follow the gradient back through networks with larger and larger inputs."""
    depth, width, rows, seeds = (4, 20, 32, 2) if settings.quick else (8, 100, 256, 5)
    scales = [1.0, 10.0, 100.0] if settings.quick else [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]

    def median_flow(name: str, scale: float) -> tuple[list[float], float]:
        """Return what `gradient_flow` says of N(0, scale^2) inputs, medians over the seeds."""
        flows = []
        for seed in range(settings.seed, settings.seed + seeds):
            generator = host_generator(seed, Purpose.NOISE)
            X, y = scale * generator.standard_normal((rows, width)), generator.integers(0, CLASSES, rows)
            network = settings.network([width] * (depth + 1) + [CLASSES], activation=name, batch_norm=False, seed=seed)
            flows.append(gradient_flow(network, X, y))
        gradients, saturated = zip(*flows, strict=True)
        return np.median(gradients, axis=0).tolist(), float(np.median(saturated))

    by_scale = {name: [median_flow(name, scale) for scale in scales] for name in ACTIVATIONS}
    return {"depth": depth, "width": width, "rows": rows, "seeds": seeds} | {
        "scales": scales,
        "curves": _curves(settings),
        "gradients": {name: [flow[0] for flow in flows] for name, flows in by_scale.items()},
        "saturated": {name: [flow[1] for flow in flows] for name, flows in by_scale.items()},
    }


def _curves(settings: Settings) -> dict[str, Any]:
    """Return f and f' over s in [-10, 10], at abs(s) = 5, and where single precision gives a derivative of 0."""
    s = np.linspace(-10, 10, 201)
    far = np.arange(0, 40, 0.125)
    curves: dict[str, Any] = {"s": s.tolist()}
    backend = settings.network([1, 2]).backend
    for name in SQUASHING:
        activation = get_activation(name)
        values, derivatives = run_activation(backend, activation, s)
        at_five = run_activation(backend, activation, np.array([-SATURATED, SATURATED]))[1]
        single = run_activation(backend, activation, far.astype(np.float32))[1]
        curves[name] = {
            "value": values.tolist(),
            "derivative": derivatives.tolist(),
            "largest_derivative": float(derivatives.max()),
            "derivative_at_5": float(at_five.max()),
            "zero_in_float32_from": float(far[np.argmax(single == 0)]),
        }
    return curves


def gradient_flow(network: Network, X: Array, y: Array) -> tuple[list[float], float]:
    """Return the gradient at the scores of each hidden layer, and the share of the first one's with abs(s) > 5.

    A layer's is the mean of abs(n dJ/ds_i) over the rows and units: what one example contributes. Not the root mean
    square, which the few units that are not saturated would decide. The network has no batch norm and no dropout.
    """
    backend = network.backend
    *_, (_, outputs) = network.forward_layers(backend.asarray(network.check_inputs(X)), dropout=False)
    doutputs = network.loss_layer(outputs, backend.asarray(network.check_targets(y, len(X))), None)
    gradients = [
        len(X) * float(np.abs(backend.to_numpy(gradient)).mean(dtype=np.float64))
        for layer, gradient in network.backward_layers(doutputs, dropout=False)
        if isinstance(layer, Linear)
    ]
    scores = hidden_scores(network, X)[0] + network.get_parameters()["b1"]
    return gradients[:0:-1], float(np.mean(np.abs(scores) > SATURATED))


def about(numbers: Numbers) -> str:
    saturated = " and ".join(f"{numbers['saturated'][name][-1]:.0%} after {name}" for name in SQUASHING)
    return (
        "The gradient at a score is dJ/ds = dJ/dh f'(s), so look at the left panel's shaded part, abs(s) > 5. The "
        f"middle panel has {numbers['depth']} hidden layers of {numbers['width']} units and N(0, scale\u00b2) inputs "
        f"(medians of {numbers['seeds']} seeds); at scale {numbers['scales'][-1]:g}, {saturated} of the first layer's "
        "scores are beyond 5. The right panel follows the gradient back, with inputs of standard deviation 1."
    )


def claims(numbers: Numbers) -> Claims:
    curves = [numbers["curves"][name] for name in SQUASHING]
    shares = [curve["derivative_at_5"] / curve["largest_derivative"] for curve in curves]
    zero = " and ".join(f"{curve['zero_in_float32_from']:g}" for curve in curves)
    kept = {name: _kept(numbers, name) for name in ACTIVATIONS}
    ratio = {name: _first_over_last(numbers, name) for name in ACTIVATIONS}
    return {
        "derivative_is_small": Claim(
            f"At 5, f' is below {SMALL_DERIVATIVE:.0%} of its largest value for sigmoid and tanh",
            max(shares) < SMALL_DERIVATIVE,
            f"{shares[0]:.1%} and {shares[1]:.2%}; in single precision exactly 0 from {zero} on",
        ),
        "large_inputs_kill": Claim(
            f"Saturation by the largest inputs kills the gradient there: less than {KILLED:.0%} are left",
            all(kept[name] < KILLED for name in SQUASHING),
            f"{kept['sigmoid']:.1%} and {kept['tanh']:.1%}",
        ),
        "relu_keeps": Claim.at_least("ReLU keeps", kept["relu"], KEPT),
        "deep_sigmoid_fades": Claim(
            f"Back through the sigmoid layers, whose f' is at most 1/4, it fades to less than {FADED:g}",
            ratio["sigmoid"] < FADED,
            f"{ratio['sigmoid']:.1e}; with tanh {ratio['tanh']:.2f}",
        ),
        "deep_relu_keeps": Claim.at_least("Through the ReLU layers it keeps", ratio["relu"], KEPT),
    }


def _kept(numbers: Numbers, name: str) -> float:
    """Return the first layer's gradient with the largest inputs over that with inputs of standard deviation 1."""
    first = [layers[0] for layers in numbers["gradients"][name]]
    return float(first[-1] / first[numbers["scales"].index(1.0)])


def _first_over_last(numbers: Numbers, name: str) -> float:
    """Return the first hidden layer's gradient over the last one's, with inputs of standard deviation 1."""
    layers = numbers["gradients"][name][numbers["scales"].index(1.0)]
    return float(layers[0] / layers[-1])


def draw(numbers: Numbers) -> Figure:
    figure, ((left, middle, right),) = panels(1, 3, width=1.1)
    curves = numbers["curves"]
    for name, colour in zip(SQUASHING, COLOURS, strict=False):
        left.plot(curves["s"], curves[name]["value"], STYLES[0], color=colour, label=f"{name} f")
        left.plot(curves["s"], curves[name]["derivative"], STYLES[1], color=colour, label=f"{name} f'")
    for start, stop in ((-10, -SATURATED), (SATURATED, 10)):
        left.axvspan(start, stop, color="0.9", zorder=0)
    label(left, "score $s$", "$f(s)$, $f'(s)$", "shaded: $|s| > 5$")
    legend(left, "upper left")
    scales, gradients = numbers["scales"], numbers["gradients"]
    at_one = scales.index(1.0)
    first = {name: [layers[0] / flows[at_one][0] for layers in flows] for name, flows in gradients.items()}
    draw_lines(middle, first, scales)
    y = "mean $|dJ/ds|$ in layer 1,\nrelative to that at 1"
    label(middle, "standard deviation of the inputs", y, "saturated by large inputs", scale="xy")
    draw_lines(right, {name: flows[at_one] for name, flows in gradients.items()})
    label(right, "hidden layer", "mean $|n\\,dJ/ds|$", "gradient on its way back", scale="y")
    legend(middle)
    legend(right)
    return figure
