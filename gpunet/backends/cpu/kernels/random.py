"""What counter-based random words decide, by chunks of elements: the bits of :func:`gpunet.random.random_words`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gpunet.backends.cpu.elementary import OPTIONS, select
from gpunet.backends.cpu.kernels.kernel import kernel
from gpunet.backends.cpu.machine_code import WIDTH, array_at, local_array, size_of

_QUADS = WIDTH // 4
_SHIFT, _MASK = np.uint64(32), np.uint64(0xFFFFFFFF)
_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ROUNDS = 10


@njit(inline="always")
def _write_words(words: Any, first: Any, stream: Any, seed_low: Any, seed_high: Any, layer: Any, step: Any) -> Any:
    """Write the random words of the ``WIDTH`` elements from ``first`` on, a multiple of 4."""
    planes = local_array(np.uint32)  # words 0 of all counters, words 1, ...: a vector's elements side by side
    layer_word, step_low = np.uint64(layer), np.uint64(step) & _MASK
    step_high = (np.uint64(step) >> _SHIFT) + np.uint64(stream << 31)
    for quad in range(_QUADS):
        a, b, c, d = np.uint64(first // 4 + quad), layer_word, step_low, step_high
        key_0, key_1 = np.uint64(seed_low), np.uint64(seed_high)
        for _ in range(_ROUNDS):
            product_0, product_1 = a * _MULTIPLIER_0, c * _MULTIPLIER_1
            a, c = (product_1 >> _SHIFT) ^ b ^ key_0, (product_0 >> _SHIFT) ^ d ^ key_1
            b, d = product_1 & _MASK, product_0 & _MASK
            key_0, key_1 = (key_0 + _WEYL_0) & _MASK, (key_1 + _WEYL_1) & _MASK
        planes[quad] = a
        planes[_QUADS + quad] = b
        planes[2 * _QUADS + quad] = c
        planes[3 * _QUADS + quad] = d
    for quad in range(_QUADS):
        for word in range(4):
            words[4 * quad + word] = planes[word * _QUADS + quad]


@njit(inline="always")
def _multiply(x: Any, factors: Any, out: Any, first: Any, width: Any, A: Any) -> Any:
    """out = x factors for some elements of the vectors at two addresses, which may be one."""
    here = array_at(out + size_of(A) * first, (width,), A)
    if x == out:  # which the compiler has to see
        for j in range(width):
            here[j] *= factors[j]
    else:
        there = array_at(x + size_of(A) * first, (width,), A)
        for j in range(width):
            here[j] = there[j] * factors[j]


def dropout_forward_kernel(A: Any, stamp: str) -> Any:
    """Compile dropout.

    Arguments: x, out, mask, step, elements, elements of a chunk (a multiple of 4), threshold, stream, the two words of
    the seed, layer, as float64 the factor of what is kept, and the element that the mask begins with.
    """

    @kernel(**OPTIONS)
    def dropout_forward(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (13,), np.int64)
        size, chunk, threshold = given[4], given[5], np.uint32(given[6])
        scale, step = A(array_at(arguments, (13,), np.float64)[11]), array_at(given[3], (1,), np.int64)[0]
        words, factors = local_array(np.uint32), local_array(A)
        last = min(size, (stripe + 1) * chunk)
        for first in range(stripe * chunk, last, WIDTH):
            _write_words(words, given[12] + first, given[7], given[8], given[9], given[10], step)
            width = min(WIDTH, last - first)
            mask = array_at(given[2] + first, (width,), np.uint8)
            for j in range(width):
                mask[j] = words[j] >= threshold
                factors[j] = select(words[j] >= threshold, scale, A(0))
            _multiply(given[0], factors, given[1], first, width, A)

    return dropout_forward


def dropout_backward_kernel(A: Any, stamp: str) -> Any:
    """Compile the gradient of dropout.

    Arguments: dy, mask, dx, elements, elements of a chunk, and, as float64, the factor of what is kept.
    """

    @kernel(**OPTIONS)
    def dropout_backward(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given, scale = array_at(arguments, (6,), np.int64), A(array_at(arguments, (6,), np.float64)[5])
        factors, last = local_array(A), min(given[3], (stripe + 1) * given[4])
        for first in range(stripe * given[4], last, WIDTH):
            width = min(WIDTH, last - first)
            mask = array_at(given[1] + first, (width,), np.uint8)
            for j in range(width):
                factors[j] = select(mask[j] != 0, scale, A(0))
            _multiply(given[0], factors, given[2], first, width, A)

    return dropout_backward


def sample_bernoulli_kernel(A: Any, stamp: str) -> Any:
    """Compile samples of binary units.

    Arguments: probabilities, out, step, elements, elements of a chunk (a multiple of 4), stream, the two words of the
    seed, layer.
    """

    @kernel(**OPTIONS)
    def sample_bernoulli(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given = array_at(arguments, (9,), np.int64)
        step, last = array_at(given[2], (1,), np.int64)[0], min(given[3], (stripe + 1) * given[4])
        words, samples = local_array(np.uint32), local_array(A)
        for first in range(stripe * given[4], last, WIDTH):
            _write_words(words, first, given[5], given[6], given[7], given[8], step)
            width = min(WIDTH, last - first)
            probabilities = array_at(given[0] + size_of(A) * first, (width,), A)
            for j in range(width):
                is_one = np.float64(words[j]) < np.float64(probabilities[j]) * 4294967296.0
                samples[j] = select(is_one, A(1), A(0))
            out = array_at(given[1] + size_of(A) * first, (width,), A)
            for j in range(width):
                out[j] = samples[j]

    return sample_bernoulli
