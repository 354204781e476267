"""Activation functions and their derivatives (lecture row L3): the NumPy specification.

Each derivative is a function of the *output* y, so a layer keeps one array instead of two, and the backward pass
sees exactly the branch that the forward pass took: ``y > 0`` where ``s > 0``.

References
----------
Maas, Hannun, Ng 2013 (leaky ReLU); Clevert, Unterthiner, Hochreiter 2015 (ELU).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from gpunet.errors import InvalidTypeError, InvalidValueError, unknown_name
from gpunet.specification import split_name

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class Activation(ABC):
    """An element-wise non-linearity y = f(s)."""

    name: ClassVar[str]

    @abstractmethod
    def forward(self, s: Array) -> Array:
        """Return f(s), same shape and dtype."""

    @abstractmethod
    def derivative(self, y: Array) -> Array:
        """Return f'(s) written in terms of y = f(s), same shape and dtype."""

    @classmethod
    def with_number(cls, number: float) -> Activation:
        """Return the activation with its one number set."""
        return cls(number)  # type: ignore[call-arg]

    @property
    def parameter(self) -> float:
        """The function's one number (slope of leaky ReLU, alpha of ELU), 0 where there is none."""
        numbers = [float(getattr(self, field.name)) for field in fields(self)]
        return numbers[0] if numbers else 0.0

    def __str__(self) -> str:
        return f"{self.name}({self.parameter!r})" if fields(self) else self.name


@dataclass(frozen=True)
class Identity(Activation):
    """f(s) = s."""

    name: ClassVar[str] = "identity"

    def forward(self, s: Array) -> Array:
        return s

    def derivative(self, y: Array) -> Array:
        return np.ones_like(y)


@dataclass(frozen=True)
class Sigmoid(Activation):
    """f(s) = 1 / (1 + exp(-s)), f' = y (1 - y)."""

    name: ClassVar[str] = "sigmoid"

    def forward(self, s: Array) -> Array:
        with np.errstate(over="ignore"):  # exp(-s) = inf for very negative s gives the right value, 0
            return np.reciprocal(1 + np.exp(-s))

    def derivative(self, y: Array) -> Array:
        return y * (1 - y)


@dataclass(frozen=True)
class Tanh(Activation):
    """f(s) = tanh(s), f' = 1 - y^2 = (1 - y)(1 + y)."""

    name: ClassVar[str] = "tanh"

    def forward(self, s: Array) -> Array:
        return np.tanh(s)

    def derivative(self, y: Array) -> Array:
        return (1 - y) * (1 + y)


@dataclass(frozen=True)
class ReLU(Activation):
    """f(s) = max(0, s), f' = Ind(s > 0)."""

    name: ClassVar[str] = "relu"

    def forward(self, s: Array) -> Array:
        return np.maximum(s, 0)

    def derivative(self, y: Array) -> Array:
        return (y > 0).astype(y.dtype)


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """f(s) = s where s > 0, slope * s elsewhere. The lecture writes both .1 and .01; .01 is the default here."""

    name: ClassVar[str] = "leaky_relu"
    slope: float = 0.01

    def __post_init__(self) -> None:
        _check_number("leaky_relu slope", self.slope)

    def forward(self, s: Array) -> Array:
        if self.slope > 1:
            return np.where(s > 0, s, self.slope * s)
        return np.maximum(s, self.slope * s)  # the same, in a fifth of the time

    def derivative(self, y: Array) -> Array:
        if self.slope > 1:
            return np.where(y > 0, y.dtype.type(1), y.dtype.type(self.slope))
        return np.maximum((y > 0).astype(y.dtype), y.dtype.type(self.slope))


@dataclass(frozen=True)
class ELU(Activation):
    """f(s) = s where s > 0, alpha (exp(s) - 1) elsewhere, where f' = y + alpha."""

    name: ClassVar[str] = "elu"
    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check_number("elu alpha", self.alpha)

    def forward(self, s: Array) -> Array:
        return np.maximum(s, 0) + self.alpha * np.expm1(np.minimum(s, 0))

    def derivative(self, y: Array) -> Array:
        if self.alpha == 1:
            return np.minimum(y, 0) + 1  # the same, in half the time
        return np.where(y > 0, 1, y + self.alpha)


def _check_number(argument: str, number: float) -> None:
    if not (math.isfinite(number) and number >= 0):
        raise InvalidValueError(f"{argument}: {number!r} is not valid. Expected a finite number of at least 0.")


ACTIVATIONS: dict[str, type[Activation]] = {
    activation.name: activation for activation in (Identity, Sigmoid, Tanh, ReLU, LeakyReLU, ELU)
}


def get_activation(activation: str | Activation, argument: str = "activation") -> Activation:
    """Return the activation that a name stands for: ``"relu"``, ``"leaky_relu(0.1)"``, ``"elu(0.5)"``.

    Parameters
    ----------
    activation : str or Activation
        An :class:`Activation` is returned as it is.
    argument : str
        The name that error messages give the argument.

    Raises
    ------
    InvalidValueError
        The name is unknown (the message has the nearest valid one), or its number is out of range.
    InvalidTypeError
        Neither a string nor an :class:`Activation`.
    """
    if isinstance(activation, Activation):
        return activation
    if not isinstance(activation, str):
        raise InvalidTypeError(f"{argument}: got {type(activation).__name__}. Expected a name or an Activation.")
    name, number = split_name(argument, activation)
    if name not in ACTIVATIONS:
        raise unknown_name(argument, activation, ACTIVATIONS)
    kind = ACTIVATIONS[name]
    if number is None:
        return kind()
    if not fields(kind):
        raise InvalidValueError(f"{argument}: {name!r} takes no number, got {activation!r}.")
    return kind.with_number(number)
