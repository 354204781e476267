"""Softmax and cross-entropy with targets that are spread over the classes: smoothed labels, or probabilities."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array
from gpunet.backends.reference.training import Tally
from gpunet.backends.reference.weighted_mean import weighted_mean


def soft_cross_entropy(
    xp: Any,
    outputs: Array,
    targets: Array,
    weights: Array | None,
    doutputs: Array,
    loss: Array,
    label_smoothing: float,
    class_weights: Array | None,
    bias: Array | None = None,
    dbias: Array | None = None,
    tally: Tally | None = None,
) -> None:
    """J = sum_i w_i l_i / sum_i w_i with l_i = -sum_j q_ij log p_ij, p_i = softmax(o_i), and dJ/doutputs.

    For probabilities t_ij, q_ij = v_j ((1 - e) t_ij + e / c) with the smoothing e and the class weights v. For labels
    the t_i are one-hot and q_i is divided by the weight of the label, which w_i has already. dl_i/do_ij =
    p_ij sum_k q_ik - q_ij.

    Parameters
    ----------
    outputs : ndarray, (n, c)
        The logits o.
    targets : ndarray
        Labels, int32 (n,), or probabilities (n, c).
    weights : ndarray, (n,), or None
        At least 0; None stands for ones.
    doutputs : ndarray, (n, c)
        Written. Not ``outputs``.
    loss : ndarray, (2,)
        Written: J, and the sum of the weights.
    label_smoothing : float
        e, 0 to 1.
    class_weights : ndarray, (c,), or None
        At least 0; None stands for ones. Rows whose label has weight 0 have w_i = 0.
    bias, dbias : ndarray, (c,), or None
        b, which is first added to ``outputs``, in place; and its gradient, the sum of the rows of doutputs, written.
    tally : Tally or None
        Where the step is counted, if it is to be (:func:`~gpunet.backends.reference.training.count_step`).
    """
    if bias is not None:
        outputs += bias
    rows, classes = outputs.shape
    spread = xp.full((rows, classes), label_smoothing / classes, outputs.dtype)
    if class_weights is not None:
        spread *= class_weights
    if targets.ndim == 1:
        if class_weights is not None:
            own = class_weights[targets][:, None]
            spread *= xp.where(own == 0, 0, 1 / xp.where(own == 0, 1, own))
        spread[xp.arange(rows), targets] += 1 - label_smoothing
    else:
        spread += (1 - label_smoothing) * (targets if class_weights is None else targets * class_weights)
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    exponentials = xp.exp(shifted)
    partition = exponentials.sum(axis=1, keepdims=True)
    row_losses = (spread * (xp.log(partition) - shifted)).sum(axis=1)
    doutputs[...] = spread.sum(axis=1, keepdims=True) * exponentials / partition - spread
    weighted_mean(xp, row_losses, weights, doutputs, loss, dbias, tally)
