"""Operations with random bits, dropout and sampling: the NumPy specification.

Every bit is a function of (stream, seed, layer, step, element) alone, :func:`gpunet.random.random_words`: the same on
every device and in every order of the work.
"""

from __future__ import annotations

import numpy as np

from gpunet.backends.arrays import Array, ArrayOperations, chunks
from gpunet.random import Stream, dropout_threshold, random_words


class StochasticOperations(ArrayOperations):
    """Dropout, and samples of binary units."""

    def dropout_forward(
        self, x: Array, out: Array, mask: Array, rate: float, seed: int, layer: int, step: Array
    ) -> None:
        """out = x / (1 - rate) where kept, 0 elsewhere (inverted dropout).

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
        threshold, number = dropout_threshold(rate), int(step[0])
        scale = 1 / (1 - rate)
        flat_x, flat_mask, flat_out = x.reshape(-1), mask.reshape(-1), out.reshape(-1)
        for part in chunks(0, flat_x.size):
            words = random_words(Stream.DROPOUT, part.start, part.stop - part.start, seed, layer, number)
            flat_mask[part] = words >= threshold
            np.multiply(flat_x[part], scale, out=flat_out[part])
            flat_out[part] *= flat_mask[part]

    def dropout_backward(self, dy: Array, mask: Array, rate: float, dx: Array) -> None:
        """dx = dy / (1 - rate) where kept, 0 elsewhere. ``dx`` may be ``dy``."""
        np.multiply(dy, 1 / (1 - rate), out=dx)
        np.multiply(dx, mask, out=dx)

    def sample_bernoulli(self, probabilities: Array, out: Array, seed: int, layer: int, step: Array) -> None:
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
        number = int(step[0])
        flat_probabilities, flat_out = probabilities.reshape(-1), out.reshape(-1)
        for part in chunks(0, flat_out.size):
            words = random_words(Stream.SAMPLING, part.start, part.stop - part.start, seed, layer, number)
            flat_out[part] = words < flat_probabilities[part].astype(np.float64) * 2.0**32
