"""gpunet's operations in this process, each one call of a backend: ``pytest benchmarks/bench_operations.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.cases import (
    activation_cases,
    batch_norm_cases,
    linear_cases,
    optimizer_cases,
    softmax_cross_entropy_cases,
)
from benchmarks.peers.gpunet_work import build_operation
from benchmarks.problem import make_problem
from benchmarks.report.results import Case
from gpunet.backends import Backend


def cases(build: Callable[[str], list[Case]]) -> Any:
    return pytest.mark.parametrize("case", build("cpu"), ids=lambda case: case.key)


@pytest.fixture
def time_operation(backend: Backend, timed: Callable[..., None]) -> Callable[[Case], None]:
    def run(case: Case) -> None:
        call, _ = build_operation(backend, case, make_problem(case).arrays)
        timed(call)

    return run


@cases(linear_cases)
def test_linear(case: Case, time_operation: Callable[[Case], None]) -> None:
    time_operation(case)


@cases(activation_cases)
def test_activation(case: Case, time_operation: Callable[[Case], None]) -> None:
    time_operation(case)


@cases(batch_norm_cases)
def test_batch_norm(case: Case, time_operation: Callable[[Case], None]) -> None:
    time_operation(case)


@cases(softmax_cross_entropy_cases)
def test_softmax_cross_entropy(case: Case, time_operation: Callable[[Case], None]) -> None:
    time_operation(case)


@cases(optimizer_cases)
def test_optimizer(case: Case, time_operation: Callable[[Case], None]) -> None:
    time_operation(case)
