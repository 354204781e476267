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
    xp: Any,
    dy: Array,
    kept: Array,
    activation: Activation,
    ds: Array,
    dbias: Array | None,
    bias: Array | None = None,
) -> None:
    """ds = dy f'(s + b), db_j = sum_i ds_ij.

    Parameters
    ----------
    dy : ndarray, (n, m)
    kept : ndarray, (n, m)
        What ``activation.derivative_of`` names: y = f(s + b), or s as the forward operation had it.
    ds : ndarray, (n, m)
        May be ``dy``.
    dbias : ndarray, (m,), or None
    bias : ndarray, (m,), or None
        What the forward operation added; read only where ``kept`` is s.
    """
    if bias is not None and activation.derivative_of == "input":
        kept = kept + bias
    xp.multiply(dy, activation.derivative(kept), out=ds)
    if dbias is not None:
        dbias[...] = ds.sum(axis=0)
