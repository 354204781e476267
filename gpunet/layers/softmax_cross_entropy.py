"""Softmax and cross-entropy in one step (lecture row L4)."""

from __future__ import annotations

from typing import ClassVar

from gpunet.layers.base import Array
from gpunet.layers.loss import Loss


class SoftmaxCrossEntropy(Loss):
    """l = -log(y^T p), p = softmax(s), for integer labels; the gradient is p - y."""

    name: ClassVar[str] = "softmax_cross_entropy"
    is_classifier: ClassVar[bool] = True

    def _evaluate(self, outputs: Array, targets: Array, weights: Array | None, gradient: Array) -> None:
        self.backend.softmax_cross_entropy(outputs, targets, weights, gradient, self.value)
