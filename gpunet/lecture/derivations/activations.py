"""Activation functions and their derivatives (lecture, "Options for activation functions"; row L3).

An activation is applied independently to each element of the score vector, so every function here takes an
array of any shape and returns one of the same shape. Each derivative is a function of the score s, not of
the activation's value: it can be read beside its formula, and shares no step with code that differentiates
from the output.

ReLU, leaky ReLU and ELU with alpha != 1 have no derivative at s = 0. There these functions return the
derivative from the left, which is what the lecture's Ind(s > 0) does for ReLU. SELU and the hard functions have the
one that is 0, or the left one, at their corners.

Sigmoid to ELU are the lecture's; the others came after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Function: TypeAlias = Callable[[FloatArray], FloatArray]


class Activation(NamedTuple):
    """An activation function together with its derivative.

    Attributes
    ----------
    name : str
        The name `activation_named` knows it by.
    function : callable
        Takes scores s of any shape, returns the activations h, of the same shape.
    derivative : callable
        Takes scores s of any shape, returns dh/ds element by element, of the same shape.
    """

    name: str
    function: Function
    derivative: Function


def sigmoid(s: FloatArray) -> FloatArray:
    """sigma(s) = 1 / (1 + exp(-s)), written with exp(-abs(s)) so that it never overflows."""
    e = np.exp(-np.abs(s))
    return np.where(s >= 0, 1.0, e) / (1.0 + e)


def sigmoid_derivative(s: FloatArray) -> FloatArray:
    """sigma'(s) = sigma(s) (1 - sigma(s)) = sigma(s) sigma(-s)."""
    return sigmoid(s) * sigmoid(-s)


def tanh(s: FloatArray) -> FloatArray:
    """tanh(s) = (exp(s) - exp(-s)) / (exp(s) + exp(-s))."""
    return np.tanh(s)


def tanh_derivative(s: FloatArray) -> FloatArray:
    """tanh'(s) = 1 - tanh(s)^2 = 1 / cosh(s)^2 = 4 e / (1 + e)^2 with e = exp(-2 abs(s)).

    The last form neither overflows nor subtracts two numbers close to 1 where tanh saturates.
    """
    e = np.exp(-2.0 * np.abs(s))
    return 4.0 * e / (1.0 + e) ** 2


def relu(s: FloatArray) -> FloatArray:
    """ReLU(s) = max(0, s)."""
    return np.maximum(0.0, s)


def relu_derivative(s: FloatArray) -> FloatArray:
    """ReLU'(s) = Ind(s > 0)."""
    return np.where(s > 0, 1.0, 0.0)


def leaky_relu(s: FloatArray, slope: float = 0.01) -> FloatArray:
    """Leaky ReLU: s if s > 0, slope * s otherwise; max(slope * s, s) for any slope up to 1.

    The lecture uses slope .1 on one slide and .01 on another: here it is a parameter, .01 by default.
    """
    return np.where(s > 0, s, slope * s)


def leaky_relu_derivative(s: FloatArray, slope: float = 0.01) -> FloatArray:
    """1 if s > 0, slope otherwise."""
    return np.where(s > 0, 1.0, slope)


def elu(s: FloatArray, alpha: float = 1.0) -> FloatArray:
    """ELU(s) = s if s > 0, alpha (exp(s) - 1) otherwise."""
    return np.where(s > 0, s, alpha * np.expm1(np.minimum(s, 0.0)))


def elu_derivative(s: FloatArray, alpha: float = 1.0) -> FloatArray:
    """1 if s > 0, alpha exp(s) otherwise."""
    return np.where(s > 0, 1.0, alpha * np.exp(np.minimum(s, 0.0)))


# After the lecture.


def softplus(s: FloatArray) -> FloatArray:
    """log(1 + exp(s)), of which exp(s) is not formed where it is large."""
    return np.logaddexp(0.0, s)


def normal_probability(s: FloatArray) -> FloatArray:
    """Phi(s) = erfc(-s / sqrt(2)) / 2."""
    return np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in s.flat]).reshape(s.shape)


def hard_sigmoid(s: FloatArray) -> FloatArray:
    """s / 6 + 1 / 2 where that is between 0 and 1, the nearer of the two elsewhere."""
    return np.minimum(np.maximum(s / 6 + 0.5, 0.0), 1.0)


def gelu_tanh_argument(s: FloatArray) -> FloatArray:
    """u = sqrt(2 / pi) (s + 0.044715 s^3)."""
    return np.sqrt(2 / np.pi) * (s + 0.044715 * s**3)


def gelu_tanh_derivative(s: FloatArray) -> FloatArray:
    """sigmoid(2 u) + s sigmoid'(2 u) 2 u'."""
    u = gelu_tanh_argument(s)
    return sigmoid(2 * u) + s * sigmoid_derivative(2 * u) * 2 * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * s**2)


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
# f and f', whose formula is the code.
LATER: dict[str, tuple[Function, Function]] = {
    "identity": (lambda s: s.copy(), np.ones_like),
    "selu": (lambda s: SELU_SCALE * elu(s, SELU_ALPHA), lambda s: SELU_SCALE * elu_derivative(s, SELU_ALPHA)),
    "softplus": (softplus, sigmoid),
    "gelu": (
        lambda s: s * normal_probability(s),
        lambda s: normal_probability(s) + s * np.exp(-(s**2) / 2) / np.sqrt(2 * np.pi),
    ),
    "gelu_tanh": (lambda s: s * sigmoid(2 * gelu_tanh_argument(s)), gelu_tanh_derivative),  # s (1 + tanh(u)) / 2
    "silu": (lambda s: s * sigmoid(s), lambda s: sigmoid(s) + s * sigmoid_derivative(s)),
    "mish": (
        lambda s: s * np.tanh(softplus(s)),
        lambda s: np.tanh(softplus(s)) + s * tanh_derivative(softplus(s)) * sigmoid(s),
    ),
    "hard_sigmoid": (hard_sigmoid, lambda s: np.where((s > -3) & (s < 3), 1 / 6, 0.0)),
    "hard_tanh": (
        lambda s: np.minimum(np.maximum(s, -1.0), 1.0),
        lambda s: np.where((s > -1) & (s < 1), 1.0, 0.0),
    ),
    "hard_swish": (
        lambda s: s * hard_sigmoid(s),
        lambda s: np.where(s <= -3, 0.0, np.where(s >= 3, 1.0, s / 3 + 0.5)),
    ),
}


def activation_named(name: str, *, slope: float = 0.01, alpha: float = 1.0) -> Activation:
    """The activation of this name, with its derivative.

    Parameters
    ----------
    name : str
        "sigmoid", "tanh", "relu", "leaky_relu", "elu", or one of `LATER`.
    slope : float
        Slope of leaky ReLU for negative scores. The other activations ignore it.
    alpha : float
        ELU tends to -alpha for large negative scores. The other activations ignore it.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError
        If there is no activation of this name.
    """
    known: dict[str, tuple[Function, Function]] = {
        "sigmoid": (sigmoid, sigmoid_derivative),
        "tanh": (tanh, tanh_derivative),
        "relu": (relu, relu_derivative),
        "leaky_relu": (partial(leaky_relu, slope=slope), partial(leaky_relu_derivative, slope=slope)),
        "elu": (partial(elu, alpha=alpha), partial(elu_derivative, alpha=alpha)),
        **LATER,
    }
    if name not in known:
        raise ValueError(f"no activation is named {name!r}; the names are {', '.join(known)}")
    function, derivative = known[name]
    return Activation(name, function, derivative)
