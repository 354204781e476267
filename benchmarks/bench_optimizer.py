"""one update of all parameters; the cases are those of :func:`benchmarks.suite.optimizer_cases`."""

import pytest

from benchmarks.conftest import REPLAY
from benchmarks.suite import optimizer_cases as cases  # noqa: F401 (read by conftest.py)


@pytest.mark.benchmark(timer=REPLAY)
def test_optimizer(measure, case, provider):
    measure(case, provider)
