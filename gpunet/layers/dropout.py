"""Inverted dropout (Srivastava et al. 2014) with masks that depend on nothing but (seed, layer, step, element)."""

from __future__ import annotations

import numpy as np

from gpunet.layers.base import Array, Layer


class Dropout(Layer):
    """Y = X mask / (1 - rate) in training, X otherwise.

    Parameters
    ----------
    index, columns : int
    rate : float
        The probability that an element is dropped, in [0, 1).
    seed : int
        With the number of training steps done, it decides the mask.
    """

    kind = "dropout"

    def __init__(self, index: int, columns: int, rate: float, seed: int) -> None:
        super().__init__(index, columns)
        self.rate = rate
        self.seed = seed

    def forward(self, x: Array, training: bool) -> Array:
        if not training:
            return x
        y = self.buffer("y", x.shape[0])
        self._mask = self.workspace.rows(f"{self.name}.mask", x.shape[0], self.columns, np.uint8)
        self.backend.dropout_forward(x, y, self._mask, self.rate, self.seed, self.index, self.step)
        return y

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """dX = dY mask / (1 - rate), in place of dY."""
        self.backend.dropout_backward(dy, self._mask, self.rate, dx=dy)
        return dy
