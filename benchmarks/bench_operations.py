"""gpunet's operations in this process, each one call of a backend: ``pytest benchmarks/bench_operations.py``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.cases import GROUPS
from benchmarks.peers.gpunet_work import build_operation
from benchmarks.problem import make_problem
from benchmarks.report.results import Case
from gpunet.backends import Backend

# With the group in the name, so that -k batch_norm chooses all of it.
CASES = {f"{group}-{case.key}": case for group, build in GROUPS.items() for case in build("cpu") if not case.is_network}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operation(case: Case, backend: Backend, timed: Callable[..., None]) -> None:
    call, _ = build_operation(backend, case, make_problem(case).arrays)
    timed(call)
