"""Softmax and cross-entropy in one step (lecture row L4)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from gpunet.errors import InvalidValueError
from gpunet.layers.base import Array, fixed
from gpunet.layers.loss import Loss
from gpunet.validation import check_rate


class SoftmaxCrossEntropy(Loss):
    """l = -sum_j q_j log p_j, p = softmax(s); the gradient is p - q.

    q is 1 for the row's label and 0 elsewhere. Targets may also be the probabilities of the classes themselves, (n, c)
    ("soft labels": distillation, mixup, votes), whose prediction is right where its label is the most probable.

    Parameters
    ----------
    label_smoothing : float
        The share e of q that goes to all classes alike, 0 to 1, 1 excluded: q becomes (1 - e) q + e / c (Szegedy et al.
        2016, "Rethinking the Inception architecture"; PyTorch's ``label_smoothing``). Evaluations have it too.

    Raises
    ------
    InvalidValueError, InvalidTypeError

    Notes
    -----
    Class weights w are PyTorch's: each term counts by its class, l = -sum_j w_j q_j log p_j, and J is the sum of l over
    that of the weights of the labels; with soft labels, over the number of rows. A row's own weight multiplies both its
    l and what it adds to that sum. A row whose label has weight 0 is left out.
    """

    name = "softmax_cross_entropy"
    most_numbers: ClassVar[float] = 1
    is_classifier = True
    has_probabilities = True
    label_smoothing = fixed("label_smoothing")

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self._label_smoothing = check_rate("label_smoothing", label_smoothing)

    @property
    def numbers(self) -> tuple[float, ...]:
        return (self._label_smoothing,) if self._label_smoothing else ()

    def check_outputs(self, outputs: int) -> None:
        if outputs < 2:
            raise InvalidValueError(
                f"layer_sizes: 1 output for the loss {self.name!r}. Expected at least 2, one per class; "
                "loss='sigmoid_cross_entropy' and loss='squared_error' take 1."
            )

    def evaluate(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        class_weights: Array | None,
        places: dict[str, Any],
    ) -> None:
        numbers = outputs, targets, weights, doutputs, self.value
        if targets.ndim == 1 and not self._label_smoothing:
            self.backend.softmax_cross_entropy(*numbers, **places)
        else:
            self.backend.soft_cross_entropy(*numbers, self._label_smoothing, class_weights, **places)

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
        score = self.backend.score_classes if targets.ndim == 1 else self.backend.score_soft_classes
        score(outputs, targets, weights, out)
