"""What training keeps track of on the device: the place in the epoch, its losses, good weights, the look at its end.

And two means: of the gradients of several batches, and of the weights after every update.

A place is an int64 vector of :data:`PLACE` numbers: steps of this epoch that are counted, the first row of the next
batch in the epoch's order, and windows whose weights were kept before this epoch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gpunet.backends.arrays import Array

PLACE = 3


class Tally(NamedTuple):
    """Where a loss of training counts its step: arguments of :func:`count_step`, which says what they are."""

    losses: Array
    table: Array
    scalars: Array
    place: Array
    steps: Array
    skipped: Array | None = None


def count_step(
    xp: Any,
    loss: Array,
    losses: Array,
    table: Array,
    scalars: Array,
    place: Array,
    steps: Array,
    *,
    rows: int,
    skipped: Array | None = None,
) -> None:
    """Count a training step, between its loss and its update: all that the next one finds elsewhere moves on.

    losses[number] = loss; scalars = table[number - skipped] for this step's number = place[0]; then place[0] += 1,
    place[1] += rows, steps += 1. After a loss of this epoch that is not finite, every other becomes NaN, so that no
    update changes the weights that led there.

    Parameters
    ----------
    loss : ndarray, (2,)
        What the loss wrote.
    losses : ndarray of float64, (N, 2)
        Of the epoch's steps.
    table : ndarray, (N, k)
        What the update of each step reads.
    scalars : ndarray, (k,)
        Where it reads it.
    place : ndarray of int64, (3,)
    steps : ndarray of int64, (1,)
        Training steps in all.
    rows : int
        Of this batch.
    skipped : ndarray of float32, (1,), or None
        The steps of this epoch so far whose update was skipped (:mod:`gpunet.backends.reference.loss_scale`); None for
        none.
    """
    number = int(place[0])
    if number and not xp.isfinite(losses[number - 1, 0]):
        loss[0] = xp.nan
    losses[number] = loss
    scalars[...] = table[number - (0 if skipped is None else int(skipped[0]))]
    place[0] += 1
    place[1] += rows
    steps += 1


def keep_weights(xp: Any, source: Array, kept: Array, losses: Array, place: Array, *, every: int) -> None:
    """kept[window mod 2] = source at the start of a window of ``every`` steps, while the losses so far are finite.

    Parameters
    ----------
    source : ndarray, (p,)
    kept : ndarray, (2, p)
        The sources of the newest window and of the one before, once one more has begun.
    losses, place
        As in :func:`count_step`.
    """
    number, windows = int(place[0]), int(place[2])
    if number == 0 or xp.isfinite(losses[number - 1, 0]):
        kept[(windows + number // every) % 2] = source


def summarize(xp: Any, vector: Array, out: Array, *, weight_count: int) -> None:
    """out_0 = the sum of the squares of the first ``weight_count`` elements, out_1 = how many of all are not finite.

    Parameters
    ----------
    vector : ndarray, (p,)
    out : ndarray of float64, (2,)
    """
    weights = vector[:weight_count].astype(xp.float64)
    out[0], out[1] = (weights * weights).sum(), (~xp.isfinite(vector)).sum()


def accumulate_gradients(
    xp: Any, gradients: Array, accumulated: Array, loss: Array, mean: Array, *, is_first: bool, is_last: bool
) -> None:
    """accumulated = the mean of the gradients of the batches of an update, weighted as the loss weighs its rows.

    With w = loss_1, and W = mean_1, or 0 for the first batch: accumulated += w / (W + w) (gradients - accumulated), and
    mean_0 likewise with loss_0; mean_1 = W + w. Where W is 0, they are those of this batch, whatever was there before.

    Parameters
    ----------
    gradients : ndarray, (p,)
        Of the batch. Written where it is the last one: what ``accumulated`` would be.
    accumulated : ndarray, (p,)
        Written where it is not.
    loss : ndarray, (2,)
        What the loss wrote: the batch's loss, and the sum of its weights.
    mean : ndarray, (2,)
        The same of all batches so far.
    """
    before = 0 * loss[1] if is_first else mean[1]
    share = xp.where(before == 0, 1, loss[1] / xp.where(before == 0, 1, before + loss[1]))
    out = gradients if is_last else accumulated
    out[...] = xp.where(before == 0, gradients, accumulated + share * (gradients - accumulated))
    mean[0] = xp.where(before == 0, loss[0], mean[0] + share * (loss[0] - mean[0]))
    mean[1] = before + loss[1]


def average_weights(
    xp: Any,
    parameters: Array,
    averaged_parameters: Array,
    state: Array,
    averaged_state: Array,
    updates: Array,
    loss: Array,
    *,
    decay: float,
) -> None:
    """averaged += (1 - decay) (weights - averaged) after an update, and averaged = weights after the first.

    Parameters
    ----------
    parameters, averaged_parameters : ndarray, (p,)
    state, averaged_state : ndarray, (q,)
        Running averages; q may be 0.
    updates : ndarray of int64, (1,)
        Those before; one more afterwards.
    loss : ndarray, (2,)
        What the optimiser's step took for the loss: where ``loss[0]`` is not finite, there was no update.
    decay : float
        0 to 1, 1 excluded.
    """
    if not xp.isfinite(loss[0]):
        return
    for values, averaged in ((parameters, averaged_parameters), (state, averaged_state)):
        averaged[...] = xp.where(updates[0] == 0, values, averaged + (1 - decay) * (values - averaged))
    updates += 1
