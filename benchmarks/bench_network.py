"""gpunet's k-layer network in this process: ``pytest benchmarks/bench_network.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.cases import network_cases
from benchmarks.peers.gpunet_work import GpunetNetwork
from benchmarks.problem import make_problem
from benchmarks.report.results import Case
from gpunet.backends import Backend

# 784-256-256-10 on 256 rows, with batch norm and without; ten layers of 64 on 8,192 rows.
CASES = [case for case in network_cases("cpu") if case.label in "ae"]


def cases(mode: str) -> Any:
    chosen = [case for case in CASES if case.mode == mode]
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case.key)


@cases("forward")
def test_forward(case: Case, backend: Backend, timed: Callable[..., None]) -> None:
    problem = make_problem(case)
    network = GpunetNetwork(backend, case, problem)
    ((X, y), *_) = network.place(problem.batches)
    timed(lambda: network.forward(X, y))


@cases("forward_backward")
def test_forward_and_backward(case: Case, backend: Backend, timed: Callable[..., None]) -> None:
    problem = make_problem(case)
    network = GpunetNetwork(backend, case, problem)
    ((X, y), *_) = network.place(problem.batches)
    timed(lambda: network.forward_backward(X, y))


@cases("step")
def test_step(case: Case, backend: Backend, timed: Callable[..., None]) -> None:
    """Forward, backward and Adam, as ``fit`` does it; a recorded graph on CUDA."""
    problem = make_problem(case)
    network = GpunetNetwork(backend, case, problem)
    ((index,), *_) = network.place(problem.batches)
    timed(lambda: network.step(index))
