"""Softmax and cross-entropy in one step (lecture row L4)."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array
from gpunet.backends.reference.training import Tally
from gpunet.backends.reference.weighted_mean import weighted_mean


def softmax_cross_entropy(
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
    """J = sum_i w_i l_i / sum_i w_i with l_i = -log p_i[t_i], p_i = softmax(o_i), and dJ/doutputs.

    dJ/do_i = w_i / sum w (p_i - y_i) for the one-hot y_i of label t_i: the product of the lecture's Jacobians. Where
    every weight of the batch is zero, the loss and the gradient are zero.

    Parameters
    ----------
    outputs : ndarray, (n, c)
        The logits o.
    targets : ndarray of int32, (n,)
        The labels, 0 to c - 1.
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
    picked = xp.arange(len(targets)), targets
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    exponentials = xp.exp(shifted)
    partition = exponentials.sum(axis=1, keepdims=True)
    row_losses = xp.log(partition[:, 0]) - shifted[picked]
    xp.divide(exponentials, partition, out=doutputs)
    doutputs[picked] -= 1
    weighted_mean(xp, row_losses, weights, doutputs, loss, dbias, tally)
