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
    common = (gamma, beta, activation, mean, inverse_std)
    sums = xp.empty_like(mean), xp.empty_like(mean)
    batch_norm_activation_sums(xp, dy, s, y, *common, *sums)
    batch_norm_activation_input_gradient(xp, dy, s, y, *common, *sums, ds, rows=s.shape[0])
    if dgamma is not None and dbeta is not None:
        dgamma[...], dbeta[...] = sums


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


# --- the same in parts, for a batch whose rows are in shards ---------------------------------------------------------


def batch_norm_statistics(xp: Any, s: Array, statistics: Array) -> None:
    """Of the rows of a shard: their mean, and the sum of their squared deviations from it.

    Parameters
    ----------
    s : ndarray, (n, m)
        n at least 1.
    statistics : ndarray, (2, m)
        Written: mean_j = sum_i s_ij / n, and sum_i (s_ij - mean_j)^2.
    """
    mean = s.mean(axis=0)
    mean += (s - mean).mean(axis=0)
    statistics[0], statistics[1] = mean, ((s - mean) ** 2).sum(axis=0)


def batch_norm_merge(
    xp: Any,
    statistics: Array,
    counts: Array,
    mean: Array,
    inverse_std: Array,
    running_mean: Array,
    running_variance: Array,
    momentum: float,
    epsilon: float,
) -> None:
    """Statistics of a batch from those of its shards, as Chan, Golub and LeVeque merge them (1979), shard by shard.

    With n = sum_k n_k: mean = sum_k n_k mean_k / n, n v = sum_k (squares_k + n_k (mean_k - mean)^2).

    Parameters
    ----------
    statistics : ndarray, (shards, 2, m)
        Of :func:`batch_norm_statistics`; whatever it is where a shard has no rows.
    counts : ndarray of int32, (shards,)
        The n_k: at least 0, the first above 0, together at least 2.
    mean, inverse_std, running_mean, running_variance, momentum, epsilon
        As :func:`batch_norm_activation_forward` writes and takes them.
    """
    shares = counts.astype(statistics.dtype)[:, None]
    rows = shares.sum()
    pivot = statistics[0, 0]
    distances = xp.where(shares > 0, statistics[:, 0] - pivot, 0)
    shift = (shares * distances).sum(axis=0) / rows
    squares = xp.where(shares > 0, statistics[:, 1] + shares * (distances - shift) ** 2, 0).sum(axis=0)
    mean[...] = pivot + shift
    inverse_std[...] = 1 / xp.sqrt(squares / rows + epsilon)
    running_mean[...] = (1 - momentum) * running_mean + momentum * mean
    running_variance[...] = (1 - momentum) * running_variance + momentum * squares / (rows - 1)


def batch_norm_activation_apply(
    xp: Any,
    s: Array,
    gamma: Array | None,
    beta: Array | None,
    activation: Activation,
    out: Array,
    mean: Array,
    inverse_std: Array,
) -> None:
    """out = f(gamma (s - mean) inverse_std + beta), for rows of a batch with these statistics.

    Parameters
    ----------
    s, out : ndarray, (n, m)
        n at least 1. Distinct buffers.
    """
    out[...] = activation.forward(_scaled((s - mean) * inverse_std, gamma, beta))


def batch_norm_activation_sums(
    xp: Any,
    dy: Array,
    s: Array,
    y: Array,
    gamma: Array | None,
    beta: Array | None,
    activation: Activation,
    mean: Array,
    inverse_std: Array,
    dgamma: Array,
    dbeta: Array,
) -> None:
    """dbeta = sum_i dz_i and dgamma = sum_i dz_i shat_i over the rows of a shard.

    Parameters
    ----------
    dy, s, y : ndarray, (n, m)
        n at least 1; as :func:`batch_norm_activation_backward` takes them.
    dgamma, dbeta : ndarray, (m,)
    """
    dz, shat = _gradient(dy, s, y, gamma, beta, activation, mean, inverse_std)
    dgamma[...], dbeta[...] = (dz * shat).sum(axis=0), dz.sum(axis=0)


def batch_norm_activation_input_gradient(
    xp: Any,
    dy: Array,
    s: Array,
    y: Array,
    gamma: Array | None,
    beta: Array | None,
    activation: Activation,
    mean: Array,
    inverse_std: Array,
    dgamma: Array,
    dbeta: Array,
    ds: Array,
    *,
    rows: int,
) -> None:
    """ds = gamma inverse_std (dz - dbeta / rows - shat dgamma / rows), for some rows of a batch.

    Parameters
    ----------
    dy, s, y : ndarray, (n, m)
        n at least 1.
    dgamma, dbeta : ndarray, (m,)
        Sums over the whole batch.
    ds : ndarray, (n, m)
        May be ``dy``.
    rows : int
        Of the whole batch.
    """
    dz, shat = _gradient(dy, s, y, gamma, beta, activation, mean, inverse_std)
    scale = inverse_std if gamma is None else gamma * inverse_std
    xp.multiply(scale, dz - dbeta / rows - shat * (dgamma / rows), out=ds)


def _gradient(
    dy: Array,
    s: Array,
    y: Array,
    gamma: Array | None,
    beta: Array | None,
    activation: Activation,
    mean: Array,
    inverse_std: Array,
) -> tuple[Array, Array]:
    """Return dz = dy f'(z), and shat."""
    shat = (s - mean) * inverse_std
    kept = y if activation.derivative_of == "output" else _scaled(shat, gamma, beta)
    return dy * activation.derivative(kept), shat


def _scaled(shat: Array, gamma: Array | None, beta: Array | None) -> Array:
    return shat if gamma is None or beta is None else gamma * shat + beta
