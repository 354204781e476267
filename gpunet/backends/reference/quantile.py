"""The loss whose minimum is a quantile, summed over the outputs."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array
from gpunet.backends.reference.training import Tally
from gpunet.backends.reference.weighted_mean import weighted_mean


def quantile(
    xp: Any,
    outputs: Array,
    targets: Array,
    weights: Array | None,
    doutputs: Array,
    loss: Array,
    levels: Array,
    bias: Array | None = None,
    dbias: Array | None = None,
    tally: Tally | None = None,
) -> None:
    """J = sum_i w_i l_i / sum_i w_i with l_i = sum_j r(t_ij - o_ij), r(u) = max(q_j u, (q_j - 1) u), and dJ/doutputs.

    The expectation of r is least where o is the q-quantile of t (Koenker and Bassett 1978). dr/do is 1 - q where o is
    above t and -q where it is below; of those where both are equal, 0.

    Parameters
    ----------
    outputs, targets : ndarray, (n, c)
    weights : ndarray, (n,), or None
        At least 0; None stands for ones.
    doutputs : ndarray, (n, c)
        Written. Not ``outputs``.
    loss : ndarray, (2,)
        Written: J, and the sum of the weights.
    levels : ndarray, (c,) or (1,)
        The q_j, 0 to 1, or one for all outputs.
    bias, dbias : ndarray, (c,), or None
        b, which is first added to ``outputs``, in place; and its gradient, the sum of the rows of doutputs, written.
    tally : Tally or None
        Where the step is counted, if it is to be (:func:`~gpunet.backends.reference.training.count_step`).
    """
    if bias is not None:
        outputs += bias
    error = outputs - targets
    doutputs[...] = xp.where(error > 0, 1 - levels, xp.where(error < 0, -levels, error))  # NaN is neither
    weighted_mean(xp, (doutputs * error).sum(axis=1), weights, doutputs, loss, dbias, tally)
