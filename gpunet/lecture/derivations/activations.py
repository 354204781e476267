"""Activation functions and their derivatives (lecture, "Options for activation functions"; row L3).

An activation is applied independently to each element of the score vector, so every function here takes an
array of any shape and returns one of the same shape. Each derivative is a function of the score s, not of
the activation's value: it can be read beside its formula, and shares no step with code that differentiates
from the output.

ReLU, leaky ReLU and ELU with alpha != 1 have no derivative at s = 0. There these functions return the
derivative from the left, which is what the lecture's Ind(s > 0) does for ReLU.
"""

from __future__ import annotations

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
        One of "sigmoid", "tanh", "relu", "leaky_relu", "elu", "identity".
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
    }
    if name not in known:
        raise ValueError(f"no activation is named {name!r}; the names are {', '.join(known)}")
    function, derivative = known[name]
    return Activation(name, function, derivative)
