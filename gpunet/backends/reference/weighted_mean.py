"""What the losses share: the weighted mean over the rows of a batch, and its gradient."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array
from gpunet.backends.reference.training import Tally, count_step


def weighted_mean(
    xp: Any,
    row_losses: Array,
    weights: Array | None,
    gradient: Array,
    loss: Array,
    dbias: Array | None,
    tally: Tally | None,
) -> None:
    """J = sum_i w_i l_i / sum_i w_i, and the gradient of each l_i times w_i / sum w, in place.

    Where every weight is zero, so are J and the gradient.

    Parameters
    ----------
    row_losses : ndarray, (n,)
        The l_i.
    weights : ndarray, (n,), or None
        At least 0; None stands for ones.
    gradient : ndarray, (n, c)
        Each row the gradient of its own l_i; overwritten with that of J.
    loss : ndarray, (2,)
        Written: J, and the sum of the weights.
    dbias : ndarray, (c,), or None
        Written: the sum of the rows of the gradient.
    tally : Tally or None
        Where the step is counted, if it is to be.
    """
    if weights is None:
        weights = xp.ones_like(row_losses)
    total = weights.sum()
    share = weights / xp.where(total == 0, 1, total)
    loss[0], loss[1] = xp.where(total == 0, 0, (share * row_losses).sum()), total
    gradient[...] = xp.where(total == 0, 0, share[:, None] * gradient)
    if dbias is not None:
        dbias[...] = gradient.sum(axis=0)
    if tally is not None:
        count_step(xp, loss, **tally._asdict(), rows=len(gradient))
