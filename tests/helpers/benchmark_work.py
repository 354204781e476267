"""What the tests of the benchmarks' peers share: small cases, and what it means to do a case."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import math
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import PEERS, find_peer
from benchmarks.peers.peer import OPERATIONS, Outputs, Peer, Work
from benchmarks.problem import Problem, make_problem
from benchmarks.report.results import Case

# Units of rounding that one layer loses at most, in a forward or a backward pass.
LOST_PER_LAYER = 32
ROUNDING = {"float32": 2.0**-24, "float64": 2.0**-53}
SIZES = (13, 17, 9, 5)
ROWS = 33
EPOCH = 3 * ROWS + 7
EPOCH_STEPS = 4

# The packages of the modules of peers that have more than gpunet to import.
NEEDS = {"torch_peers": "torch", "jax_peers": "jax", "keras_peers": "keras", "sklearn_peers": "sklearn"}


def peer_for_test(name: str) -> Peer:
    """Return a peer; skip the test where its package is not there."""
    needed = NEEDS.get(PEERS[name][0].partition(":")[0])
    if needed and importlib.util.find_spec(needed) is None:  # not imported: the peer decides how
        pytest.skip(f"{needed} is not installed")
    return find_peer(name)


def network(mode: str, **changes: Any) -> Case:
    case = Case("network", mode, "test", ROWS, SIZES, examples=EPOCH if mode == "epoch" else 0)
    return case.replace(**changes)


def network_cases(**changes: Any) -> list[Case]:
    """Return every mode of a network, the ones that update it with both optimisers."""
    cases = [network(mode, **changes) for mode in ("forward", "forward_backward")]
    for mode in ("step", "epoch"):
        cases += [network(mode, optimizer=optimizer, **changes) for optimizer in ("adam", "sgd")]
    return cases


def operation_cases(activations: tuple[str, ...] = ("relu",)) -> list[Case]:
    cases = []
    for operation, mode in OPERATIONS:
        sizes = (1001,) if operation.endswith("_step") else (13, 17) if operation == "gemm" else (17,)
        optimizer = operation.removesuffix("_step") if operation.endswith("_step") else "adam"
        case = Case(operation, mode, "test", ROWS, sizes, optimizer=optimizer)
        if operation.endswith("activation"):
            cases += [case.replace(activation=activation) for activation in activations]
        else:
            cases.append(case)
    return cases


def reference(case: Case) -> Outputs:
    """Return the outputs in float64."""
    double = case.replace(dtype="float64")
    return find_peer("gpunet-numpy").prepare(double, make_problem(double)).outputs()


def norm(arrays: Outputs) -> float:
    return math.sqrt(sum(float(np.sum(np.square(array))) for array in arrays.values()))


def assert_equal_work(case: Case, outputs: Outputs) -> None:
    """The outputs are those of the reference, up to rounding.

    Each array's error is compared with the norm of all of them (a bias whose gradient is small is no more exact than
    the others). Of parameters it is the change that counts; they are rounded themselves after every step, which is a
    large part of a small change.
    """
    expected, rounding = reference(case), ROUNDING[case.dtype]
    assert outputs.keys() == expected.keys()
    limit = LOST_PER_LAYER * rounding * (len(case.sizes) - 1 if case.operation == "network" else 1)
    scale = norm({name: array for name, array in expected.items() if name != "loss"})
    if case.mode in ("step", "epoch"):
        before: Outputs = make_problem(case).parameters
        change = norm({name: expected[name] - before[name] for name in expected})
        assert change > 0
        steps = EPOCH_STEPS if case.mode == "epoch" else make_problem(case).checked_steps
        scale, limit = change, limit + steps * rounding * scale / change
    for name, values in expected.items():
        assert outputs[name].shape == values.shape, name
        assert outputs[name].dtype == np.float64, name
        error = norm({name: outputs[name] - values})
        assert error <= limit * (norm({name: values}) if name == "loss" else scale), name


def check(peer: Peer, case: Case) -> Work:
    """Do a case, compare it, run it as the timed loop does, and return the work."""
    assert peer.refuses(case) is None
    problem, untouched = make_problem(case), make_problem(case)
    work = peer.prepare(case, problem)
    assert_equal_work(case, work.outputs())
    host, device = work.time(3)
    assert 0 < host < 60
    assert device is None or device > 0
    assert_same(problem, untouched)
    if case.mode in ("step", "epoch"):
        assert_goes_on(case, work)
    return work


def assert_same(problem: Problem, expected: Problem) -> None:
    """The arrays of a problem belong to no peer."""
    for name in ("parameters", "state", "arrays"):
        for key, values in getattr(expected, name).items():
            np.testing.assert_array_equal(getattr(problem, name)[key], values)
    for found, batch in zip(problem.batches, expected.batches, strict=True):
        for got, values in zip(found, batch, strict=True):
            np.testing.assert_array_equal(got, values)


def assert_goes_on(case: Case, work: Work) -> None:
    """The timed runs trained: three units further on, one more unit of the checked work ends somewhere else."""
    expected, after = reference(case), work.outputs()
    rounding = LOST_PER_LAYER * len(case.sizes) * ROUNDING[case.dtype]
    assert norm({name: after[name] - expected[name] for name in expected}) > 10 * rounding * norm(expected)
