"""networks; the cases are those of :func:`benchmarks.suite.network_cases`."""

import pytest

from benchmarks.conftest import REPLAY
from benchmarks.suite import network_cases as cases  # noqa: F401 (read by conftest.py)


@pytest.mark.benchmark(timer=REPLAY)
def test_network(measure, case, provider):
    measure(case, provider)
