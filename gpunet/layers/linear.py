"""The linear layer: S = X W^T (lecture row L1; the bias is added by the layer that follows, in the same pass)."""

from __future__ import annotations

from gpunet.activations import Activation
from gpunet.layers.base import Array, Layer, Memory, ParameterSpec, fixed


class Linear(Layer):
    """S = X W_i^T for a batch X of shape (n, d), W_i of shape (m, d): each row is s = W x.

    The lecture's s = W x + b is this layer and the bias of :class:`~gpunet.layers.activation.BiasActivation`.

    Parameters
    ----------
    index : int
        i, from 1.
    inputs, outputs : int
        d and m.

    Notes
    -----
    With half precision, the factors of its products are rounded and padded (``gpunet.backends.half``): the W_i, the
    network's input, and the gradient of the network's output, which is multiplied with the loss scale first. Sums are
    float32. Padded columns of X meet rows of W^T that are 0; S and dW are written without padding.
    """

    kind = "linear"
    inputs = fixed("inputs")

    def __init__(self, index: int, inputs: int, outputs: int) -> None:
        super().__init__(index, outputs)
        self._inputs = inputs
        self._weight = f"W{index}"

    def parameter_specs(self) -> list[ParameterSpec]:
        return [ParameterSpec(self._weight, (self.columns, self.inputs), is_weight=True)]

    def bind(self, memory: Memory) -> None:
        super().bind(memory)
        self.weight = memory.weights[self._weight]
        self.rows_of_weight = _leading(self.weight, self.columns, 0)
        self.loss_scale = memory.loss_scale

    def forward(self, x: Array, training: bool) -> Array:
        x = self._factor("x", x, self.weight.shape[1])
        s = self.buffer("s", x.shape[0], training)
        self.backend.gemm(x, self.rows_of_weight, _leading(s, self.columns), transpose_b=True)
        self._keep(x, training)
        return s

    def forward_activated(self, x: Array, bias: Array, activation: Activation, training: bool) -> Array:
        """Return f(S + b), in the place of S, by one operation."""
        x = self._factor("x", x, self.weight.shape[1])
        y = self.buffer("s", x.shape[0], training)
        self.backend.linear_activation_forward(x, self.rows_of_weight, bias, activation, y)
        self._keep(x, training)
        return y

    def _keep(self, x: Array, training: bool) -> None:
        """Keep X for :meth:`backward`; in inference mode it may be part of a large array of the user's."""
        if training:
            self._x = x

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """dW = dS^T X, dX = dS W: sums over the batch of the lecture's g^T x^T and g W.

        The layers below wait for dX alone, and dW is computed beside it and them, until the next linear layer.
        """
        dy = self._factor("dy", dy, self.weight.shape[0], self.loss_scale)
        x, dweight = _leading(self._x, self.inputs), self.gradients[self._weight]
        with self.backend.beside():
            self.backend.gemm(_leading(dy, self.columns), x, dweight, transpose_a=True)
        if not input_gradient:
            return None
        # Two buffers alternate for all layers: dS is read while dX is written, and nothing older is needed, now that
        # the product beside the layer above has been joined.
        dx = self.workspace.rows(f"gradient{self.index % 2}", dy.shape[0], self.weight.shape[1], self.weight.dtype)
        self.backend.gemm(dy, self.weight, dx)
        return dx

    def _factor(self, role: str, matrix: Array, width: int, factor: Array | None = None) -> Array:
        """Return a matrix as the products take it: what comes from outside in float32 is rounded for half precision."""
        if matrix.dtype == self.weight.dtype:
            return matrix
        rounded = self.workspace.rows(f"{self.name}.{role}", matrix.shape[0], width, self.weight.dtype)
        self.backend.round_rows(matrix, rounded, factor)
        return rounded


def _leading(matrix: Array, count: int, axis: int = 1) -> Array:
    """Return the first columns of a matrix, or rows with ``axis=0``: the matrix itself where it has no more."""
    if matrix.shape[axis] == count:
        return matrix
    return matrix[:count] if axis == 0 else matrix[:, :count]
