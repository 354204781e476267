"""Initial weights (lecture rows L19, L20): zeros, N(0, std^2), Xavier, He.

An initialiser is a callable ``(shape, generator) -> array`` for W of shape (m, d): fan-in d, fan-out m. It draws in
float64 on the host, so the same seed gives the same weights on every device, and the same up to rounding in every
dtype.

References
----------
Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks" (Xavier);
He, Zhang, Ren, Sun 2015, "Delving deep into rectifiers" (He). The lecture's Xavier is N(0, 1/d), standard deviation
1/sqrt(500) for its 500-wide layers; Glorot's variance 2 / (d + m) is the same for square layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation
from gpunet.errors import InvalidTypeError, InvalidValueError, unknown_name
from gpunet.specification import split_name

Array = npt.NDArray[Any]
Initializer = Callable[[tuple[int, int], np.random.Generator], Array]


@dataclass(frozen=True)
class Zeros:
    """Every weight 0: all hidden units compute the same and stay the same, which is why nobody should use it."""

    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        return np.zeros(shape)

    def __str__(self) -> str:
        return "zeros"


@dataclass(frozen=True)
class Normal:
    """N(0, std^2); the lecture's "small random numbers" are std = .01, a variance of .01^2.

    Parameters
    ----------
    std : float
        Standard deviation, more than 0.
    """

    std: float = 0.01

    def __post_init__(self) -> None:
        if not (math.isfinite(self.std) and self.std > 0):
            raise InvalidValueError(f"normal std: {self.std!r} is not valid. Expected a finite number above 0.")

    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        return generator.normal(0.0, self.std, shape)

    def __str__(self) -> str:
        return f"normal({self.std!r})"


@dataclass(frozen=True)
class VarianceScaling:
    """Zero mean and a variance that keeps activations and gradients from growing or fading with depth.

    Parameters
    ----------
    name : str
    gain : float
        Variance times the fan: 1 for Xavier, 2 for He.
    fan : str
        ``"average"``: variance gain / ((d + m) / 2), Glorot's; ``"in"``: variance gain / d.
    distribution : str
        ``"normal"`` or ``"uniform"``.
    """

    name: str
    gain: float
    fan: str
    distribution: str

    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        fan_out, fan_in = shape
        variance = self.gain / (fan_in if self.fan == "in" else (fan_in + fan_out) / 2)
        if self.distribution == "normal":
            return generator.normal(0.0, math.sqrt(variance), shape)
        limit = math.sqrt(3 * variance)
        return generator.uniform(-limit, limit, shape)

    def __str__(self) -> str:
        return self.name


XAVIER_NORMAL = VarianceScaling("xavier_normal", 1.0, "average", "normal")
XAVIER_UNIFORM = VarianceScaling("xavier_uniform", 1.0, "average", "uniform")
HE_NORMAL = VarianceScaling("he_normal", 2.0, "in", "normal")
HE_UNIFORM = VarianceScaling("he_uniform", 2.0, "in", "uniform")

_FIXED: dict[str, Initializer] = {
    str(initializer): initializer for initializer in (Zeros(), XAVIER_NORMAL, XAVIER_UNIFORM, HE_NORMAL, HE_UNIFORM)
}
INITIALIZERS = (*_FIXED, "normal")


def get_initializer(initializer: str | Initializer) -> Initializer:
    """Return the initialiser that a name stands for: ``"he_normal"``, ``"normal(0.05)"``.

    Parameters
    ----------
    initializer : str or callable
        A callable ``(shape, generator) -> array`` is returned as it is.

    Raises
    ------
    InvalidValueError
        The name is unknown (the message has the nearest valid one), or its number is out of range.
    InvalidTypeError
        Neither a string nor callable.
    """
    if not isinstance(initializer, str):
        if callable(initializer):
            return initializer
        raise InvalidTypeError(f"initializer: got {type(initializer).__name__}. Expected a name or a callable.")
    name, number = split_name("initializer", initializer)
    if name == "normal":
        return Normal() if number is None else Normal(number)
    if name not in _FIXED:
        raise unknown_name("initializer", initializer, INITIALIZERS)
    if number is not None:
        raise InvalidValueError(f"initializer: {name!r} takes no number, got {initializer!r}.")
    return _FIXED[name]


def default_initializer(activation: Activation) -> Initializer:
    """Return He for the ReLU family, which passes on about half of its input, and Xavier for the others."""
    return HE_NORMAL if activation.name in ("relu", "leaky_relu", "elu") else XAVIER_NORMAL
