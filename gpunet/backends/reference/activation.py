"""Bias and activation (lecture rows L1, L3)."""

from __future__ import annotations

from typing import Any

from gpunet.activations import Activation
from gpunet.backends.arrays import Array


def bias_activation_forward(xp: Any, s: Array, bias: Array | None, activation: Activation, out: Array) -> None:
    """out = f(s + b).

    Parameters
    ----------
    s : ndarray, (n, m)
    bias : ndarray, (m,), or None
        None stands for no bias.
    out : ndarray, (n, m)
        May be ``s``.
    """
    out[...] = activation.forward(s if bias is None else s + bias)


def bias_activation_backward(
    xp: Any, dy: Array, y: Array, activation: Activation, ds: Array, dbias: Array | None
) -> None:
    """ds = dy f'(s), with f' in terms of y = f(s); db_j = sum_i ds_ij.

    Parameters
    ----------
    dy, y : ndarray, (n, m)
    ds : ndarray, (n, m)
        May be ``dy``.
    dbias : ndarray, (m,), or None
    """
    xp.multiply(dy, activation.derivative(y), out=ds)
    if dbias is not None:
        dbias[...] = ds.sum(axis=0)
