"""How many labels the outputs of a network predict right, as the losses with probabilities take them."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array


def score_classes(xp: Any, outputs: Array, labels: Array, weights: Array | None, out: Array) -> None:
    """out = sum_i w_i [argmax_j o_ij = label_i]; the first of equal outputs counts, and NaN above all numbers.

    Parameters
    ----------
    outputs : ndarray, (n, c)
    labels : ndarray of int32, (n,)
    weights : ndarray, (n,), or None
        None stands for ones.
    out : ndarray of float64, (1,)
    """
    right = (outputs.argmax(axis=1) == labels).astype(xp.int64)
    out[0] = (right if weights is None else right * weights).sum()


def score_soft_classes(xp: Any, outputs: Array, targets: Array, weights: Array | None, out: Array) -> None:
    """out = sum_i w_i [argmax_j o_ij = argmax_j t_ij]: the label of a row is its most probable class.

    Parameters
    ----------
    outputs, targets : ndarray, (n, c)
    weights : ndarray, (n,), or None
        None stands for ones.
    out : ndarray of float64, (1,)
    """
    score_classes(xp, outputs, targets.argmax(axis=1), weights, out)


def score_switches(xp: Any, outputs: Array, targets: Array, weights: Array | None, out: Array) -> None:
    """out = sum_ij w_i [(o_ij > 0) = (t_ij > 1/2)]: every output is a label of its own, true or false.

    Parameters
    ----------
    outputs, targets : ndarray, (n, c)
    weights : ndarray, (n,), or None
        None stands for ones.
    out : ndarray of float64, (1,)
    """
    right = ((outputs > 0) == (targets > 0.5)).sum(axis=1)
    out[0] = (right if weights is None else right * weights).sum()
