"""Dynamic loss scaling (Micikevicius et al. 2018, "Mixed precision training"), as PyTorch's ``GradScaler`` does it."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array

BACKOFF, GROWTH = 0.5, 2.0
LARGEST_SCALE = 2.0**24  # what it grows to at most: gradients that are all 0 never overflow


def unscale_gradients(
    xp: Any, gradients: Array, loss: Array, scale: Array, guard: Array, interval: int, batches: int = 1
) -> None:
    """gradients /= scale; say whether all of them are finite, and let the scale follow.

    Where a gradient or the loss is not finite, ``guard[0]`` becomes NaN, which makes a step of an optimiser change
    nothing, and the scale is halved. It is doubled after ``interval`` finite steps in a row.

    Parameters
    ----------
    gradients : ndarray of float32, (p,)
        Of ``scale`` times the loss; changed to those of the loss. Scales are powers of two: nothing is rounded.
    loss : ndarray, (2,)
        What the loss wrote.
    scale : ndarray of float32, (4,)
        The scale, the finite steps since it last changed, the steps skipped in all, and the batches of those that were
        skipped since somebody set this number to 0.
    guard : ndarray, (2,)
        Written: ``loss``, or NaN in its first element; what the optimiser's step takes for the loss.
    interval : int
        0 leaves ``scale`` as it is.
    batches : int
        That a step takes its gradients from.
    """
    gradients /= scale[0]
    finite = xp.isfinite(gradients).all() & xp.isfinite(loss[0])
    guard[0], guard[1] = xp.where(finite, loss[0], xp.nan), loss[1]
    if not interval:
        return
    good = xp.where(finite, scale[1] + 1, 0)
    is_grown = good >= interval
    change = xp.where(finite, xp.where(is_grown, GROWTH, 1), BACKOFF)
    scale[0] = xp.minimum(change * scale[0], LARGEST_SCALE)
    scale[1] = xp.where(is_grown, 0, good)
    scale[2] += xp.where(finite, 0, 1)
    scale[3] += xp.where(finite, 0, batches)
