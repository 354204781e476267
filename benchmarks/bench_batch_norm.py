"""batch norm with its activation; the cases are those of :func:`benchmarks.suite.batch_norm_cases`."""

import pytest

from benchmarks.conftest import REPLAY
from benchmarks.suite import batch_norm_cases as cases  # noqa: F401 (read by conftest.py)


@pytest.mark.benchmark(timer=REPLAY)
def test_batch_norm(measure, case, provider):
    measure(case, provider)
