"""Dropout, whose every bit is a function of (seed, layer, step, element) alone: the same on every device."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array
from gpunet.random import Stream, dropout_threshold, random_words


def dropout_forward(
    xp: Any, x: Array, out: Array, mask: Array, rate: float, seed: int, layer: int, step: Array
) -> None:
    """out = x / (1 - rate) where kept, 0 x elsewhere (inverted dropout): NaN and infinity are not hidden by chance.

    Element e of the flattened x is kept where its random word, a function of (seed, layer, step, e) alone
    (:func:`gpunet.random.random_words`), is at least rate * 2^32.

    Parameters
    ----------
    x, out : ndarray, (n, m)
        May be the same buffer. At most 2^34 elements.
    mask : ndarray of uint8, (n, m)
        Written: 1 where kept.
    rate : float
        In [0, 1).
    step : ndarray of int64, (1,)
        The number of training steps done before this one.
    """
    words = random_words(Stream.DROPOUT, 0, x.size, seed, layer, int(step[0])).reshape(x.shape)
    mask[...] = xp.asarray(words >= dropout_threshold(rate))
    dropout_backward(xp, x, mask, rate, out)


def dropout_backward(xp: Any, dy: Array, mask: Array, rate: float, dx: Array) -> None:
    """dx = dy / (1 - rate) where kept, 0 dy elsewhere. ``dx`` may be ``dy``."""
    xp.multiply(dy, mask.astype(dy.dtype) * (1 / (1 - rate)), out=dx)
