"""Programs: which phases are chained, and that a chain does what its phases do."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from numba import cfunc, int64, void

from gpunet.backends.cpu.machine_code import array_at
from gpunet.backends.cpu.pool import Pool
from gpunet.backends.cpu.program import Phase, Program, Programs, chained

ROWS, BLOCK = 10, 4


@cfunc(void(int64, int64))
def add_row_sums(arguments: Any, stripe: Any) -> Any:
    """y_i = x_i + sum of z, for a block of rows of two columns."""
    given = array_at(arguments, (4,), np.int64)
    x, y = array_at(given[0], (ROWS, 2), np.float64), array_at(given[1], (ROWS, 2), np.float64)
    z = array_at(given[2], (2,), np.float64)
    for i in range(stripe * BLOCK, min(ROWS, (stripe + 1) * BLOCK)):
        for j in range(2):
            y[i, j] = x[i, j] + z[0] + z[1]


def phase(x: Any, y: Any, z: Any, rows: tuple[int, int] | None = (ROWS, BLOCK)) -> Phase:
    return Phase(add_row_sums, [x, y, z, None], 3, rows)


@pytest.fixture
def arrays() -> list[Any]:
    return [np.random.default_rng(seed).standard_normal((ROWS, 2)) for seed in range(4)]


def test_phases_that_share_only_rows_are_chained_and_do_the_same(arrays: list[Any]) -> None:
    a, b, c, d = arrays
    phases = [phase(a, b, np.ones(2)), phase(b, c, np.ones(2)), phase(c, a, np.ones(2)), phase(a, d, np.ones(2))]
    assert [len(chain) for chain in chained(phases)] == [4]
    start = a.copy()
    for threads in (1, 2, 3):
        a[...] = start
        pool = Pool(threads, None)
        Program(pool, phases)()
        pool.stop()
        np.testing.assert_allclose(d, start + 8, rtol=1e-14)


def test_the_same_on_the_same_arrays_is_one_program_which_keeps_none(arrays: list[Any]) -> None:
    programs, pool = Programs(), Pool(1, None)
    a, b, c, _ = arrays
    ones, twos = np.ones(2), 2 * np.ones(2)
    first = programs(pool, [phase(a, b, ones)])
    assert programs(pool, [phase(a, b, ones)]) is first
    others = [phase(a, c, ones)], [phase(a, b, twos)], [phase(a, b, ones), phase(b, c, ones)]
    assert all(programs(pool, other) is not first for other in others)
    for _ in range(20):  # new arrays may have the addresses, and be the objects, of old ones
        a, b = np.random.default_rng(0).standard_normal((ROWS, 2)), np.zeros((ROWS, 2))
        gone = weakref.ref(a)
        programs(pool, [phase(a, b, ones)])()
        np.testing.assert_allclose(b, a + 2, rtol=1e-14)
        del a
        assert gone() is None


def test_what_is_not_by_rows_or_shares_more_waits_for_all_stripes(arrays: list[Any]) -> None:
    a, b, c, d = arrays
    z = np.ones(2)
    assert len(chained([phase(a, b, z), phase(b, c, z, None)])) == 2
    assert len(chained([phase(a, b, z), phase(b, c, z, (ROWS, 5))])) == 2
    assert len(chained([phase(a, b, z), phase(c, d, z)])) == 2  # of the same columns, one might be written
    assert len(chained([phase(a, b, np.ones(2)), phase(c, d, b[0])])) == 2
    wider = b.reshape(-1)[: ROWS * 1].reshape(ROWS, 1)  # rows of another width in the same memory
    assert len(chained([phase(a, b, np.ones(2)), phase(wider, c, np.ones(2))])) == 2
    assert len(chained([phase(a, b, np.ones(2)), phase(b[1:], c, np.ones(2))])) == 2
    inner = phase(a, b, b.reshape(-1)[3:5])  # what overlaps in one phase hides what the next one shares
    assert len(chained([inner, phase(b, c, np.ones(2))])) == 2
