"""Huber's loss, summed over the outputs."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array
from gpunet.backends.reference.training import Tally
from gpunet.backends.reference.weighted_mean import weighted_mean


def huber(
    xp: Any,
    outputs: Array,
    targets: Array,
    weights: Array | None,
    doutputs: Array,
    loss: Array,
    delta: float,
    bias: Array | None = None,
    dbias: Array | None = None,
    tally: Tally | None = None,
) -> None:
    """J = sum_i w_i l_i / sum_i w_i with l_i = sum_j h(e_ij), e = o - t, and dJ/doutputs.

    h(e) = e^2 / 2 where abs(e) <= delta, delta (abs(e) - delta / 2) elsewhere (Huber 1964). Its derivative g is e,
    limited to -delta ... delta, and both branches of h are g (e - g / 2).

    Parameters
    ----------
    outputs, targets : ndarray, (n, c)
    weights : ndarray, (n,), or None
        At least 0; None stands for ones.
    doutputs : ndarray, (n, c)
        Written. Not ``outputs``.
    loss : ndarray, (2,)
        Written: J, and the sum of the weights.
    delta : float
        Above 0.
    bias, dbias : ndarray, (c,), or None
        b, which is first added to ``outputs``, in place; and its gradient, the sum of the rows of doutputs, written.
    tally : Tally or None
        Where the step is counted, if it is to be (:func:`~gpunet.backends.reference.training.count_step`).
    """
    if bias is not None:
        outputs += bias
    error = outputs - targets
    xp.clip(error, -delta, delta, out=doutputs)
    weighted_mean(xp, (doutputs * (error - doutputs / 2)).sum(axis=1), weights, doutputs, loss, dbias, tally)
