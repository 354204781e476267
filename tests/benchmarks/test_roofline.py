"""The roofline: what an operation cannot do without, counted by hand."""

from __future__ import annotations

import math

import pytest

from benchmarks.report.results import Case
from benchmarks.report.roofline import Demand, demands, parameter_count, roofline_seconds, working_set
from gpunet.verification.configurations import layer_sizes

# Two hidden units, three inputs, five rows, ten classes.
SMALL = Case("network", "step", "small", 5, (3, 2, 10), optimizer="adam")


def test_demands_of_a_network_are_those_of_its_operations():
    forward = [
        Demand(2 * 5 * 3 * 2, 4 * (5 * 3 + 3 * 2 + 5 * 2)),
        Demand(0, 4 * 2 * 5 * 2),  # batch norm: s in, y out
        Demand(2 * 5 * 2 * 10, 4 * (5 * 2 + 2 * 10 + 5 * 10)),
        Demand(0, 4 * 2 * 5 * 10),  # the last bias
    ]
    assert demands(SMALL.replace(mode="forward")) == forward
    backward = [
        Demand(0, 4 * 2 * 5 * 10),  # logits in, gradient out
        Demand(2 * 10 * 5 * 2, 4 * (10 * 5 + 5 * 2 + 10 * 2)),  # dW2
        Demand(2 * 5 * 10 * 2, 4 * (5 * 10 + 10 * 2 + 5 * 2)),  # dX
        Demand(0, 4 * 3 * 5 * 2),  # batch norm: dy, s in, ds out
        Demand(2 * 2 * 5 * 3, 4 * (2 * 5 + 5 * 3 + 2 * 3)),  # dW1, and no gradient of the input
    ]
    assert demands(SMALL.replace(mode="forward_backward")) == forward + backward
    parameters = 3 * 2 + 2 + 2 + 2 * 10 + 10
    assert parameter_count(SMALL) == parameters
    assert demands(SMALL) == [*forward, *backward, Demand(0, 4 * 7 * parameters)]
    assert demands(SMALL.replace(optimizer="sgd"))[-1] == Demand(0, 4 * 5 * parameters)


def test_bfloat16_has_half_of_the_bytes_but_updates_weights_in_float32():
    single, half = demands(SMALL), demands(SMALL.replace(dtype="bfloat16"))
    assert [demand.operations for demand in half] == [demand.operations for demand in single]
    assert [demand.bytes for demand in half[:-1]] == [demand.bytes / 2 for demand in single[:-1]]
    assert half[-1].bytes == single[-1].bytes + 2 * parameter_count(SMALL)


def test_an_epoch_is_its_steps_and_its_batches():
    epoch = SMALL.replace(mode="epoch", examples=12)
    step, short = demands(SMALL), demands(SMALL.replace(rows=2))
    gather, gather_short = Demand(0, 4 * 2 * 5 * 3), Demand(0, 4 * 2 * 2 * 3)
    assert demands(epoch) == [gather, *step, gather, *step, gather_short, *short]


def test_the_roofline_is_the_larger_of_arithmetic_and_bytes_in_each_operation():
    case = SMALL.replace(mode="forward")
    expected = sum(max(d.operations / 1e3, d.bytes / 1e2) for d in demands(case))
    assert roofline_seconds(case, 1e3, 1e2) == pytest.approx(expected)
    assert roofline_seconds(case, math.inf, 1e2) < expected or all(
        d.bytes / 1e2 >= d.operations / 1e3 for d in demands(case)
    )


def test_flops_of_the_lectures_network():
    """Configuration d: 856 GFLOP in a step, as counted by hand from 2 n a b three times, less the first dX."""
    case = Case("network", "step", "d", 65536, layer_sizes(512, 10, 500))
    inner = 512 * 500 + 8 * 500 * 500 + 500 * 10
    expected = 2 * 65536 * (3 * inner - 512 * 500)
    assert sum(demand.operations for demand in demands(case)) == expected
    assert expected == pytest.approx(856e9, rel=0.01)


def test_working_sets():
    assert working_set(Case("bias_activation", "forward", "x", 8, (4,))) == 4 * 2 * 8 * 4
    step = working_set(SMALL)
    assert step == 4 * (4 * parameter_count(SMALL) + 5 * (3 + 2 * 12))
    assert working_set(SMALL.replace(dtype="float64")) == 2 * step
