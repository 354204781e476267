"""What the tests of the lecture's derivations share: finite differences and a comparison."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpunet.lecture.derivations.activations import FloatArray


def jacobian_by_central_differences(
    function: Callable[[FloatArray], FloatArray | float], point: FloatArray, step: float = 1e-5
) -> FloatArray:
    """Jacobian (outputs, inputs) of a function at a point, both flattened row by row."""
    columns = []
    for index in np.ndindex(point.shape):
        offset = np.zeros_like(point)
        offset[index] = step
        columns.append((np.ravel(function(point + offset)) - np.ravel(function(point - offset))) / (2 * step))
    return np.stack(columns, axis=1)


def assert_agrees(computed: FloatArray, expected: FloatArray, relative: float = 1e-7) -> None:
    """Equal shapes, and equal numbers up to `relative` times the largest of them."""
    assert computed.shape == expected.shape
    largest = np.abs(expected).max()
    np.testing.assert_allclose(computed, expected, rtol=0, atol=relative * max(largest, 1e-2))
