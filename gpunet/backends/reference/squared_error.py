"""Half the squared error, summed over the outputs (lecture row L12)."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array
from gpunet.backends.reference.training import Tally
from gpunet.backends.reference.weighted_mean import weighted_mean


def squared_error(
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
    """J = sum_i w_i E_i / sum_i w_i with E_i = 1/2 sum_j (t_ij - o_ij)^2 (L12), and dJ/doutputs.

    Parameters
    ----------
    outputs, targets : ndarray, (n, c)
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
    xp.subtract(outputs, targets, out=doutputs)
    weighted_mean(xp, (doutputs * doutputs).sum(axis=1) / 2, weights, doutputs, loss, dbias, tally)
