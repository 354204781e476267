"""Batches from the host on a stream of their own: on the stand-in, where copies are late and read memory late."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices.lane import ALIGNMENT, lane_bytes
from gpunet.backends.devices.resources import RECORDER
from tests.backends.cuda.test_device import backend as backend  # fixtures
from tests.backends.cuda.test_device import cupy as cupy
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy

ROWS = [5, 5, 1, 5, 4, 5, 5, 2]


def batch(number: int, dtypes: Any = (np.float32, np.float32)) -> list[np.ndarray]:
    rows = ROWS[number % len(ROWS)]
    return [
        np.full((rows, columns), 10 * number + columns, dtype) for columns, dtype in zip((3, 2), dtypes, strict=True)
    ]


def send(lane: Any, number: int, dtypes: Any = (np.float32, np.float32)) -> None:
    values = batch(number, dtypes)
    for staged, value in zip(lane.stage([value.shape for value in values]), values, strict=True):
        assert (staged.shape, staged.dtype) == (value.shape, value.dtype)
        staged[...] = value
    lane.send()


@pytest.mark.parametrize("dtypes", [[np.float32] * 2, [np.float64] * 2, [np.float64, np.int32]])
def test_batches_arrive_whole_and_in_order(backend: CudaBackend, dtypes: Any) -> None:
    """Each before the step that reads it, and after the step before, while nobody waits for the device's stream."""
    count = 11
    kept = [[backend.zeros(value.shape, value.dtype) for value in batch(number, dtypes)] for number in range(count)]
    buffers = [backend.zeros((5, columns), dtype) for columns, dtype in zip((3, 2), dtypes, strict=True)]
    lane = backend.device.copy_lane([(5, 3), (5, 2)], dtypes)
    send(lane, 0, dtypes)
    for number in range(count):
        parts = [buffer[: ROWS[number % len(ROWS)]] for buffer in buffers]
        lane.receive(parts)
        for part, there in zip(parts, kept[number], strict=True):
            backend.copy(part, there)
        if number + 1 < count:
            send(lane, number + 1, dtypes)
    for number, arrays in enumerate(kept):
        for there, value in zip(arrays, batch(number, dtypes), strict=True):
            np.testing.assert_array_equal(backend.to_numpy(there), value, err_msg=str(number))


def test_a_batch_that_nobody_receives_is_dropped(backend: CudaBackend) -> None:
    lane = backend.device.copy_lane([(5, 3), (5, 2)], [np.float32] * 2)
    for number in (4, 0, 1):
        send(lane, number)
    buffers = [backend.zeros(value.shape, np.float32) for value in batch(1)]
    lane.receive(buffers)
    for buffer, value in zip(buffers, batch(1), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(buffer), value)


@pytest.mark.parametrize("records", [False, True])
def test_memory_stays_until_the_last_copy_is_done(
    backend: CudaBackend, cupy: fake_cupy.FakeCupy, records: bool
) -> None:
    """The pools could give it to others, whose numbers would be copied, or overwritten.

    While a step is recorded nothing is waited for, but afterwards.
    """
    moved: list[bytes] = []
    lane = backend.device.copy_lane([(5, 3), (5, 2)], [np.float32] * 2)
    copying = lane._copying  # type: ignore[attr-defined]
    send(lane, 0)
    cupy._move = lambda destination, source, size: moved.append(ctypes.string_at(source, size))  # type: ignore[method-assign]
    with RECORDER.recording() if records else contextlib.nullcontext():
        del lane
        gc.collect()
    assert not copying.queue
    (content,) = moved
    assert content[:60] == batch(0)[0].tobytes()


def test_the_host_waits_once_for_a_batch(backend: CudaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = backend.device.copy_lane([(5, 3), (5, 2)], [np.float32] * 2)
    buffers = [backend.zeros((5, columns), np.float32) for columns in (3, 2)]
    calls: list[str] = []
    for kind in (fake_cupy.Event, fake_cupy.Stream):
        wait = kind.synchronize
        name = kind.__name__
        monkeypatch.setattr(kind, "synchronize", lambda self, w=wait, n=name: (calls.append(n), w(self)))
    for _ in range(4):
        send(lane, 0)
        lane.receive(buffers)
    assert calls == ["Event"] * 4


def test_what_is_under_way_does_not_keep_the_host(backend: CudaBackend) -> None:
    """Two batches can be sent and two steps asked for, before anything has run."""
    lane = backend.device.copy_lane([(5, 3), (5, 2)], [np.float32] * 2)
    buffers = [backend.zeros((5, columns), np.float32) for columns in (3, 2)]
    passed = fake_cupy.Stream.passed
    for _ in range(2):
        send(lane, 0)
        lane.receive(buffers)
    assert fake_cupy.Stream.passed == passed


def test_nothing_of_it_is_recorded(backend: CudaBackend) -> None:
    """A recording would repeat one copy, and not the next batch's."""
    lane = backend.device.copy_lane([(5, 3), (5, 2)], [np.float32] * 2)
    send(lane, 0)
    buffers = [backend.zeros((5, columns), np.float32) for columns in (3, 2)]
    for step in (
        lambda: lane.stage([(5, 3), (5, 2)]),
        lane.send,
        lambda: lane.receive(buffers),
        lambda: backend.device.copy_lane([(5, 3)], [np.float32]),
    ):
        with pytest.raises(gpunet.DeviceError, match="not possible while a step is captured"):
            backend.capture(step)


def test_arrays_of_a_batch_begin_at_multiples() -> None:
    assert lane_bytes([], []) == 0
    assert lane_bytes([(1, 1)], [np.float64]) == ALIGNMENT
    assert lane_bytes([(1, ALIGNMENT // 4), (1, 1)], [np.float32] * 2) == 2 * ALIGNMENT
    assert lane_bytes([(1, ALIGNMENT // 4 + 1), (1, 1)], [np.float32] * 2) == 3 * ALIGNMENT
    assert lane_bytes([(1, ALIGNMENT // 4), (1, 1)], [np.float64, np.int32]) == 3 * ALIGNMENT


def test_no_room_for_the_buffer(backend: CudaBackend, cupy: fake_cupy.FakeCupy) -> None:
    cupy.free = 100
    with pytest.raises(gpunet.OutOfDeviceMemoryError, match="no room for 1,024 bytes"):
        backend.device.copy_lane([(5, 3), (5, 2)], [np.float32] * 2)


def test_free_memory_counts_what_the_pool_has(backend: CudaBackend, cupy: fake_cupy.FakeCupy) -> None:
    cupy.free, cupy.cached = 1000, 200
    assert backend.device.free_bytes() == 1200
    cupy.limit, cupy.used = 1500, 400
    assert backend.device.free_bytes() == 1100
    cupy.used = 2000
    assert backend.device.free_bytes() == 0


def test_of_the_emulated_device() -> None:
    test_batches_arrive_whole_and_in_order(CudaBackend(EmulatedDevice()), [np.float32, np.int32])
