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
    function: Callable[[FloatArray], FloatArray]
    derivative: Callable[[FloatArray], FloatArray]


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


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def selu(s: FloatArray) -> FloatArray:
    """lambda ELU(s) with alpha = 1.6733 and lambda = 1.0507."""
    return SELU_SCALE * elu(s, SELU_ALPHA)


def selu_derivative(s: FloatArray) -> FloatArray:
    """lambda ELU'(s)."""
    return SELU_SCALE * elu_derivative(s, SELU_ALPHA)


def softplus(s: FloatArray) -> FloatArray:
    """log(1 + exp(s)), of which exp(s) is not formed where it is large."""
    return np.logaddexp(0.0, s)


def _normal_probability(s: FloatArray) -> FloatArray:
    """Phi(s) = erfc(-s / sqrt(2)) / 2."""
    return np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in s.flat]).reshape(s.shape)


def gelu(s: FloatArray) -> FloatArray:
    """s Phi(s)."""
    return s * _normal_probability(s)


def gelu_derivative(s: FloatArray) -> FloatArray:
    """Phi(s) + s exp(-s^2 / 2) / sqrt(2 pi)."""
    return _normal_probability(s) + s * np.exp(-(s**2) / 2) / np.sqrt(2 * np.pi)


def gelu_tanh(s: FloatArray) -> FloatArray:
    """s (1 + tanh(u)) / 2 = s sigmoid(2 u) with u = sqrt(2 / pi) (s + 0.044715 s^3)."""
    return s * sigmoid(2 * np.sqrt(2 / np.pi) * (s + 0.044715 * s**3))


def gelu_tanh_derivative(s: FloatArray) -> FloatArray:
    """sigmoid(2 u) + s sigmoid'(2 u) 2 u'."""
    u = np.sqrt(2 / np.pi) * (s + 0.044715 * s**3)
    return sigmoid(2 * u) + s * sigmoid_derivative(2 * u) * 2 * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * s**2)


def silu(s: FloatArray) -> FloatArray:
    """s sigmoid(s)."""
    return s * sigmoid(s)


def silu_derivative(s: FloatArray) -> FloatArray:
    """sigmoid(s) + s sigmoid'(s)."""
    return sigmoid(s) + s * sigmoid_derivative(s)


def mish(s: FloatArray) -> FloatArray:
    """s tanh(softplus(s))."""
    return s * np.tanh(softplus(s))


def mish_derivative(s: FloatArray) -> FloatArray:
    """tanh(softplus(s)) + s tanh'(softplus(s)) sigmoid(s)."""
    return np.tanh(softplus(s)) + s * tanh_derivative(softplus(s)) * sigmoid(s)


def hard_sigmoid(s: FloatArray) -> FloatArray:
    """s / 6 + 1 / 2 where that is between 0 and 1, the nearer of the two elsewhere."""
    return np.minimum(np.maximum(s / 6 + 0.5, 0.0), 1.0)


def hard_sigmoid_derivative(s: FloatArray) -> FloatArray:
    """Ind(-3 < s < 3) / 6."""
    return np.where((s > -3) & (s < 3), 1 / 6, 0.0)


def hard_tanh(s: FloatArray) -> FloatArray:
    """s where that is between -1 and 1, the nearer of the two elsewhere."""
    return np.minimum(np.maximum(s, -1.0), 1.0)


def hard_tanh_derivative(s: FloatArray) -> FloatArray:
    """Ind(-1 < s < 1)."""
    return np.where((s > -1) & (s < 1), 1.0, 0.0)


def hard_swish(s: FloatArray) -> FloatArray:
    """s hard_sigmoid(s)."""
    return s * hard_sigmoid(s)


def hard_swish_derivative(s: FloatArray) -> FloatArray:
    """0 up to -3, s / 3 + 1 / 2 up to 3, 1 from there on."""
    return np.where(s <= -3, 0.0, np.where(s >= 3, 1.0, s / 3 + 0.5))


def identity(s: FloatArray) -> FloatArray:
    """The activation of a linear unit: s itself."""
    return s.copy()


def identity_derivative(s: FloatArray) -> FloatArray:
    """1 everywhere."""
    return np.ones_like(s)


def activation_named(name: str, *, slope: float = 0.01, alpha: float = 1.0) -> Activation:
    """The activation of this name, with its derivative.

    Parameters
    ----------
    name : str
        "identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", or another function of this file.
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
    known: dict[str, tuple[Callable[[FloatArray], FloatArray], Callable[[FloatArray], FloatArray]]] = {
        "sigmoid": (sigmoid, sigmoid_derivative),
        "tanh": (tanh, tanh_derivative),
        "relu": (relu, relu_derivative),
        "leaky_relu": (partial(leaky_relu, slope=slope), partial(leaky_relu_derivative, slope=slope)),
        "elu": (partial(elu, alpha=alpha), partial(elu_derivative, alpha=alpha)),
        "identity": (identity, identity_derivative),
        "selu": (selu, selu_derivative),
        "softplus": (softplus, sigmoid),
        "gelu": (gelu, gelu_derivative),
        "gelu_tanh": (gelu_tanh, gelu_tanh_derivative),
        "silu": (silu, silu_derivative),
        "mish": (mish, mish_derivative),
        "hard_sigmoid": (hard_sigmoid, hard_sigmoid_derivative),
        "hard_tanh": (hard_tanh, hard_tanh_derivative),
        "hard_swish": (hard_swish, hard_swish_derivative),
    }
    if name not in known:
        raise ValueError(f"no activation is named {name!r}; the names are {', '.join(known)}")
    function, derivative = known[name]
    return Activation(name, function, derivative)
