"""Activations s g(s) with a gate g from 0 to 1: GELU, SiLU, Mish, hard swish. Not monotonous: f' needs s.

Far below 0, where the gate is 0 and s may be -inf, the product is taken with an s that is finite and whose gate is 0
just the same.
"""

from __future__ import annotations

import math

import numpy as np

from gpunet.activations.activation import Array, OwnActivation
from gpunet.activations.normal_distribution import CUDA_NORMAL_DISTRIBUTION, FARTHEST, normal_distribution
from gpunet.activations.onnx_graph import OnnxGraph

# Of the tanh form: 1 + tanh(u) = 2 sigmoid(2 u), u = sqrt(2 / pi) (s + 0.044715 s^3).
GELU_SCALE = math.sqrt(8 / math.pi)
GELU_CUBE = 0.044715
# Where exp overflows, beyond all gates.
_LOWEST = -1000.0
# From here on Mish's gate is 1, to the last bit of float64.
_MISH_OPEN = 20.0


class Gated(OwnActivation):
    """What they have in common: f(-inf) = 0, f(inf) = inf, and about half of the input is passed on."""

    derivative_of = "input"
    limits = (0.0, math.inf)
    gain = 2.0


class GELU(Gated):
    """f(s) = s Phi(s) with the normal distribution Phi(s) = (1 + erf(s / sqrt(2))) / 2; f' = Phi(s) + s phi(s).

    Hendrycks and Gimpel 2016, "Gaussian error linear units".
    """

    name = "gelu"
    torch_name = "GELU"
    cuda_forward = f"{CUDA_NORMAL_DISTRIBUTION}return (s < A(0) ? near : s) * probability;"
    cuda_derivative = (
        f"{CUDA_NORMAL_DISTRIBUTION}return probability + near * (A({1 / math.sqrt(2 * math.pi)!r}) * bell);"
    )

    def forward(self, s: Array) -> Array:
        return normal_distribution(s)[0] * np.maximum(s, -FARTHEST)

    def derivative(self, kept: Array) -> Array:
        probability, density = normal_distribution(kept)
        return probability + np.clip(kept, -FARTHEST, FARTHEST) * density

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        scaled = graph.add("Mul", [s, graph.constant(math.sqrt(0.5))])
        gate = graph.add("Add", [graph.add("Erf", [scaled]), graph.constant(1)])
        return graph.add("Mul", [graph.add("Mul", [s, graph.constant(0.5)]), gate], output)


class GELUTanh(Gated):
    """f(s) = s (1 + tanh(sqrt(2 / pi) (s + 0.044715 s^3))) / 2, the approximation of GELU in its own paper."""

    name = "gelu_tanh"
    torch_name = "GELU"
    torch_options = {"approximate": "tanh"}  # noqa: RUF012
    _cuda_gate = (
        "const A near = clamped(s, A(-40), A(40));\n"
        f"const A bent = near * (A(1) + A({GELU_CUBE!r}) * near * near);\n"
        f"const A gate = A(1) / (A(1) + exponential(A({-GELU_SCALE!r}) * bent));\n"
    )
    cuda_forward = _cuda_gate + "return (s < A(-40) ? A(-40) : s) * gate;"
    cuda_derivative = (
        f"{_cuda_gate}const A slope = A({GELU_SCALE!r}) * (A(1) + A({3 * GELU_CUBE!r}) * near * near);\n"
        "return gate * (A(1) + near * (A(1) - gate) * slope);"
    )

    def forward(self, s: Array) -> Array:
        return np.maximum(s, -FARTHEST) * self._gate(np.clip(s, -FARTHEST, FARTHEST))

    def derivative(self, kept: Array) -> Array:
        s = np.clip(kept, -FARTHEST, FARTHEST)
        gate = self._gate(s)
        return gate * (1 + s * (1 - gate) * (GELU_SCALE * (1 + 3 * GELU_CUBE * s * s)))

    def _gate(self, s: Array) -> Array:
        with np.errstate(over="ignore"):  # exp = inf gives the right value, 0
            return np.reciprocal(1 + np.exp(-GELU_SCALE * s * (1 + GELU_CUBE * s * s)))

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        cubed = graph.add("Mul", [graph.add("Mul", [s, s]), graph.constant(GELU_CUBE)])
        bent = graph.add("Mul", [s, graph.add("Add", [cubed, graph.constant(1)])])
        inner = graph.add("Mul", [bent, graph.constant(GELU_SCALE)])
        return graph.add("Mul", [s, graph.add("Sigmoid", [inner])], output)


class SiLU(Gated):
    """f(s) = s sigmoid(s), also known as swish; f' = g (1 + s (1 - g)) with the gate g = sigmoid(s).

    Elfwing, Uchibe, Doya 2018; Ramachandran, Zoph, Le 2017.
    """

    name = "silu"
    torch_name = "SiLU"
    cuda_forward = "(s < A(-1000) ? A(-1000) : s) / (A(1) + exponential(-s))"
    cuda_derivative = (
        "const A near = clamped(s, A(-1000), A(1000)), gate = A(1) / (A(1) + exponential(-near));\n"
        "return gate * (A(1) + near * (A(1) - gate));"
    )

    def forward(self, s: Array) -> Array:
        with np.errstate(over="ignore"):  # exp = inf gives the right value, 0
            return np.maximum(s, _LOWEST) / (1 + np.exp(-s))

    def derivative(self, kept: Array) -> Array:
        s = np.clip(kept, _LOWEST, -_LOWEST)
        with np.errstate(over="ignore"):
            gate = np.reciprocal(1 + np.exp(-s))
        return gate * (1 + s * (1 - gate))

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        return graph.add("Mul", [s, graph.add("Sigmoid", [s])], output)


class Mish(Gated):
    """f(s) = s tanh(softplus(s)): with e = exp(s) and n = e (e + 2), the gate is n / (n + 2).

    Its derivative is 4 e (e + 1) / (n + 2)^2. Misra 2019, "Mish: a self regularized non-monotonic activation function".
    """

    name = "mish"
    torch_name = "Mish"
    cuda_forward = (
        "const A e = exponential(s < A(20) ? s : A(20)), n = e * (e + A(2));\n"
        "return (s < A(-1000) ? A(-1000) : s) * (n / (n + A(2)));"
    )
    cuda_derivative = (
        "const A near = clamped(s, A(-1000), A(20)), e = exponential(near), n = e * (e + A(2));\n"
        "return (n + A(4) * near * (e * (e + A(1)) / (n + A(2)))) / (n + A(2));"
    )

    def forward(self, s: Array) -> Array:
        e = np.exp(np.minimum(s, _MISH_OPEN))
        n = e * (e + 2)
        return np.maximum(s, _LOWEST) * (n / (n + 2))

    def derivative(self, kept: Array) -> Array:
        s = np.clip(kept, _LOWEST, _MISH_OPEN)
        e = np.exp(s)
        n = e * (e + 2)
        return (n + 4 * s * (e * (e + 1) / (n + 2))) / (n + 2)

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        return graph.add("Mul", [s, graph.add("Tanh", [graph.add("Softplus", [s])])], output)


class HardSwish(Gated):
    """f(s) = s (s + 3) / 6 between -3 and 3, 0 below and s above. Howard et al. 2019, "Searching for MobileNetV3"."""

    name = "hard_swish"
    torch_name = "Hardswish"
    cuda_forward = "(s < A(-3) ? A(-3) : s) * (clamped(s + A(3), A(0), A(6)) / A(6))"
    cuda_derivative = "s <= A(-3) ? A(0) : (s >= A(3) ? A(1) : (s + s + A(3)) / A(6))"

    def forward(self, s: Array) -> Array:
        return np.maximum(s, -3) * (np.clip(s + 3, 0, 6) / 6)

    def derivative(self, kept: Array) -> Array:
        inside = np.clip(kept, -3, 3)
        slope = (inside + inside + 3) / 6
        return np.where(inside <= -3, kept.dtype.type(0), np.where(inside >= 3, kept.dtype.type(1), slope))

    def onnx(self, graph: OnnxGraph, s: str, output: str) -> str:
        return graph.add("HardSwish", [s], output)
