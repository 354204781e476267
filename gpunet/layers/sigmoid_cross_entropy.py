"""Sigmoid and cross-entropy of every output by itself, in one step."""

from __future__ import annotations

import numpy as np

from gpunet.activations import Sigmoid
from gpunet.layers.base import Array
from gpunet.layers.loss import Loss


class SigmoidCrossEntropy(Loss):
    """l = -sum_j [t_j log p_j + (1 - t_j) log(1 - p_j)], p = sigmoid(o), for targets in [0, 1]; the gradient is p - t.

    For one label that is true or false, for several labels that do not exclude one another, and for auto-encoders of
    numbers in [0, 1] (Hinton and Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks").
    """

    name = "sigmoid_cross_entropy"
    has_probabilities = True

    @staticmethod
    def predict(outputs: Array) -> Array:
        """Return 1 where the probability is above 1/2 and 0 elsewhere, int64 (n, c)."""
        return (outputs > 0).astype(np.int64)

    @staticmethod
    def probabilities(outputs: Array) -> Array:
        return Sigmoid().forward(outputs)

    def score(self, outputs: Array, targets: Array, weights: Array | None, out: Array) -> None:
        """Count how many of the c labels of each row are right; a target above 1/2 stands for 1."""
        self.backend.score_switches(outputs, targets, weights, out)
