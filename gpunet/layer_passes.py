"""Forward and backward one layer at a time, for those who look at what lies in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt

from gpunet.layer_stack import LayerStack
from gpunet.layers import Dropout, Layer

Array = npt.NDArray[Any]


@contextmanager
def kept_averages(network: LayerStack) -> Iterator[None]:
    """Put the running averages back at the end: passes in training mode move them."""
    backend = network.backend
    state = backend.empty(network.flat_state.shape, network.dtype)
    backend.copy(network.flat_state, state)
    try:
        yield
    finally:
        backend.copy(state, network.flat_state)


@contextmanager
def kept_gradients(network: LayerStack) -> Iterator[None]:
    """Put the gradients back at the end: :func:`backward_layers` writes them."""
    backend = network.backend
    gradients = backend.empty(network.flat_gradients.shape, network.dtype)
    backend.copy(network.flat_gradients, gradients)
    try:
        yield
    finally:
        backend.copy(gradients, network.flat_gradients)


def forward_layers(network: LayerStack, x: Array, *, dropout: bool) -> Iterator[tuple[Layer, Array]]:
    """Run the layers in training mode and yield each with its output, which the next layer may overwrite.

    Parameters
    ----------
    network : LayerStack
    x : array, (n, d)
        On the device.
    dropout : bool
        False passes all units on.
    """
    for layer in network.layers:
        x = layer.output = layer.forward(x, training=dropout or not isinstance(layer, Dropout))
        yield layer, x


def backward_layers(network: LayerStack, doutputs: Array, *, dropout: bool) -> Iterator[tuple[Layer, Array]]:
    """Go back through :func:`forward_layers` and yield each layer with the gradient of J at its output.

    The layer's own backward, which may overwrite that gradient and writes those of its parameters, runs afterwards:
    when the next layer is asked for.

    Parameters
    ----------
    network : LayerStack
    doutputs : array, (n, c)
        Gradient with respect to the outputs, on the device; may be overwritten.
    dropout : bool
        As in the forward pass.
    """
    gradient: Array | None = doutputs
    for position, layer in reversed(list(enumerate(network.layers))):
        assert gradient is not None
        yield layer, gradient
        if dropout or not isinstance(layer, Dropout):
            gradient = layer.backward(gradient, input_gradient=position > 0)
