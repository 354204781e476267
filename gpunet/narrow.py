"""Which networks have a pass in one launch, and where their vectors lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpunet.activations import Identity
from gpunet.backends.narrow_stack import NarrowLayer, NarrowStack
from gpunet.layers import BatchNorm, BiasActivation, Layer, Linear, Loss, SoftmaxCrossEntropy
from gpunet.parameters import Layout


def narrow_stack(layers: Sequence[Layer], loss_layer: Loss, parameters: Layout, state: Layout) -> NarrowStack | None:
    """Return the description of a network for :meth:`gpunet.backends.Backend.narrow_pass`, whatever its widths.

    None where it has no such pass: of another dtype than float32, with dropout, with hidden layers of different kinds,
    without scale and shift, or with another loss than softmax cross-entropy of
    labels as they are.
    """
    if len(layers) % 2:
        return None
    linear, between = layers[::2], layers[1::2]
    *hidden, last = between
    first = hidden[0] if hidden else last
    if not (
        layers[0].dtype == np.float32
        and isinstance(loss_layer, SoftmaxCrossEntropy)
        and not loss_layer.label_smoothing
        and all(isinstance(layer, Linear) for layer in linear)
        and isinstance(last, BiasActivation)
        and isinstance(last.activation, Identity)
        and isinstance(first, (BatchNorm, BiasActivation))
        and getattr(first, "scale_shift", True)
        and all(_kind(layer) == _kind(first) for layer in hidden)
    ):
        return None
    batch_norm = isinstance(first, BatchNorm)

    def start(layout: Layout, name: str) -> int:
        return layout.slices[name].start if name in layout.slices else -1

    described = tuple(
        NarrowLayer(
            layer.inputs,
            layer.columns,
            start(parameters, f"W{layer.index}"),
            start(parameters, f"gamma{layer.index}"),
            start(parameters, f"beta{layer.index}" if batch_norm and layer.index < len(linear) else f"b{layer.index}"),
            start(state, f"running_mean{layer.index}"),
            start(state, f"running_variance{layer.index}"),
        )
        for layer in linear
        if isinstance(layer, Linear)
    )
    numbers = (first.momentum, first.epsilon) if isinstance(first, BatchNorm) else (0.0, 0.0)
    return NarrowStack(described, batch_norm, first.activation, *numbers)


def _kind(layer: Layer) -> tuple[object, ...]:
    """Return what has to be the same for all hidden layers."""
    if isinstance(layer, BatchNorm):
        return BatchNorm, layer.activation, layer.scale_shift, layer.momentum, layer.epsilon
    return type(layer), getattr(layer, "activation", None)
