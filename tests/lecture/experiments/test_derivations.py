"""Experiments of L6 and L7: Jacobians, loop and vectorised gradients, counted operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.lecture.counting import CountingArray, Counts
from gpunet.lecture.experiment import Settings
from gpunet.lecture.experiments import batch_gradient, single_example
from tests.helpers.experiments import assert_all_hold, changed


@pytest.mark.parametrize("module", [single_example, batch_gradient])
@pytest.mark.parametrize("seed", [0, 5])
def test_every_claim_holds(module: Any, seed: int) -> None:
    assert_all_hold(module, module.measure(Settings(seed=seed)))


def test_the_jacobians_are_the_lecture_s() -> None:
    numbers = single_example.measure(Settings())
    jacobians = {name: np.asarray(matrix) for name, matrix in numbers["jacobians"].items()}
    d, m, c = numbers["sizes"]
    shapes = {"dJ/dp": (1, c), "dp/ds": (c, c), "ds/dh": (c, m), "dh/ds_1": (m, m), "ds_1/db_1": (m, m)}
    assert {name: jacobians[name].shape for name in shapes} == shapes
    np.testing.assert_array_equal(jacobians["ds_1/db_1"], np.eye(m))
    by_weights = jacobians["ds_1/dvec(W_1)"]
    assert by_weights.shape == (m, m * d)
    for unit in range(m):
        # x_{j - (i-1)d} in row i, 0 elsewhere.
        expected = np.zeros(m * d)
        expected[unit * d : (unit + 1) * d] = numbers["x"]
        np.testing.assert_allclose(by_weights[unit], expected, rtol=1e-3)
    # Their product is the gradient, to the digits on file.
    g = jacobians["dJ/dp"] @ jacobians["dp/ds"] @ jacobians["ds/dh"] @ jacobians["dh/ds_1"]
    np.testing.assert_allclose(g, numbers["gradients"]["s1"], rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(numbers["gradients"]["b1"], numbers["gradients"]["s1"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("module", "path", "value", "lost"),
    [
        (single_example, ("library_difference", "W1"), 0.2, "library_agrees"),
        (single_example, ("cost_difference",), 0.2, "library_agrees"),
        (single_example, ("difference_error", "W1"), 0.2, "differences_agree"),
        (single_example, ("s1",), [1.0] * 4, "relu_is_indicator"),
        (batch_gradient, ("depths", 0, "loop_and_library"), 0.01, "all_equal"),
        (batch_gradient, ("two_layer_difference",), 0.01, "all_equal"),
        (batch_gradient, ("depths", 0, "differences"), 0.01, "differences_agree"),
        (batch_gradient, ("depths", 0, "as_on_the_slide"), 0.0, "slide_is_wrong"),
        (batch_gradient, ("counts", 0, "vectorised", "operations"), 1, "vectorised_is_constant"),
        (batch_gradient, ("counts", -1, "loop", "operations"), 60, "loop_grows"),
    ],
)
def test_a_claim_is_lost_with_its_numbers(module: Any, path: tuple[Any, ...], value: Any, lost: str) -> None:
    assert_all_hold(module, changed(module.measure(Settings()), *path, value=value), lost)


def test_counting_arrays_count_and_change_no_number() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((3, 4)), generator.standard_normal((4, 5))
    counts = Counts()
    watched = CountingArray.wrap(a, counts)
    product = watched @ b
    np.testing.assert_array_equal(np.asarray(product), a @ b)
    assert (counts.operations, counts.multiplications) == (1, 3 * 4 * 5)
    np.testing.assert_array_equal(np.asarray(product @ np.ones(5)), (a @ b) @ np.ones(5))
    assert (counts.operations, counts.multiplications) == (2, 60 + 15)
    total = np.zeros((3, 4))
    total += watched
    watched += 1
    np.testing.assert_array_equal(a, np.asarray(total) + 1)
    assert counts.calls == {"matmul": 2, "add": 2}
    assert counts.operations == 4
    assert counts.multiplications == 75


def test_what_the_loop_multiplies() -> None:
    """Counted by hand for 20-30-30-10: forward, the weights' gradients, g W, and in the loop g diag(...)."""
    entry = batch_gradient._counted(Settings(), 4)
    layers = 20 * 30 + 30 * 30 + 30 * 10
    back = 30 * 30 + 30 * 10
    assert entry["loop"]["multiplications"] == 4 * (2 * layers + back + 2 * 30 * 30)
    # One more for each example: the mean of the losses is a product of two vectors.
    assert entry["vectorised"]["multiplications"] == 4 * (2 * layers + back + 1)
