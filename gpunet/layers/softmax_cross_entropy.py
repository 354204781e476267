"""Softmax and cross-entropy in one step (lecture row L4)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gpunet.backends.reference.training import Tally
from gpunet.layers.base import Array
from gpunet.layers.loss import Loss


class SoftmaxCrossEntropy(Loss):
    """l = -log(y^T p), p = softmax(s), for integer labels; the gradient is p - y."""

    name: ClassVar[str] = "softmax_cross_entropy"
    is_classifier: ClassVar[bool] = True
    has_probabilities: ClassVar[bool] = True

    def _evaluate(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        bias: Array | None,
        dbias: Array | None,
        tally: Tally | None,
    ) -> None:
        numbers = outputs, targets, weights, doutputs, self.value
        self.backend.softmax_cross_entropy(*numbers, bias=bias, dbias=dbias, tally=tally)

    @staticmethod
    def predict(outputs: Array) -> Array:
        """Return the label of the largest output of each row, int64 (n,)."""
        labels: Array = outputs.argmax(axis=1)
        return labels

    @staticmethod
    def probabilities(outputs: Array) -> Array:
        outputs -= outputs.max(axis=1, keepdims=True)
        np.exp(outputs, out=outputs)
        outputs /= outputs.sum(axis=1, keepdims=True)
        return outputs

    def score(self, outputs: Array, targets: Array, weights: Array | None, out: Array) -> None:
        self.backend.score_classes(outputs, targets, weights, out)
