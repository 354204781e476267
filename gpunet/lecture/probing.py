"""Looking inside: activations on their own, the scores of hidden layers, gradients by differences, runs that stop."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunet.activations import Activation
from gpunet.backends import Backend
from gpunet.errors import ConvergenceWarning
from gpunet.layers import Linear
from gpunet.lecture.experiment import Array
from gpunet.network import Network
from gpunet.training import Callback, EpochRecord, Run


def run_activation(backend: Backend, activation: Activation, s: Array) -> tuple[Array, Array]:
    """Return f(s) and f'(s) as a layer computes them, for scores (n,) in their precision, on the host.

    The derivative is what the backward operation makes of a gradient of ones.
    """
    scores = backend.asarray(np.ascontiguousarray(s.reshape(-1, 1)))
    values = backend.empty(scores.shape, s.dtype)
    derivatives = backend.empty(scores.shape, s.dtype)
    backend.bias_activation_forward(scores, None, activation, values)
    ones = backend.asarray(np.ones((len(s), 1), s.dtype))
    kept = scores if activation.derivative_of == "input" else values
    backend.bias_activation_backward(ones, kept, activation, derivatives, None)
    return backend.to_numpy(values)[:, 0].copy(), backend.to_numpy(derivatives)[:, 0].copy()


def hidden_scores(network: Network, X: Array) -> list[Array]:
    """Return W_i x_{i-1} of each hidden layer when the rows of X are one training batch, without its bias.

    They are (n, m_i) of float64 on the host: what batch norm takes, where a layer has it. The network's parameters and
    running averages stay as they are.
    """
    backend = network.backend
    last = len(network.layer_sizes) - 1
    with network.kept_averages():
        return [
            backend.to_numpy(outputs).astype(np.float64)
            for layer, outputs in network.forward_layers(backend.asarray(network.check_inputs(X)), dropout=False)
            if isinstance(layer, Linear) and layer.index < last
        ]


def numeric_gradient(cost: Callable[[Array], float], x: Array, step: float = 1e-5) -> Array:
    """Return the derivatives of a cost in each element of an array of float64, by central differences."""
    gradient = np.empty_like(x)
    for place in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[place] += step
        below[place] -= step
        gradient[place] = (cost(above) - cost(below)) / (2 * step)
    return gradient


def central_differences(network: Network, X: Array, y: Array, l2: float) -> dict[str, Array]:
    """Return dJ/d(each single parameter) of a float64 network by central differences, by the parameters' names.

    J is the network's own cost of the rows of X; its parameters stay as they are.
    """

    def gradient(name: str, value: Array) -> Array:
        def cost(moved: Array) -> float:
            network.set_parameters({name: moved})
            return network.loss_and_gradients(X, y, l2=l2)[0]

        found = numeric_gradient(cost, value)
        network.set_parameters({name: value})
        return found

    return {name: gradient(name, value) for name, value in network.get_parameters().items()}


class EveryEpoch(Callback):
    """Keeps what a function of the network returns after each epoch, and before the first where it is given then.

    Attributes
    ----------
    seen : list
        What it returned.
    """

    def __init__(self, look: Callable[[Network], Any], network: Network | None = None) -> None:
        self._look = look
        self.seen = [] if network is None else [look(network)]

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        """Look again."""
        self.seen.append(self._look(run.network))


def fit_quietly(model: Any, X: Array, y: Array) -> Any:
    """Fit an estimator and return it; its numbers, not a warning, say whether it converged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y)
