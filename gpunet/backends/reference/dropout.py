"""Dropout, whose every bit is a function of (seed, layer, step, element) alone: the same on every device."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array
from gpunet.random import Stream, dropout_threshold, random_words


def dropout_forward(
    xp: Any, x: Array, out: Array, mask: Array, rate: float, seed: int, layer: int, step: Array, *, first: int = 0
) -> None:
    """out = x / (1 - rate) where kept, 0 x elsewhere (inverted dropout): NaN and infinity are not hidden by chance.

    Element e - first of the flattened mask, row after row, is kept where its random word, a function of (seed, layer,
    step, e) alone (:func:`gpunet.random.random_words`), is at least rate * 2^32.

    Parameters
    ----------
    x, out : ndarray, (n, m') with m' at least m
        May be the same buffer. Columns beyond m are padding, which counts for nothing and stays as it is.
    mask : ndarray of uint8, (n, m)
        Written: 1 where kept. At most 2^34 elements.
    rate : float
        In [0, 1).
    step : ndarray of int64, (1,)
        The number of training steps done before this one.
    first : int
        The element of the layer's whole output that the mask begins with, where it is that of some rows; a multiple
        of 4.
    """
    words = random_words(Stream.DROPOUT, first, mask.size, seed, layer, int(step[0])).reshape(mask.shape)
    mask[...] = xp.asarray(words >= dropout_threshold(rate))
    dropout_backward(xp, x, mask, rate, out)


def dropout_backward(xp: Any, dy: Array, mask: Array, rate: float, dx: Array) -> None:
    """dx = dy / (1 - rate) where kept, 0 dy elsewhere. ``dx`` may be ``dy``; both may be wider than ``mask``."""
    columns = slice(mask.shape[1])
    xp.multiply(dy[:, columns], mask.astype(dy.dtype) * (1 / (1 - rate)), out=dx[:, columns])
