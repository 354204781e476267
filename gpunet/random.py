"""Random numbers: which generator draws what, so that one seed gives one run on every device.

Initial weights and the order of the examples are drawn on the host by NumPy's ``Generator(Philox)``, one independent
stream per purpose and index: the weights of layer 3 do not depend on how wide layer 2 is drawn, and epoch 7 can be
resumed without replaying epochs 1 to 6. Dropout masks and samples of binary units come from the counter-based
Philox4x32-10 below, which a CUDA kernel computes to the same bits.

References
----------
Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

_MASK_32 = 0xFFFFFFFF
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


class Purpose(IntEnum):
    """What a host random stream is for; each purpose has streams of its own."""

    WEIGHTS = 0
    SHUFFLE = 1
    SPLIT = 2
    NOISE = 3
    SEEDS = 4


class Stream(IntEnum):
    """What counter-based random words are for; equal (seed, layer, step) of two streams have nothing in common."""

    DROPOUT = 0
    SAMPLING = 1


def host_generator(seed: int, purpose: Purpose, index: int = 0) -> np.random.Generator:
    """Return NumPy's generator for one purpose and index (a layer, an epoch) under ``seed``.

    Parameters
    ----------
    seed : int
        0 to 2**64 - 1.
    purpose : Purpose
        What is drawn.
    index : int
        The layer, epoch, ... within the purpose; streams of different indices do not overlap.
    """
    key = np.array([seed, int(purpose)], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def philox4x32(counter: npt.NDArray[np.uint64], key: tuple[int, int]) -> npt.NDArray[np.uint64]:
    """Compute Philox4x32-10.

    Parameters
    ----------
    counter : ndarray of uint64, shape (4, n)
        n counters of four 32-bit words each; overwritten.
    key : tuple of two ints
        Two 32-bit words.

    Returns
    -------
    ndarray of uint64, shape (4, n)
        Four random 32-bit words per counter.
    """
    shift, mask = np.uint64(32), np.uint64(_MASK_32)
    word_0, word_1, word_2, word_3 = counter
    key_0, key_1 = key
    for _ in range(_ROUNDS):
        product_0, product_1 = word_0 * _MULTIPLIERS[0], word_2 * _MULTIPLIERS[1]
        word_0 = (product_1 >> shift) ^ word_1 ^ np.uint64(key_0)
        word_2 = (product_0 >> shift) ^ word_3 ^ np.uint64(key_1)
        word_1, word_3 = product_1 & mask, product_0 & mask
        key_0, key_1 = (key_0 + _WEYL[0]) & _MASK_32, (key_1 + _WEYL[1]) & _MASK_32
    counter[0], counter[1], counter[2], counter[3] = word_0, word_1, word_2, word_3
    return counter


def random_words(stream: Stream, first: int, count: int, seed: int, layer: int, step: int) -> npt.NDArray[np.uint64]:
    """Return the 32-bit random words of elements ``first`` to ``first + count - 1``.

    Element e of layer ``layer`` at training step ``step`` takes word e mod 4 of Philox4x32-10 with
    counter (e div 4, layer, step mod 2^32, step div 2^32 + 2^31 stream) and key (seed mod 2^32, seed div 2^32). A step
    is less than 2^63, so that two streams have no counter in common.

    Parameters
    ----------
    stream : Stream
        What the words are for.
    first : int
        A multiple of 4.
    count : int
        ``first + count`` is at most 2^34.
    seed : int
        0 to 2^64 - 1.
    layer : int
        0 to 2^32 - 1.
    step : int
        0 to 2^63 - 1.

    Returns
    -------
    ndarray of uint64, (count,)
    """
    quads = -(-count // 4)
    counter = np.empty((4, quads), dtype=np.uint64)
    counter[0] = np.arange(first // 4, first // 4 + quads, dtype=np.uint64)
    counter[1], counter[2], counter[3] = layer, step & _MASK_32, (step >> 32) + (stream << 31)
    words = philox4x32(counter, (seed & _MASK_32, seed >> 32))
    return words.T.reshape(-1)[:count]


def dropout_threshold(rate: float) -> int:
    """Return the 32-bit threshold: an element is kept where its random word is at least this."""
    return min(int(rate * 2**32), _MASK_32)
