"""the loss and its gradient; the cases are those of :func:`benchmarks.suite.softmax_cross_entropy_cases`."""

import pytest

from benchmarks.conftest import REPLAY
from benchmarks.suite import softmax_cross_entropy_cases as cases  # noqa: F401 (read by conftest.py)


@pytest.mark.benchmark(timer=REPLAY)
def test_softmax_cross_entropy(measure, case, provider):
    measure(case, provider)
