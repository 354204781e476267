"""One file per layer, forward and backward side by side."""

from gpunet.layers.activation import BiasActivation
from gpunet.layers.base import Layer, Memory, ParameterSpec, Workspace
from gpunet.layers.batch_norm import BatchNorm
from gpunet.layers.dropout import Dropout
from gpunet.layers.linear import Linear
from gpunet.layers.loss import Loss
from gpunet.layers.sigmoid_cross_entropy import SigmoidCrossEntropy
from gpunet.layers.softmax_cross_entropy import SoftmaxCrossEntropy
from gpunet.layers.squared_error import SquaredError

LOSSES: dict[str, type[Loss]] = {loss.name: loss for loss in (SoftmaxCrossEntropy, SigmoidCrossEntropy, SquaredError)}

__all__ = [
    "LOSSES",
    "BatchNorm",
    "BiasActivation",
    "Dropout",
    "Layer",
    "Linear",
    "Loss",
    "Memory",
    "ParameterSpec",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "Workspace",
]
