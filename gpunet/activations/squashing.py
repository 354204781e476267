"""Activations that keep every unit within bounds: sigmoid, tanh and their straight-line versions; and the identity."""

from __future__ import annotations

import math

import numpy as np

from gpunet.activations.activation import Array, OwnActivation
from gpunet.activations.onnx_graph import OnnxGraph


class Identity(OwnActivation):
    """f(s) = s."""

    name = "identity"
    torch_name = "Identity"
    slopes = (1.0, 1.0)
    limits = (-math.inf, math.inf)
    cuda_forward = "s"
    cuda_derivative = "A(1)"

    def forward(self, s: Array) -> Array:
        return s

    def derivative(self, kept: Array) -> Array:
        return np.ones_like(kept)

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        return s


class Sigmoid(OwnActivation):
    """f(s) = 1 / (1 + exp(-s)), f' = y (1 - y)."""

    name = "sigmoid"
    torch_name = "Sigmoid"
    limits = (0.0, 1.0)
    cuda_forward = "A(1) / (A(1) + exponential(-s))"
    cuda_derivative = "y * (A(1) - y)"

    def forward(self, s: Array) -> Array:
        with np.errstate(over="ignore"):  # exp(-s) = inf for very negative s gives the right value, 0
            return np.reciprocal(1 + np.exp(-s))

    def derivative(self, kept: Array) -> Array:
        return kept * (1 - kept)

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        return graph.add("Sigmoid", [s], output)


class Tanh(OwnActivation):
    """f(s) = tanh(s), f' = 1 - y^2 = (1 - y)(1 + y)."""

    name = "tanh"
    torch_name = "Tanh"
    limits = (-1.0, 1.0)
    cuda_forward = "hyperbolic_tangent(s)"
    cuda_derivative = "(A(1) - y) * (A(1) + y)"

    def forward(self, s: Array) -> Array:
        return np.tanh(s)

    def derivative(self, kept: Array) -> Array:
        return (1 - kept) * (1 + kept)

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        return graph.add("Tanh", [s], output)


class HardSigmoid(OwnActivation):
    """f(s) = (s + 3) / 6 between 0 and 1, f' = 1/6 there (as PyTorch and Keras 3 have it)."""

    name = "hard_sigmoid"
    torch_name = "Hardsigmoid"
    limits = (0.0, 1.0)
    cuda_forward = "clamped(s + A(3), A(0), A(6)) / A(6)"
    cuda_derivative = "y > A(0) && y < A(1) ? A(1) / A(6) : A(0)"

    def forward(self, s: Array) -> Array:
        return np.clip(s + 3, 0, 6) / 6

    def derivative(self, kept: Array) -> Array:
        return ((kept > 0) & (kept < 1)).astype(kept.dtype) / 6

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        return graph.add("HardSigmoid", [s], output, alpha=1 / 6, beta=0.5)


class HardTanh(OwnActivation):
    """f(s) = s between -1 and 1, f' = 1 there."""

    name = "hard_tanh"
    torch_name = "Hardtanh"
    limits = (-1.0, 1.0)
    cuda_forward = "clamped(s, A(-1), A(1))"
    cuda_derivative = "y > A(-1) && y < A(1) ? A(1) : A(0)"

    def forward(self, s: Array) -> Array:
        return np.clip(s, -1, 1)

    def derivative(self, kept: Array) -> Array:
        return (np.abs(kept) < 1).astype(kept.dtype)

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        return graph.add("Clip", [s, graph.constant(-1), graph.constant(1)], output)
