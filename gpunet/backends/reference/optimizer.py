"""The optimisers' steps over the flat parameter vector (lecture row L5): one step changes every parameter."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array


def clip_factor(
    xp: Any, parameters: Array, gradients: Array, weight_count: int, l2: float, maximum_norm: float, out: Array
) -> None:
    """out = min(1, maximum_norm / ||g||) for the gradient g of J, the L2 term included; 0 where ||g|| is not finite.

    Times 0, the elements of g that are not finite become NaN and the others 0: the parameter that they belong to is the
    only one to be spoilt, and the next loss tells.

    Parameters
    ----------
    parameters, gradients : ndarray, (p,)
    weight_count : int
        L2 applies to the first ``weight_count`` parameters.
    maximum_norm : float
        Above 0.
    out : ndarray, (1,)
    """
    gradient = _cost_gradient(parameters, gradients, weight_count, l2).astype(xp.float64)
    largest = xp.abs(gradient).max()
    scaled = gradient / xp.where(largest > 0, largest, 1)  # the squares of large numbers would overflow
    norm = largest * xp.sqrt((scaled * scaled).sum())
    out[0] = xp.where(xp.isfinite(norm), maximum_norm / xp.maximum(norm, maximum_norm), 0)


def sgd_step(
    xp: Any,
    parameters: Array,
    gradients: Array,
    velocity: Array | None,
    weight_count: int,
    scalars: Array,
    clip: Array | None,
    loss: Array,
    *,
    l2: float,
    momentum: float,
    nesterov: bool,
) -> None:
    """One step of stochastic gradient descent (L5), in place.

    g = clip (gradients + 2 l2 parameters); velocity = momentum velocity + g;
    parameters -= learning_rate * (g + momentum velocity if nesterov else velocity).

    Parameters
    ----------
    parameters, gradients, velocity : ndarray, (p,)
        ``velocity`` may be None where ``momentum`` is 0.
    weight_count : int
        L2 applies to the first ``weight_count`` parameters.
    scalars : ndarray, (1,)
        The learning rate.
    clip : ndarray, (1,), or None
        The factor of :func:`clip_factor`.
    loss : ndarray, (2,)
        What the loss wrote; where ``loss[0]`` is not finite, nothing changes, so that the weights that led there
        can be looked at.
    """
    go_on = xp.isfinite(loss[0])
    step = gradient = _clipped(_cost_gradient(parameters, gradients, weight_count, l2), clip)
    if velocity is not None:
        xp.copyto(velocity, momentum * velocity + gradient, where=go_on)
        step = gradient + momentum * velocity if nesterov else velocity
    xp.copyto(parameters, parameters - scalars[0] * step, where=go_on)


def adam_step(
    xp: Any,
    parameters: Array,
    gradients: Array,
    first_moment: Array,
    second_moment: Array,
    weight_count: int,
    scalars: Array,
    clip: Array | None,
    loss: Array,
    *,
    l2: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float,
) -> None:
    """One step of Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019), in place.

    g = clip (gradients + 2 l2 parameters); m = beta_1 m + (1 - beta_1) g; v = beta_2 v + (1 - beta_2) g^2;
    parameters = (1 - learning_rate weight_decay) parameters - learning_rate * mhat / (sqrt(vhat) + epsilon) with
    mhat = m / (1 - beta_1^t) and vhat = v / (1 - beta_2^t).

    Parameters
    ----------
    parameters, gradients, first_moment, second_moment : ndarray, (p,)
    weight_count : int
        L2 and weight decay apply to the first ``weight_count`` parameters.
    scalars : ndarray, (3,)
        The learning rate, 1 / (1 - beta_1^t) and 1 / (1 - beta_2^t) of this step t.
    clip : ndarray, (1,), or None
        The factor of :func:`clip_factor`.
    loss : ndarray, (2,)
        What the loss wrote; where ``loss[0]`` is not finite, nothing changes, so that the weights that led there
        can be looked at.
    weight_decay : float
        Decoupled decay; 0 is Adam.
    """
    go_on = xp.isfinite(loss[0])
    rate, correction_1, correction_2 = scalars[0], scalars[1], scalars[2]
    gradient = _clipped(_cost_gradient(parameters, gradients, weight_count, l2), clip)
    xp.copyto(first_moment, beta_1 * first_moment + (1 - beta_1) * gradient, where=go_on)
    xp.copyto(second_moment, beta_2 * second_moment + (1 - beta_2) * gradient * gradient, where=go_on)
    step = correction_1 * first_moment / (xp.sqrt(correction_2 * second_moment) + epsilon)
    decayed = parameters.copy()
    decayed[:weight_count] *= 1 - rate * weight_decay
    xp.copyto(parameters, decayed - rate * step, where=go_on)


def _cost_gradient(parameters: Array, gradients: Array, weight_count: int, l2: float) -> Array:
    """Return the gradient of J, the L2 term included."""
    gradient = gradients.copy()
    if l2:
        gradient[:weight_count] += 2 * l2 * parameters[:weight_count]
    return gradient


def _clipped(gradient: Array, clip: Array | None) -> Array:
    return gradient if clip is None else clip[0] * gradient
