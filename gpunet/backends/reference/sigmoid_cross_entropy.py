"""Sigmoid and cross-entropy of every output by itself, in one step."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array
from gpunet.backends.reference.training import Tally
from gpunet.backends.reference.weighted_mean import weighted_mean


def sigmoid_cross_entropy(
    xp: Any,
    outputs: Array,
    targets: Array,
    weights: Array | None,
    doutputs: Array,
    loss: Array,
    bias: Array | None = None,
    dbias: Array | None = None,
    tally: Tally | None = None,
) -> None:
    """J = sum_i w_i l_i / sum_i w_i for independent sigmoid outputs, and dJ/doutputs.

    With p_ij = sigmoid(o_ij), l_i = -sum_j [t_ij log p_ij + (1 - t_ij) log(1 - p_ij)]
    = sum_j [max(o_ij, 0) - o_ij t_ij + log(1 + exp(-abs(o_ij)))], and dJ/do_ij = w_i / sum w (p_ij - t_ij).

    Both are evaluated without a difference of nearly equal numbers, so that also the smallest of them keep their
    digits: with a = exp(min(o, 0)), b = exp(-max(o, 0)), one of which is 1 and p = a / (a + b),
    l = (1 - t) max(o, 0) - t min(o, 0) + log(1 + a b) and p - t = ((1 - t) a - t b) / (a + b).

    Parameters
    ----------
    outputs : ndarray, (n, c)
        The logits o.
    targets : ndarray, (n, c)
        In [0, 1].
    weights : ndarray, (n,), or None
        At least 0; None stands for ones.
    doutputs : ndarray, (n, c)
        Written. Not ``outputs``.
    loss : ndarray, (2,)
        Written: J, and the sum of the weights.
    bias, dbias : ndarray, (c,), or None
        b, which is first added to ``outputs``, in place; and its gradient, the sum of the rows of doutputs, written.
    tally : Tally or None
        Where the step is counted, if it is to be (:func:`~gpunet.backends.reference.training.count_step`).
    """
    if bias is not None:
        outputs += bias
    negative, positive = xp.minimum(outputs, 0), xp.maximum(outputs, 0)
    a, b = xp.exp(negative), xp.exp(-positive)
    row_losses = ((1 - targets) * positive - targets * negative + xp.log1p(a * b)).sum(axis=1)
    xp.divide((1 - targets) * a - targets * b, a + b, out=doutputs)
    weighted_mean(xp, row_losses, weights, doutputs, loss, dbias, tally)
