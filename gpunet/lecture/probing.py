"""Looking inside: activations on their own, the scores of hidden layers, gradients by differences, runs that stop."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gpunet.activations import Activation
from gpunet.backends import Backend
from gpunet.errors import ConvergenceWarning
from gpunet.layer_passes import forward_layers, kept_averages
from gpunet.layers import Linear
from gpunet.lecture.experiment import Array
from gpunet.network import Network


def run_activation(backend: Backend, activation: Activation, s: Array) -> tuple[Array, Array]:
    """Return f(s) and f'(s) as a layer computes them, on the backend's device.

    The derivative is what the backward operation makes of a gradient of ones.

    Parameters
    ----------
    backend : Backend
    activation : Activation
    s : ndarray, (n,)
        float32 or float64.

    Returns
    -------
    ndarray, ndarray
        On the host, (n,) each.
    """
    scores = backend.asarray(np.ascontiguousarray(s.reshape(-1, 1)))
    values = backend.empty(scores.shape, s.dtype)
    derivatives = backend.empty(scores.shape, s.dtype)
    backend.bias_activation_forward(scores, None, activation, values)
    ones = backend.asarray(np.ones((len(s), 1), s.dtype))
    backend.bias_activation_backward(ones, values, activation, derivatives, None)
    return backend.to_numpy(values)[:, 0].copy(), backend.to_numpy(derivatives)[:, 0].copy()


def hidden_scores(network: Network, X: Array) -> list[Array]:
    """Return W_i x_{i-1} of each hidden layer when the rows of X are one training batch, without its bias.

    Parameters
    ----------
    network : Network
        Its parameters and running averages stay as they are.
    X : ndarray, (n, d)

    Returns
    -------
    list of ndarray, (n, m_i)
        float64, on the host; what batch norm takes, where a layer has it.
    """
    backend = network.backend
    last = len(network.layer_sizes) - 1
    with kept_averages(network):
        return [
            backend.to_numpy(outputs).astype(np.float64)
            for layer, outputs in forward_layers(network, backend.asarray(network.check_inputs(X)), dropout=False)
            if isinstance(layer, Linear) and layer.index < last
        ]


def central_differences(network: Network, X: Array, y: Array, l2: float, step: float = 1e-5) -> dict[str, Array]:
    """Return dJ/d(each single parameter) by central differences of the network's own cost.

    Parameters
    ----------
    network : Network
        Of float64; its parameters stay as they are.
    X, y : ndarray, (n, d) and (n,)
    l2 : float
    step : float

    Returns
    -------
    dict of str to ndarray
        By the name and of the shape of the parameter.
    """
    result = {}
    for name, value in network.get_parameters().items():
        result[name] = np.zeros_like(value)
        for place in np.ndindex(value.shape):
            costs = []
            for change in (step, -step):
                moved = value.copy()
                moved[place] += change
                network.set_parameters({name: moved})
                costs.append(network.loss_and_gradients(X, y, l2=l2)[0])
            result[name][place] = (costs[0] - costs[1]) / (2 * step)
        network.set_parameters({name: value})
    return result


def fit_quietly(model: Any, X: Array, y: Array) -> Any:
    """Fit an estimator and return it; its numbers, not a warning, say whether it converged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y)
