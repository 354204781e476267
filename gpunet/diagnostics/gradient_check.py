"""Are the gradients right? Directional finite differences on a copy of the network in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.network import Network, on_network
from gpunet.random import Purpose, host_generator
from gpunet.validation import check_integer, check_number

Array = npt.NDArray[Any]


@on_network
def check_gradients(
    network: Network,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    l2: float = 0.0,
    sample_weight: npt.ArrayLike | None = None,
    directions: int = 4,
    step: float = 1e-5,
) -> dict[str, float]:
    """Return the relative error of every parameter's gradient, for an activation, a loss or a layer of one's own.

    For a parameter with gradient g, standard normal directions v are drawn. The gradient says that J changes by
    g^T v; central differences give d = (J(theta + h v) - J(theta - h v)) / (2 h), h = step / ||v||. The error is
    sqrt(mean (g^T v - d)^2), which estimates the norm of the error of g, over ||g|| + sqrt(mean d^2). It costs
    2 ``directions`` passes for each parameter, whatever its size; correct gradients give 1e-6 or less, and wrong ones
    about as much as is wrong in them.

    The copy has the network's values and backend, and computes in float64. It runs in training mode, with the next
    step's dropout masks. A point where ReLU has its kink between theta + h v and theta - h v shows as an error.

    Parameters
    ----------
    network : Network
        Left as it is.
    X : array_like, (n, d)
    y : array_like
    l2 : float
    sample_weight : array_like, (n,), or None
    directions : int
        At least 1.
    step : float
        Norm of the change of a parameter, above 0.

    Returns
    -------
    dict of str to float
        From 0 (the gradient is right) to about 1. Where both gradient and differences are within rounding of 0, as
        for a bias before batch norm, the rounding is not counted as an error.

    Raises
    ------
    ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        The data do not fit the network.
    """
    directions = check_integer("directions", directions, 1)
    step = check_number("step", step, above=True)
    double = _double(network)
    inputs = double.check_inputs(double.on_host("X", X))  # of NumPy, and so are the gradients

    def evaluate() -> tuple[float, dict[str, Array]]:
        return double.loss_and_gradients(inputs, y, l2=l2, sample_weight=sample_weight)

    cost, gradients = evaluate()
    errors = {}
    for index, (name, value) in enumerate(double.get_parameters().items()):
        generator = host_generator(network.seed, Purpose.NOISE, index)
        predicted, found, lengths = [], [], []
        for _ in range(directions):
            direction = generator.standard_normal(value.shape)
            length = float(np.linalg.norm(direction))
            costs = []
            for sign in (1, -1):
                double.set_parameters({name: value + sign * step / length * direction})
                costs.append(evaluate()[0])
            predicted.append(float(np.vdot(gradients[name], direction)))
            found.append((costs[0] - costs[1]) / (2 * step / length))
            lengths.append(length)
        double.set_parameters({name: value})
        # Rounding alone puts about eps J / h into each difference; ten times that counts as an error of 1e-6.
        noise = 10 * np.finfo(np.float64).eps * max(abs(cost), 1e-300) * _rms(lengths) / step
        scale = max(float(np.linalg.norm(gradients[name])) + _rms(found), noise / 1e-6)
        errors[name] = _rms(np.subtract(predicted, found)) / scale
    return errors


def _double(network: Network) -> Network:
    """Return a copy that computes in float64, on the same backend."""
    configuration = network.configuration | {
        "activation": network.activations,
        "output_activation": network.output_activation,
        "initializer": "zeros",
        "loss": network.loss_layer,
        "dtype": "float64",
        "precision": "float32",
    }
    double = Network(**configuration, device=network.backend)
    double.set_parameters(network.get_parameters() | network.get_state())
    double.set_step(network.steps)
    double.metadata = network.metadata
    return double


def _rms(values: npt.ArrayLike) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
