"""matrix products of linear layers; the cases are those of :func:`benchmarks.suite.linear_cases`."""

import pytest

from benchmarks.conftest import REPLAY
from benchmarks.suite import linear_cases as cases  # noqa: F401 (read by conftest.py)


@pytest.mark.benchmark(timer=REPLAY)
def test_linear(measure, case, provider):
    measure(case, provider)
