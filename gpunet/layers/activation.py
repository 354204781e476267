"""Bias and activation: Y = f(S + b) (lecture rows L1, L3)."""

from __future__ import annotations

from gpunet.activations import Activation, Identity
from gpunet.layers.base import Array, Layer, ParameterSpec, fixed
from gpunet.layers.linear import Linear


class BiasActivation(Layer):
    """Y = f(S + b), in place where the derivative is a function of Y: then S is overwritten.

    Not in place where rows are padded: the padding of S stays 0, and that of Y is f(0).

    Parameters
    ----------
    index, columns : int
    activation : Activation
        f; after the last linear layer usually the identity.
    initial_bias : float
        Every b starts here; slightly positive values keep ReLU units alive at the start (L18).
    """

    kind = "activation"
    activation = fixed("activation")

    def __init__(self, index: int, columns: int, activation: Activation, initial_bias: float = 0.0) -> None:
        super().__init__(index, columns)
        self._activation = activation
        self._bias = f"b{index}"
        self._initial_bias = initial_bias

    def parameter_specs(self) -> list[ParameterSpec]:
        return [ParameterSpec(self._bias, (self.columns,), self._initial_bias)]

    def forward(self, x: Array, training: bool) -> Array:
        y = self.buffer("y", x.shape[0]) if self._leaves_input(training) else x
        self.backend.bias_activation_forward(x, self.parameters[self._bias], self.activation, out=y)
        self._kept = x if self.activation.derivative_of == "input" else y
        return y

    def forward_after(self, linear: Linear, x: Array, training: bool) -> Array:
        """Return what :meth:`forward` makes of the output of ``linear`` for x, where possible by one operation."""
        if self._leaves_input(training):
            linear.output = linear.forward(x, training)
            return self.forward(linear.output, training)
        bias = self.parameters[self._bias]
        linear.output = self._kept = linear.forward_activated(x, bias, self.activation, training)
        return linear.output

    def _leaves_input(self, training: bool) -> bool:
        return (training and self.activation.derivative_of == "input") or self.width != self.columns

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """dS = dY f'(S), db = sum_i dS_i, in place of dY."""
        bias, dbias = self.parameters[self._bias], self.gradients[self._bias]
        self.backend.bias_activation_backward(dy, self._kept, self.activation, ds=dy, dbias=dbias, bias=bias)
        return dy

    def bias_alone(self) -> tuple[Array, Array] | None:
        """Return b and db where f is the identity: the loss that follows may add b, and write db, itself."""
        if not isinstance(self.activation, Identity):
            return None
        return self.parameters[self._bias], self.gradients[self._bias]

    def slopes(self) -> Array:
        """Return f'(S + b) of the last training forward, (n, columns), on the host."""
        kept = self.numbers(self._kept)
        if self.activation.derivative_of == "input":
            kept = kept + self.backend.to_numpy(self.parameters[self._bias])[: self.columns]
        return self.activation.derivative(kept)
