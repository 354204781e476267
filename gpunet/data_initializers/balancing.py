"""Change rates of the layers, and making them equal (Krähenbühl et al. 2015, section 3.2, algorithm 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.data_initializers.sample import check_sample
from gpunet.errors import InvalidValueError
from gpunet.layers import Linear
from gpunet.network import Network, on_network
from gpunet.random import Purpose, host_generator

Array = npt.NDArray[Any]


@on_network
def change_rates(network: Network, X: npt.ArrayLike) -> list[float]:
    """Return for each linear layer how fast its weights change, relative to their size, as a step begins.

    The paper's C_k = sqrt(mean over rows and weights of (dl/dw)^2 / mean over weights of w^2), for the random linear
    loss l(z) = eta^T z of the outputs z, with eta standard normal and drawn anew for every row: the loss and the
    targets that training will have are not needed. Batch norm takes the statistics of X; dropout is left out.

    Parameters
    ----------
    network : Network
        Left as it is.
    X : array_like, (n, d)
        At least 2 rows that differ.

    Raises
    ------
    ShapeError, InvalidTypeError, NonFiniteError
        X does not fit the network, or has one row.
    InvalidValueError
        X is constant, or a layer has no weight or no gradient other than 0.
    """
    inputs = check_sample(network, X)
    backend = network.backend
    eta = host_generator(network.seed, Purpose.NOISE).standard_normal((len(inputs), network.layer_sizes[-1]))
    squares: dict[int, Array] = {}
    rates: dict[int, float] = {}
    # Gradients of about 1, and no mean over the rows: float16 has them as they are.
    with network.kept_averages(), network.kept_gradients(), network.kept_loss_scale(1.0):
        incoming = inputs
        for layer, output in network.forward_layers(backend.asarray(inputs), dropout=False):
            if isinstance(layer, Linear):
                squares[layer.index] = _row_squares(incoming)
            incoming = layer.numbers(output)
        gradient = backend.asarray(np.ascontiguousarray(eta, network.dtype))
        for layer, doutput in network.backward_layers(gradient, dropout=False):
            if isinstance(layer, Linear):
                # The square of an outer product's norm, g x^T, is the product of the squares.
                change = float(np.mean(_row_squares(network.gradient_numbers(layer, doutput)) * squares[layer.index]))
                size = float(np.sum(backend.to_numpy(network.parameters[f"W{layer.index}"]).astype(np.float64) ** 2))
                if not (size > 0 and change > 0):
                    nothing = "weights of" if size == 0 else "gradients that reach"
                    raise InvalidValueError(f"X: all {nothing} linear{layer.index} are 0. Expected others.")
                rates[layer.index] = math.sqrt(change / size)
    return [rates[index] for index in sorted(rates)]


def can_balance(network: Network) -> bool:
    """Say whether every hidden layer can be scaled without a change of what the network computes.

    Batch norm undoes a factor on its layer; a homogeneous activation passes it on, to be taken out of the next layer.
    """
    pairs = zip(network.activations, network.batch_norm, strict=True)
    return all(normalised or activation.is_homogeneous for activation, normalised in pairs)


def balancing_factors(rates: list[float], batch_norm: Sequence[bool]) -> tuple[list[float], list[float]]:
    """Return what to multiply each W_i and each b_i with, so that all layers change at one rate.

    Multiplying W_i with r divides its gradient by r, as long as the network computes the same, and its rate by r^2. A
    layer with batch norm can be scaled freely. Where f_i is homogeneous, the factor is taken out of W_{i+1} again, so
    behind the last batch norm the product of all factors has to be 1: the common rate is the geometric mean of these
    layers' rates. The paper approaches that in damped iterations, for layers that are not quite homogeneous; here one
    step does it.

    Parameters
    ----------
    rates : list of float, k
    batch_norm : list of bool, k - 1

    Returns
    -------
    weight_factors, bias_factors : list of float, k
        Biases take what their layer's scores are multiplied with: all factors since the last batch norm.
    """
    bound = rates[max((i + 1 for i, normalised in enumerate(batch_norm) if normalised), default=0) :]
    common = math.exp(math.fsum(map(math.log, bound)) / len(bound))
    weight_factors = [math.sqrt(rate / common) for rate in rates]
    bias_factors = []
    scale = 1.0
    for factor, normalised in zip(weight_factors, [*batch_norm, False], strict=True):
        scale *= factor
        bias_factors.append(scale)
        if normalised:
            scale = 1.0
    return weight_factors, bias_factors


def _row_squares(values: Array) -> Array:
    """Return each row's sum of squares, (n,), in float64."""
    return np.einsum("ij,ij->i", values, values, dtype=np.float64)
