"""bias and activation; the cases are those of :func:`benchmarks.suite.activation_cases`."""

import pytest

from benchmarks.conftest import REPLAY
from benchmarks.suite import activation_cases as cases  # noqa: F401 (read by conftest.py)


@pytest.mark.benchmark(timer=REPLAY)
def test_activation(measure, case, provider):
    measure(case, provider)
