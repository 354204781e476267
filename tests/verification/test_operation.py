"""How a result is held against the specification: what counts as wrong, and that nothing wrong passes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from gpunet.verification.operation import Operation, compare, difference
from gpunet.verification.storage import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, STORAGES, exact
from tests.emulation import EmulatedDevice

NAN, INF = np.nan, np.inf


def doubled(seed: int = 0) -> Operation:
    """dx = dy / (1 - 1/2) where kept: twice dy, or 0."""
    rng = np.random.default_rng(seed)
    return Operation(
        "dropout_backward",
        {"dy": rng.standard_normal((5, 7)).astype(np.float32), "mask": rng.integers(0, 2, (5, 7), np.uint8)},
        {"dx": ((5, 7), np.float32)},
        {"rate": 0.5},
        lambda arguments, expected: {"dx": 1e-6},
    )


class Faulty(Backend):
    """Does something more after the operation."""

    def __init__(self, fault: Callable[..., None]) -> None:
        super().__init__()
        self.fault = fault
        self.calls = 0

    def dropout_backward(self, dy: Any, mask: Any, rate: float, dx: Any) -> None:
        super().dropout_backward(dy, mask, rate, dx)
        self.calls += 1
        self.fault(self, dy, mask, dx)


def beyond(array: Any, place: int) -> Any:
    """Return the element so many before (below 0) or behind the end (from 0) of a view."""
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    start = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    start += place * array.itemsize + (array.nbytes if place >= 0 else 0)
    return base.reshape(-1).view(np.uint8)[start : start + array.itemsize].view(array.dtype)


FAULTS = {
    r"dx\[1, 2\] is .* Expected .* within 1e-06; 1 of 35 elements": lambda own, dy, mask, dx: dx.__setitem__(
        (1, 2), dx[1, 2] + 2e-6
    ),
    r"dx\[4, 6\] is nan": lambda own, dy, mask, dx: dx.__setitem__((4, 6), NAN),
    "dx: a write outside it, at byte 140": lambda own, dy, mask, dx: beyond(dx, 0).fill(0),
    "dx: a write outside it, at byte -4": lambda own, dy, mask, dx: beyond(dx, -1).fill(0),
    "mask: a write outside it, at byte 36": lambda own, dy, mask, dx: beyond(mask, 1).fill(0),
    "dy: is only to be read": lambda own, dy, mask, dx: dy.__imul__(2),
    "the same call again gave other bits": lambda own, dy, mask, dx: dx.__iadd__(1e-9 * own.calls),
}


@pytest.mark.parametrize("text", FAULTS)
@pytest.mark.parametrize("offset", [0, 1])
def test_a_fault_is_told(text: str, offset: int) -> None:
    found = list(compare(Faulty(FAULTS[text]), doubled(), {"dx": offset, "dy": offset}))
    worst = max(found, key=lambda one: one.error)
    assert worst.error > 1
    assert re.search(text, worst.text), worst.text


class FaultyOnCuda(CudaBackend):
    """The same with the launcher's memory."""

    def __init__(self, fault: Callable[..., None]) -> None:
        super().__init__(EmulatedDevice(multiprocessor_count=1))
        self.fault = fault
        self.calls = 0

    def dropout_backward(self, dy: Any, mask: Any, rate: float, dx: Any) -> None:
        super().dropout_backward(dy, mask, rate, dx)
        self.calls += 1
        self.fault(self, dx)


def leaves_a_counter(own: FaultyOnCuda, dx: Any) -> None:
    own.device.copy(own.launcher.zeroed_counters(1)[:1], np.ones(1, np.uint32))


def reads_what_the_last_call_left(own: FaultyOnCuda, dx: Any) -> None:
    left = own.launcher.scratch("left", dx.shape, dx.dtype)
    if own.calls == 1:
        own.device.copy(left, dx)
    own.device.copy(dx, left)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (leaves_a_counter, "counters: blocks have left them other than 0"),
        (reads_what_the_last_call_left, "dx: the same call again gave other bits"),
    ],
)
def test_what_a_kernel_leaves_or_finds_in_the_launchers_memory_is_told(fault: Any, text: str) -> None:
    assert [found.text for found in compare(FaultyOnCuda(fault), doubled())] == [text]


def test_nothing_is_told_of_what_is_right() -> None:
    assert all(found.error <= 1 and not found.text for found in compare(Backend(), doubled()))


def test_a_shared_buffer_is_read_and_written() -> None:
    operation = doubled()
    in_place = Operation(**{**vars(operation), "shared": {"dx": "dy"}})
    assert all(found.error <= 1 for found in compare(Backend(), in_place))
    assert operation.matrices == ("dy", "mask", "dx")
    assert in_place.matrices == ("dy", "mask")


@pytest.mark.parametrize(
    ("found", "expected", "allowed", "error"),
    [
        (1.5, 1.0, 1.0, 0.5),
        (1.0, 1.0, 0.0, 0.0),
        (1.0 + 1e-15, 1.0, 0.0, INF),
        (NAN, NAN, 0.1, 0.0),
        (NAN, 1.0, 0.1, INF),
        (1.0, NAN, 0.1, INF),
        (1.0, NAN, NAN, INF),
        (1.0, 2.0, NAN, INF),
        (INF, INF, 0.1, 0.0),
        (INF, -INF, INF, INF),
        (3.0, INF, INF, INF),
        (INF, 3.0, INF, INF),
    ],
)
def test_a_difference_in_units_of_what_is_allowed(found: float, expected: float, allowed: float, error: float) -> None:
    result = difference("x", np.array([0.0, found]), np.array([0.0, expected]), np.array([1.0, allowed]))
    assert result.error == pytest.approx(error)
    assert bool(result.text) == (error > 1)


def test_another_shape_is_wrong() -> None:
    assert difference("x", np.zeros(3), np.zeros((3, 1))).error == INF
    assert difference("x", np.zeros((0, 3)), np.zeros((0, 3))).error == 0


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_storing_rounds_to_the_nearest_by_at_most_half_a_unit(storage: Any) -> None:
    values = np.random.default_rng(0).uniform(1, 2, 1000)
    stored = exact(storage.store(values))
    assert stored.dtype == np.float64
    np.testing.assert_array_less(np.abs(stored - values), storage.rounding * (1 + 1e-9))
    np.testing.assert_array_equal(exact(storage.store(stored)), stored)
    if storage is not FLOAT64:
        assert np.abs(stored - values).max() > 0.9 * storage.rounding


def test_what_a_storage_is() -> None:
    assert [storage.arithmetic.name for storage in STORAGES] == ["float32", "float64", "float32", "float32"]
    assert [storage.widest_vector for storage in STORAGES] == [4, 2, 8, 8]
    assert [storage.unit for storage in (FLOAT32, FLOAT64, FLOAT16)] == [2.0**-23, 2.0**-52, 2.0**-23]
    ties = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8])  # to even
    np.testing.assert_array_equal(exact(BFLOAT16.store(ties)), [1, 1 + 2.0**-6])
