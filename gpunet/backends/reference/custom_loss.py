"""A loss of the user's own: two functions of arrays, of which no backend has a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gpunet.backends.arrays import Array
from gpunet.backends.reference.training import Tally
from gpunet.backends.reference.weighted_mean import weighted_mean


class LossFunctions(NamedTuple):
    """What a loss is of each row: l of the outputs and targets, (n, c), as (n,); and dl / doutputs, (n, c)."""

    name: str
    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array]

    def __str__(self) -> str:
        return self.name


def custom_loss(
    xp: Any,
    outputs: Array,
    targets: Array,
    weights: Array | None,
    doutputs: Array,
    loss: Array,
    functions: LossFunctions,
    class_weights: Array | None = None,
    bias: Array | None = None,
    dbias: Array | None = None,
    tally: Tally | None = None,
) -> None:
    """J = sum_i w_i l_i / sum_i w_i with the user's l_i, and dJ/doutputs.

    Parameters
    ----------
    outputs : ndarray, (n, c)
    targets : ndarray
        Numbers (n, c); or labels, int32 (n,), which the functions get as rows of 0 and a 1.
    weights : ndarray, (n,), or None
        At least 0; None stands for ones.
    doutputs : ndarray, (n, c)
        Written. Not ``outputs``.
    loss : ndarray, (2,)
        Written: J, and the sum of the weights.
    functions : LossFunctions
    class_weights : ndarray, (c,), or None
        Where targets are probabilities of classes: a row's weight is multiplied with their mean of these.
    bias, dbias : ndarray, (c,), or None
        b, which is first added to ``outputs``, in place; and its gradient, the sum of the rows of doutputs, written.
    tally : Tally or None
        Where the step is counted, if it is to be (:func:`~gpunet.backends.reference.training.count_step`).
    """
    if bias is not None:
        outputs += bias
    if targets.ndim == 1:
        targets = (targets[:, None] == xp.arange(outputs.shape[1])).astype(outputs.dtype)
    elif class_weights is not None:
        of_rows = targets @ class_weights
        weights = of_rows if weights is None else of_rows * weights
    doutputs[...] = functions.gradient(outputs, targets)
    weighted_mean(xp, functions.value(outputs, targets), weights, doutputs, loss, dbias, tally)
