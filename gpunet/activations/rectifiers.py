"""Activations that pass on what is positive: ReLU, leaky ReLU, ELU, SELU, softplus."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gpunet.activations.activation import Array, OwnActivation
from gpunet.activations.onnx_graph import OnnxGraph
from gpunet.errors import InvalidValueError

# Klambauer et al. 2017: what makes mean 0 and variance 1 a fixed point.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


class ReLU(OwnActivation):
    """f(s) = max(0, s), f' = Ind(s > 0)."""

    name = "relu"
    torch_name = "ReLU"
    slopes = (0.0, 1.0)
    limits = (0.0, math.inf)
    gain = 2.0
    # NaN stays NaN, as in NumPy: a maximum would hide it.
    cuda_forward = "s < A(0) ? A(0) : s"
    cuda_derivative = "y > A(0) ? A(1) : A(0)"

    def forward(self, s: Array) -> Array:
        return np.maximum(s, 0)

    def derivative(self, kept: Array) -> Array:
        return (kept > 0).astype(kept.dtype)

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        return graph.add("Relu", [s], output)


@dataclass(frozen=True)
class LeakyReLU(OwnActivation):
    """f(s) = s where s > 0, slope * s elsewhere. The lecture writes both .1 and .01; .01 is the default here."""

    name = "leaky_relu"
    torch_name = "LeakyReLU"
    takes_number = True
    gain = 2.0
    cuda_forward = "s > A(0) ? s : multiply_rounded(parameter, s)"
    cuda_derivative = "y > A(0) ? A(1) : parameter"

    slope: float = 0.01

    def __post_init__(self) -> None:
        _check_number("leaky_relu slope", self.slope)

    @property
    def parameter(self) -> float:  # type: ignore[override]
        return float(self.slope)

    @property
    def slopes(self) -> tuple[float, float]:  # type: ignore[override]
        return self.slope, 1.0

    @property
    def limits(self) -> tuple[float, float]:  # type: ignore[override]
        return (-math.inf if self.slope > 0 else 0.0), math.inf

    def forward(self, s: Array) -> Array:
        if self.slope > 1:
            return np.where(s > 0, s, self.slope * s)
        return np.maximum(s, self.slope * s)  # the same, in a fifth of the time

    def derivative(self, kept: Array) -> Array:
        if self.slope > 1:
            return np.where(kept > 0, kept.dtype.type(1), kept.dtype.type(self.slope))
        return np.maximum((kept > 0).astype(kept.dtype), kept.dtype.type(self.slope))

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        return graph.add("LeakyRelu", [s], output, alpha=self.parameter)


@dataclass(frozen=True)
class ELU(OwnActivation):
    """f(s) = s where s > 0, alpha (exp(s) - 1) elsewhere, where f' = y + alpha."""

    name = "elu"
    torch_name = "ELU"
    takes_number = True
    gain = 2.0
    cuda_forward = "s > A(0) ? s : multiply_rounded(parameter, exponential_minus_one(s))"
    cuda_derivative = "y > A(0) ? A(1) : y + parameter"

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check_number("elu alpha", self.alpha)

    @property
    def parameter(self) -> float:  # type: ignore[override]
        return float(self.alpha)

    @property
    def limits(self) -> tuple[float, float]:  # type: ignore[override]
        return -self.alpha, math.inf

    def forward(self, s: Array) -> Array:
        return np.maximum(s, 0) + self.alpha * np.expm1(np.minimum(s, 0))

    def derivative(self, kept: Array) -> Array:
        if self.alpha == 1:
            return np.minimum(kept, 0) + 1  # the same, in half the time
        return np.where(kept > 0, 1, kept + self.alpha)

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        return graph.add("Elu", [s], output, alpha=self.parameter)


class SELU(OwnActivation):
    """f(s) = lambda s where s > 0, lambda alpha (exp(s) - 1) elsewhere, where f' = y + lambda alpha.

    Klambauer et al. 2017, "Self-normalizing neural networks", with their lambda = 1.0507 and alpha = 1.6733. It wants
    weights of variance 1 / d and no batch norm.
    """

    name = "selu"
    torch_name = "SELU"
    limits = (-SELU_SCALE * SELU_ALPHA, math.inf)
    cuda_forward = (
        f"s > A(0) ? multiply_rounded(A({SELU_SCALE!r}), s)"
        f" : multiply_rounded(A({SELU_SCALE * SELU_ALPHA!r}), exponential_minus_one(s))"
    )
    cuda_derivative = f"y > A(0) ? A({SELU_SCALE!r}) : y + A({SELU_SCALE * SELU_ALPHA!r})"

    def forward(self, s: Array) -> Array:
        return SELU_SCALE * np.maximum(s, 0) + (SELU_SCALE * SELU_ALPHA) * np.expm1(np.minimum(s, 0))

    def derivative(self, kept: Array) -> Array:
        scale, largest = map(kept.dtype.type, (SELU_SCALE, SELU_SCALE * SELU_ALPHA))
        return np.where(kept > 0, scale, kept + largest)

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        return graph.add("Selu", [s], output, alpha=SELU_ALPHA, gamma=SELU_SCALE)


class Softplus(OwnActivation):
    """f(s) = log(1 + exp(s)), f' = sigmoid(s) = 1 - exp(-y)."""

    name = "softplus"
    torch_name = "Softplus"
    limits = (0.0, math.inf)
    cuda_forward = "(s > A(0) ? s : A(0)) + logarithm_of_one_plus(exponential(s > A(0) ? -s : s))"
    cuda_derivative = "-exponential_minus_one(-y)"

    def forward(self, s: Array) -> Array:
        return np.maximum(s, 0) + np.log1p(np.exp(-np.abs(s)))

    def derivative(self, kept: Array) -> Array:
        return -np.expm1(-kept)

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        return graph.add("Softplus", [s], output)


def _check_number(argument: str, number: float) -> None:
    if not (math.isfinite(number) and number >= 0):
        raise InvalidValueError(f"{argument}: {number!r} is not valid. Expected a finite number of at least 0.")
