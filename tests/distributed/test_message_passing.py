"""Real ranks, by MPI: exchanges, and the same bits for 1, 2, 3 and 4 of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.helpers.mpiexec import needs_mpi, run_under_mpi


def results(size: int, what: str) -> Any:
    status, output, errors = run_under_mpi(size, "-m", "tests.distributed.under_mpi", what)
    assert status == 0, errors
    return json.loads(output)


@needs_mpi
@pytest.mark.parametrize("size", [1, 2, 3])
def test_exchanges(size: int) -> None:
    found = results(size, "exchanges")
    assert len(found) == 19
    assert all(found.values()), found


@needs_mpi
def test_the_bits_are_those_of_one_rank() -> None:
    expected = results(1, "training")
    assert len(set(expected.values())) == len(expected) == 8
    for size in (2, 3, 4):
        assert results(size, "training") == expected
