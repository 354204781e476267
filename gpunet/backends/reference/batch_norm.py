"""Batch normalisation and activation (lecture rows L22-L24)."""

from __future__ import annotations

from typing import Any

from gpunet.activations import Activation
from gpunet.backends.arrays import Array


def batch_norm_activation_forward(
    xp: Any,
    s: Array,
    gamma: Array | None,
    beta: Array | None,
    activation: Activation,
    out: Array,
    mean: Array,
    inverse_std: Array,
    running_mean: Array,
    running_variance: Array,
    momentum: float,
    epsilon: float,
) -> None:
    """out = f(gamma (s - mu) / sqrt(v + epsilon) + beta) with the batch's own mean and variance.

    The variance is summed from centred values: sums of squares of values far from zero would lose every digit. The
    batch's unbiased variance n / (n - 1) v enters the running average.

    Parameters
    ----------
    s, out : ndarray, (n, m)
        n at least 2. Distinct buffers.
    gamma, beta : ndarray, (m,), or None
        Scale and shift; both None for neither.
    mean, inverse_std : ndarray, (m,)
        Written: mu and 1 / sqrt(v + epsilon), which the backward pass reads.
    running_mean, running_variance : ndarray, (m,)
        Updated: (1 - momentum) old + momentum new.
    momentum : float
        The weight of the new value, in [0, 1].
    epsilon : float
        Added to the variance.
    """
    rows = s.shape[0]
    mean[...] = s.mean(axis=0)
    mean += (s - mean).mean(axis=0)  # what rounding left of it; NaN where a value is infinite
    variance = s.var(axis=0)
    inverse_std[...] = 1 / xp.sqrt(variance + epsilon)
    out[...] = activation.forward(_scaled((s - mean) * inverse_std, gamma, beta))
    running_mean[...] = (1 - momentum) * running_mean + momentum * mean
    running_variance[...] = (1 - momentum) * running_variance + momentum * rows / (rows - 1) * variance


def batch_norm_activation_backward(
    xp: Any,
    dy: Array,
    s: Array,
    y: Array,
    gamma: Array | None,
    beta: Array | None,
    activation: Activation,
    mean: Array,
    inverse_std: Array,
    ds: Array,
    dgamma: Array | None,
    dbeta: Array | None,
) -> None:
    """The gradient through activation, scale, shift and normalisation, the statistics included.

    With shat = (s - mu) inverse_std, z = gamma shat + beta and dz = dy f'(z):
    dbeta = sum_i dz_i, dgamma = sum_i dz_i shat_i,
    ds = gamma inverse_std (dz - dbeta / n - shat dgamma / n).
    The lecture's term-by-term form of the same is in :mod:`gpunet.lecture.derivations.batch_norm`.

    Parameters
    ----------
    dy, s, y : ndarray, (n, m)
        The incoming gradient, and the input and output of the forward pass.
    ds : ndarray, (n, m)
        May be ``dy``.
    dgamma, dbeta : ndarray, (m,), or None
        None where there is no scale and shift.
    """
    rows = s.shape[0]
    shat = (s - mean) * inverse_std
    dz = dy * activation.derivative(y if activation.derivative_of == "output" else _scaled(shat, gamma, beta))
    sum_dz, sum_dz_shat = dz.sum(axis=0), (dz * shat).sum(axis=0)
    scale = inverse_std if gamma is None else gamma * inverse_std
    xp.multiply(scale, dz - sum_dz / rows - shat * (sum_dz_shat / rows), out=ds)
    if dgamma is not None and dbeta is not None:
        dgamma[...], dbeta[...] = sum_dz_shat, sum_dz


def batch_norm_activation_inference(
    xp: Any,
    s: Array,
    gamma: Array | None,
    beta: Array | None,
    activation: Activation,
    out: Array,
    running_mean: Array,
    running_variance: Array,
    epsilon: float,
) -> None:
    """out = f(gamma (s - running_mean) / sqrt(running_variance + epsilon) + beta) (L23).

    Parameters
    ----------
    s, out : ndarray, (n, m)
        n at least 1. May be the same buffer.
    """
    shat = (s - running_mean) / xp.sqrt(running_variance + epsilon)
    out[...] = activation.forward(_scaled(shat, gamma, beta))


def _scaled(shat: Array, gamma: Array | None, beta: Array | None) -> Array:
    return shat if gamma is None or beta is None else gamma * shat + beta
