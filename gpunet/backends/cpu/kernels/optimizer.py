"""The optimisers' steps, by chunks of the flat vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gpunet.backends.cpu.elementary import ELEMENTWISE, OPTIONS, select
from gpunet.backends.cpu.kernels.kernel import kernel
from gpunet.backends.cpu.machine_code import array_at, size_of


@njit(inline="always")
def reciprocal(x: Any) -> Any:
    """Return 1 / x, or 1 where x is so small that it would be infinite."""
    return 1 / x if x > 1e-300 else 1.0


@njit(inline="always")
def part(vector: Any, start: Any, stop: Any, A: Any) -> Any:
    """Return elements of the vector at an address, as an array whose indices are known to be positive."""
    return array_at(vector + size_of(A) * start, (max(stop - start, 0),), A)


def clip_kernel(A: Any, stamp: str) -> Any:
    """Compile the factor that bounds the norm of the gradient of J.

    Arguments: phase, parameters, gradients, out, sums, size, weight count, elements of a chunk, and, as float64, l2 and
    the largest norm. Phase 0 does a chunk: its largest element, and the sum of the squares of all divided by that; the
    squares of large numbers would overflow. 1 combines them.
    """

    @kernel(**OPTIONS)
    def clip(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given, numbers = array_at(arguments, (10,), np.int64), array_at(arguments, (10,), np.float64)
        size, weights, chunk = given[5], given[6], given[7]
        chunks = (size + chunk - 1) // chunk
        sums, largest, squares = array_at(given[4], (chunks, 2), np.float64), 0.0, 0.0
        if given[0] == 1:
            for number in range(chunks):
                largest = max(largest, sums[number, 0])
            scale = reciprocal(largest)
            for number in range(chunks):
                share = sums[number, 0] * scale
                squares += sums[number, 1] * (share * share) if sums[number, 0] > 0 else sums[number, 1]
            norm = np.sqrt(squares) / scale
            array_at(given[3], (1,), A)[0] = numbers[9] / max(norm, numbers[9]) if np.isfinite(norm) else 0.0
            return
        first, last = stripe * chunk, min(size, (stripe + 1) * chunk)
        parameters, gradients = array_at(given[1], (size,), A), array_at(given[2], (size,), A)
        decay, rest = A(2 * numbers[8]), max(first, weights)
        most = A(0)
        for i in range(first, min(last, weights)):
            g = abs(gradients[i] if decay == 0 else gradients[i] + decay * parameters[i])
            most = select(g > most, g, most)
        for i in range(rest, last):
            g = abs(gradients[i])
            most = select(g > most, g, most)
        scale = reciprocal(np.float64(most))
        for i in range(first, min(last, weights)):
            g = gradients[i] if decay == 0 else gradients[i] + decay * parameters[i]
            share = np.float64(g) * scale
            squares += share * share
        for i in range(rest, last):
            share = np.float64(gradients[i]) * scale
            squares += share * share
        sums[stripe, 0], sums[stripe, 1] = most, squares

    return clip


def sgd_kernel(A: Any, stamp: str) -> Any:
    """Compile a step of stochastic gradient descent.

    Arguments: parameters, gradients, velocity or 0, scalars, clip or 0, loss, size, weight count, elements of a chunk,
    nesterov, and, as float64, l2 and momentum.
    """

    @kernel(**ELEMENTWISE)
    def sgd(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given, numbers = array_at(arguments, (12,), np.int64), array_at(arguments, (12,), np.float64)
        size, weights, chunk, nesterov = given[6], given[7], given[8], given[9]
        if not np.isfinite(array_at(given[5], (2,), A)[0]):
            return
        rate, momentum = array_at(given[3], (1,), A)[0], A(numbers[11])
        factor = A(1)
        if given[4] != 0:
            factor = array_at(given[4], (1,), A)[0]
        first, last = stripe * chunk, min(size, (stripe + 1) * chunk)
        for kind in range(2):
            start, stop = (first, min(last, weights)) if kind == 0 else (max(first, weights), last)
            decay = A(2 * numbers[10]) if kind == 0 else A(0)
            parameters, gradients = part(given[0], start, stop, A), part(given[1], start, stop, A)
            if given[2] == 0:
                for i in range(len(parameters)):
                    p = parameters[i]
                    g = select(decay == 0, gradients[i], gradients[i] + decay * p)
                    parameters[i] = p - rate * (factor * g)
            else:
                velocity = part(given[2], start, stop, A)
                for i in range(len(parameters)):
                    p = parameters[i]
                    g = select(decay == 0, gradients[i], gradients[i] + decay * p) * factor
                    v = momentum * velocity[i] + g
                    velocity[i] = v
                    parameters[i] = p - rate * select(nesterov != 0, g + momentum * v, v)

    return sgd


def adam_kernel(A: Any, stamp: str) -> Any:
    """Compile a step of Adam or AdamW.

    Arguments: parameters, gradients, first and second moment, scalars, clip or 0, loss, size, weight count, elements of
    a chunk, and, as float64, l2, beta_1, beta_2, epsilon, weight decay.
    """

    @kernel(**ELEMENTWISE)
    def adam(arguments: Any, stripe: Any) -> Any:
        stamp  # noqa: B018
        given, numbers = array_at(arguments, (15,), np.int64), array_at(arguments, (15,), np.float64)
        size, weights, chunk = given[7], given[8], given[9]
        if not np.isfinite(array_at(given[6], (2,), A)[0]):
            return
        scalars = array_at(given[4], (3,), A)
        rate, correction_1, correction_2 = scalars[0], scalars[1], scalars[2]
        factor = A(1)
        if given[5] != 0:
            factor = array_at(given[5], (1,), A)[0]
        beta_1, beta_2, epsilon = A(numbers[11]), A(numbers[12]), A(numbers[13])
        new_1, new_2 = A(1 - numbers[11]), A(1 - numbers[12])
        first, last = stripe * chunk, min(size, (stripe + 1) * chunk)
        step = rate * correction_1
        for kind in range(2):
            start, stop = (first, min(last, weights)) if kind == 0 else (max(first, weights), last)
            decay = A(2 * numbers[10]) if kind == 0 else A(0)
            shrink = A(1 - rate * numbers[14]) if kind == 0 else A(1)
            parameters, gradients = part(given[0], start, stop, A), part(given[1], start, stop, A)
            first_moment, second_moment = part(given[2], start, stop, A), part(given[3], start, stop, A)
            for i in range(len(parameters)):
                p = parameters[i]
                g = select(decay == 0, gradients[i], gradients[i] + decay * p) * factor
                m = beta_1 * first_moment[i] + new_1 * g
                v = beta_2 * second_moment[i] + new_2 * g * g
                first_moment[i] = m
                second_moment[i] = v
                parameters[i] = shrink * p - step * m / (np.sqrt(correction_2 * v) + epsilon)

    return adam
