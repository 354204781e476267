"""Forward and backward pass of a narrow network: all its operations, one after the other."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array
from gpunet.backends.narrow_stack import NarrowStack
from gpunet.backends.reference.activation import bias_activation_backward, bias_activation_forward
from gpunet.backends.reference.batch_norm import batch_norm_activation_backward, batch_norm_activation_forward
from gpunet.backends.reference.softmax_cross_entropy import softmax_cross_entropy


def narrow_pass(
    xp: Any,
    x: Array,
    labels: Array,
    stack: NarrowStack,
    parameters: Array,
    state: Array,
    gradients: Array,
    loss: Array,
) -> None:
    """The mean cross-entropy J of a batch and dJ/dparameters; the running averages move.

    Parameters
    ----------
    x : ndarray, (n, d)
        n at least 2 with batch norm.
    labels : ndarray of int32, (n,)
    stack : NarrowStack
        Where the layers' vectors lie in ``parameters`` and ``state``.
    parameters : ndarray, (p,)
    state : ndarray, (q,)
        Updated.
    gradients : ndarray, (p,)
        Written; 0 where no vector lies.
    loss : ndarray, (2,)
        Written: J, and n.
    """

    def part(flat: Array, start: int, *shape: int) -> Array:
        size = shape[0] * shape[-1] if len(shape) > 1 else shape[0]
        return flat[start : start + size].reshape(shape)

    *hidden, last = stack.layers
    kept = []
    for layer in hidden:
        units = layer.outputs
        s = x @ part(parameters, layer.weights, units, layer.inputs).T
        y, mean, inverse_std = xp.empty_like(s), xp.empty(units, s.dtype), xp.empty(units, s.dtype)
        shift = part(parameters, layer.shift, units)
        if stack.batch_norm:
            scale = part(parameters, layer.scale, units)
            averages = part(state, layer.running_mean, units), part(state, layer.running_variance, units)
            numbers = stack.momentum, stack.epsilon
            batch_norm_activation_forward(
                xp, s, scale, shift, stack.activation, y, mean, inverse_std, *averages, *numbers
            )
        else:
            bias_activation_forward(xp, s, shift, stack.activation, y)
        kept.append((x, s, y, mean, inverse_std))
        x = y
    logits = x @ part(parameters, last.weights, last.outputs, last.inputs).T
    logits += part(parameters, last.shift, last.outputs)
    ds = xp.empty_like(logits)
    softmax_cross_entropy(xp, logits, labels, None, ds, loss)

    gradients[...] = 0
    part(gradients, last.shift, last.outputs)[...] = ds.sum(axis=0)
    part(gradients, last.weights, last.outputs, last.inputs)[...] = ds.T @ x
    above = last
    for layer, (x, s, y, mean, inverse_std) in zip(reversed(hidden), reversed(kept), strict=True):
        units = layer.outputs
        dy = ds @ part(parameters, above.weights, above.outputs, above.inputs)
        ds = xp.empty_like(s)
        shift, dshift = part(parameters, layer.shift, units), part(gradients, layer.shift, units)
        if stack.batch_norm:
            scale, dscale = part(parameters, layer.scale, units), part(gradients, layer.scale, units)
            batch_norm_activation_backward(
                xp, dy, s, y, scale, shift, stack.activation, mean, inverse_std, ds, dscale, dshift
            )
        else:
            of_output = stack.activation.derivative_of == "output"
            bias_activation_backward(xp, dy, y if of_output else s, stack.activation, ds, dshift, shift)
        part(gradients, layer.weights, units, layer.inputs)[...] = ds.T @ x
        above = layer
