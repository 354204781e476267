"""Samples of binary units, whose every bit is a function of (seed, layer, step, element) alone."""

from __future__ import annotations

from typing import Any

from gpunet.backends.arrays import Array
from gpunet.random import Stream, random_words


def sample_bernoulli(xp: Any, probabilities: Array, out: Array, seed: int, layer: int, step: Array) -> None:
    """out_e = 1 with probability p_e, 0 otherwise: samples of binary units.

    With w_e the 32-bit random word of (seed, layer, step, e) in a stream of its own
    (:func:`gpunet.random.random_words`), out_e is 1 where w_e < 2^32 p_e. The comparison is exact, since
    multiplying by 2^32 does not round and float64 holds every 32-bit word: p_e = 0 never gives 1, p_e = 1 always
    does, and 1 has the probability ceil(2^32 p_e) / 2^32. NaN gives 0.

    Two calls with the same seed, layer and step give the same words: what is sampled more than once per step
    (hidden and visible units, each round of a Gibbs chain) takes a layer number of its own.

    Parameters
    ----------
    probabilities, out : ndarray, (n, m)
        May be the same buffer. At most 2^34 elements.
    seed : int
        0 to 2^64 - 1.
    layer : int
        0 to 2^32 - 1.
    step : ndarray of int64, (1,)
        At least 0.
    """
    words = random_words(Stream.SAMPLING, 0, out.size, seed, layer, int(step[0])).reshape(out.shape)
    out[...] = xp.asarray(words) < probabilities.astype(xp.float64) * 2.0**32
