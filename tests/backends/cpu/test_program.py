"""Programs: which phases are chained, and that a chain does what its phases do."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from numba import cfunc, int64, void

from gpunet.backends.cpu.machine_code import array_at
from gpunet.backends.cpu.pool import Pool
from gpunet.backends.cpu.program import NumpyCall, Operations, Phase, Program, Recording, chained

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


def test_the_same_on_the_same_arrays_is_laid_out_once_and_keeps_none(arrays: list[Any]) -> None:
    operations, pool = Operations(), Pool(1, None)

    def lay_out(x: Any, y: Any, z: Any, scratch: Any = None, is_python: bool = False) -> Recording:
        recording = Recording(pool)
        recording.add_phases([phase(x, y, z), *([] if scratch is None else [phase(x, scratch, z)])])
        if is_python:
            recording.add_call(NumpyCall(lambda: None, (), {}))
        return recording

    def found(*args: Any, name: str = "add", **kwargs: Any) -> Any:
        return operations(name, args, kwargs, lambda: lay_out(*args, **kwargs))

    a, b, c, _ = arrays
    ones, twos, scratch = np.ones(2), 2 * np.ones(2), np.zeros((ROWS, 2))
    first = found(a, b, ones)
    assert found(a, b, ones) == first
    assert found(a, b, z=ones) == found(a, b, z=ones) != first
    others = (a, c, ones), (a, b, twos), (a, b, ones, None, False)
    assert all(found(*other) != first for other in others)
    assert found(a, b, ones, name="another") != first
    assert found(a, b, ones, None, True) != found(a, b, ones, None, True)  # whose calls have their own arrays
    within = found(a, b, ones, scratch=scratch)
    assert found(a, b, ones, scratch=scratch) == within
    for _ in range(20):  # new arrays may have the addresses, and be the objects, of old ones
        a, b = np.random.default_rng(0).standard_normal((ROWS, 2)), np.zeros((ROWS, 2))
        gone = weakref.ref(a)
        for program in found(a, b, ones):
            program()
        np.testing.assert_allclose(b, a + 2, rtol=1e-14)
        del a
        assert gone() is None


def test_what_has_arrays_within_an_argument_is_laid_out_each_time(arrays: list[Any]) -> None:
    operations, (a, b, c, _) = Operations(), arrays
    recording = Recording(Pool(1, None))
    recording.add_phases([phase(a, b, np.ones(2))])
    assert operations("add", ((a, b),), {}, lambda: recording) is recording.calls
    assert operations("add", ((a, c),), {}, lambda: Recording(Pool(1, None))) == []


def test_an_operation_is_laid_out_anew_when_its_scratch_is_another(arrays: list[Any]) -> None:
    operations, pool, ones, laid_out = Operations(), Pool(1, None), np.ones(2), []

    def lay_out(scratch: Any) -> Recording:
        laid_out.append(id(scratch))
        recording = Recording(pool)
        recording.add_phases([phase(arrays[0], scratch, ones)])
        return recording

    scratch = np.zeros((ROWS, 2))
    for _ in range(2):
        operations("add", (arrays[0],), {}, lambda: lay_out(scratch))
    assert len(laid_out) == 1
    scratch = np.zeros((ROWS, 2))
    operations("add", (arrays[0],), {}, lambda: lay_out(scratch))
    assert len(laid_out) == 2


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
