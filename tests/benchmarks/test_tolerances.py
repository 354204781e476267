"""What is compared, and how far it may lie from float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.peers import find_peer
from benchmarks.problem import make_problem
from benchmarks.report.results import Case
from benchmarks.tolerances import largest_error, tolerance
from gpunet.verification.configurations import layer_sizes

SMALL = Case("network", "step", "small", 5, (3, 2, 10), optimizer="adam")


def test_problems_are_the_same_in_every_process_and_dtype():
    single, double = make_problem(SMALL), make_problem(SMALL.replace(dtype="float64"))
    for (one, labels), (other, same_labels) in zip(single.batches, double.batches, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(labels, same_labels)
    for name, value in single.parameters.items():
        np.testing.assert_array_equal(value, double.parameters[name])
        assert value.dtype == np.float32
        assert double.parameters[name].dtype == np.float64
    assert not np.array_equal(single.batches[0][0], single.batches[1][0])


def test_tolerances_follow_the_precision():
    forward = SMALL.replace(mode="forward")
    assert tolerance(forward) == 64 * 2.0**-24
    assert tolerance(forward.replace(precision="tf32")) == 8 * 2.0**-11
    assert tolerance(forward.replace(dtype="float64")) == 64 * 2.0**-53
    assert tolerance(SMALL.replace(mode="forward_backward")) == pytest.approx(1.1**2 * math.sqrt(tolerance(forward)))
    assert tolerance(SMALL) == 0.05
    deep = SMALL.replace(sizes=(3, *[2] * 40, 10), precision="tf32")
    assert tolerance(deep) == 0.5  # whatever rounding explains: half of a step is wrong


def test_a_kink_in_batch_norm_and_none_in_a_bias():
    backward = Case("batch_norm_activation", "backward", "x", 8, (4,))
    assert tolerance(backward) == math.sqrt(32 * 2.0**-24)
    assert tolerance(backward.replace(mode="forward")) == 32 * 2.0**-24
    assert tolerance(backward.replace(operation="bias_activation")) == 32 * 2.0**-24


def test_errors_are_those_of_the_changes_and_find_what_is_missing():
    before = {"W1": np.full(4, 1000.0)}
    reference = {"W1": np.full(4, 1001.0)}
    assert largest_error({"W1": np.full(4, 1002.0)}, reference, before) == (1.0, "W1")
    assert largest_error(before, reference, before) == (1.0, "W1")
    assert largest_error({}, reference, before) == (math.inf, "W1")
    assert largest_error({"W1": np.full(4, math.nan)}, reference, before) == (math.inf, "W1")
    assert largest_error({"W1": np.zeros(3)}, reference, before) == (math.inf, "W1")
    assert largest_error(reference, reference, before)[0] == 0
    doubled = {"W1": 2 * reference["W1"]}
    assert largest_error(doubled, reference, {}) == (1.0, "W1")


def test_a_small_parameter_that_was_left_out_does_not_hide_behind_a_large_one():
    """gamma and beta of a wide network have a thousandth of the elements of W."""
    before = {"W1": np.zeros((2048, 2048)), "gamma1": np.zeros(2048)}
    reference = {name: array + 1e-4 for name, array in before.items()}
    frozen = reference | {"gamma1": before["gamma1"]}
    assert largest_error(frozen, reference, before) == (pytest.approx(1.0), "gamma1")
    gradients = {"W1": np.full((2048, 2048), 1e-4), "gamma1": np.full(2048, 1e-4)}
    assert largest_error(gradients | {"gamma1": np.zeros(2048)}, gradients, {}) == (pytest.approx(1.0), "gamma1")


def test_steps_along_gradients_that_are_rounding_alone_have_any_sign():
    before, step = {"W1": np.zeros(100)}, np.full(100, 1e-4)
    reference = {"W1": step}
    some = step * np.where(np.arange(100) < 10, -1, 1)
    many = step * np.where(np.arange(100) < 30, -1, 1)
    assert largest_error({"W1": some}, reference, before)[0] == 0
    assert largest_error({"W1": many}, reference, before)[0] == pytest.approx(2)


@pytest.mark.parametrize(("label", "layers"), [("depth 16", 16), ("depth 32", 32)])
def test_deep_networks_are_compared_after_one_step(label, layers):
    """After three, rounding has grown beyond the step itself."""
    case = Case("network", "step", label, 64, layer_sizes(20, layers, 32))
    assert make_problem(case).checked_steps == 1
    single, double = (
        find_peer("gpunet-numpy").prepare(c, make_problem(c)).outputs() for c in (case, case.replace(dtype="float64"))
    )
    before = {name: value.astype(np.float64) for name, value in make_problem(case).parameters.items()}
    assert largest_error(single, double, before)[0] < tolerance(case)


def test_a_parameter_that_hardly_changes_is_judged_beside_the_others():
    reference = {"W1": np.array([1.0]), "b1": np.array([1e-9])}
    assert largest_error({"W1": np.array([1.0]), "b1": np.array([2e-9])}, reference, {})[0] < 1e-8
    assert largest_error({"W1": np.array([1.0]), "b1": np.array([1.0])}, reference, {})[0] > 0.5
