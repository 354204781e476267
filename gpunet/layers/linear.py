"""The linear layer: S = X W^T (lecture row L1; the bias is added by the layer that follows, in the same pass)."""

from __future__ import annotations

from gpunet.activations import Activation
from gpunet.layers.base import Array, Layer, ParameterSpec, fixed


class Linear(Layer):
    """S = X W_i^T for a batch X of shape (n, d), W_i of shape (m, d): each row is s = W x.

    The lecture's s = W x + b is this layer and the bias of :class:`~gpunet.layers.activation.BiasActivation`.

    Parameters
    ----------
    index : int
        i, from 1.
    inputs, outputs : int
        d and m.
    """

    kind = "linear"
    inputs = fixed("inputs")

    def __init__(self, index: int, inputs: int, outputs: int) -> None:
        super().__init__(index, outputs)
        self._inputs = inputs
        self._weight = f"W{index}"

    def parameter_specs(self) -> list[ParameterSpec]:
        return [ParameterSpec(self._weight, (self.columns, self.inputs), is_weight=True)]

    def forward(self, x: Array, training: bool) -> Array:
        s = self.buffer("s", x.shape[0])
        self.backend.gemm(x, self.parameters[self._weight], s, transpose_b=True)
        self._x = x
        return s

    def forward_activated(self, x: Array, bias: Array, activation: Activation) -> Array:
        """Return f(S + b), in the place of S, by one operation."""
        y = self.buffer("s", x.shape[0])
        self.backend.linear_activation_forward(x, self.parameters[self._weight], bias, activation, y)
        self._x = x
        return y

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """dW = dS^T X, dX = dS W: sums over the batch of the lecture's g^T x^T and g W.

        The layers below wait for dX alone, and dW is computed beside it and them, until the next linear layer.
        """
        with self.backend.beside():
            self.backend.gemm(dy, self._x, self.gradients[self._weight], transpose_a=True)
        if not input_gradient:
            return None
        # Two buffers alternate for all layers: dS is read while dX is written, and nothing older is needed, now that
        # the product beside the layer above has been joined.
        dx = self.workspace.rows(f"gradient{self.index % 2}", dy.shape[0], self.inputs, self.dtype)
        self.backend.gemm(dy, self.parameters[self._weight], dx)
        return dx
