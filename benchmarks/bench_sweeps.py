"""network's cost as batch, width and depth grow; the cases are those of :func:`benchmarks.suite.sweep_cases`."""

import pytest

from benchmarks.conftest import REPLAY
from benchmarks.suite import sweep_cases as cases  # noqa: F401 (read by conftest.py)


@pytest.mark.benchmark(timer=REPLAY)
def test_sweeps(measure, case, provider):
    measure(case, provider)
