"""gpunet's k-layer network in this process: ``pytest benchmarks/bench_network.py``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.cases import network_cases
from benchmarks.peers.gpunet_work import GpunetNetwork
from benchmarks.problem import make_problem
from benchmarks.report.results import Case
from gpunet.backends import Backend

# 784-256-256-10 on 256 rows, with batch norm and without; ten layers of 64 on 8,192 rows.
CASES = [case for case in network_cases("cpu") if case.label in "ae" and case.mode != "epoch"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_network(case: Case, backend: Backend, timed: Callable[..., None]) -> None:
    """Forward; forward and backward; or a step, with Adam and as ``fit`` does it: a recorded graph on CUDA."""
    network = GpunetNetwork(backend, case, make_problem(case))
    timed(lambda: network.unit(*network.batches[0]))
