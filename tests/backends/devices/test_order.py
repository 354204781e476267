"""What the device over CuPy must keep in order: streams, recordings, devices; on the stand-in, where all runs late."""

from __future__ import annotations

import gc
import re
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices import cupy as cupy_device
from gpunet.backends.devices.cublas import DATA_TYPES
from gpunet.backends.devices.resources import Recorder
from gpunet.kernel_check.nvrtc import toolkit_folders
from tests.backends.cuda.test_device import backend as backend  # fixtures
from tests.backends.cuda.test_device import cupy as cupy
from tests.backends.cuda.test_device import multiply
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy

RNG = np.random.default_rng(0)


# --- products ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
def test_products_of_every_layout(backend: CudaBackend, transpose_a: bool, transpose_b: bool, accumulate: bool) -> None:
    """No matrix is square: where one is, a wrong flag or the wrong factor would fit."""
    a, b = (
        RNG.standard_normal((5, 3) if transpose_a else (3, 5)),
        RNG.standard_normal((7, 5) if transpose_b else (5, 7)),
    )
    before = RNG.standard_normal((3, 7))
    out = backend.asarray(before)
    backend.gemm(backend.asarray(a), backend.asarray(b), out, transpose_a, transpose_b, accumulate)
    expected = (a.T if transpose_a else a) @ (b.T if transpose_b else b) + accumulate * before
    np.testing.assert_allclose(backend.to_numpy(out), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("precision", "compute"), [("float32", 68), ("tf32", 77)])
def test_precision_of_a_backend(cupy: Any, precision: str, compute: int) -> None:
    backend = CudaBackend(cupy_device.CupyDevice(0), precision)
    matrix = backend.zeros((2, 2), np.float32)
    backend.gemm(matrix, matrix, backend.zeros((2, 2), np.float32))
    assert backend.device._resources.blas._library.computes == [compute]  # type: ignore[attr-defined]


def test_rows_with_gaps() -> None:
    """A row of each matrix begins so many elements after the one before, more than it has."""
    a, b, out = RNG.standard_normal((3, 9)), RNG.standard_normal((5, 11)), np.zeros((3, 10))
    multiply(a[:, :5], b[:, :7], out[:, :7])
    np.testing.assert_allclose(out[:, :7], a[:, :5] @ b[:, :7], rtol=1e-13, atol=1e-13)
    assert not out[:, 7:].any()


def test_numbers_of_the_data_types_are_those_of_cudas_headers() -> None:
    headers = [folder / "include" / "library_types.h" for folder in toolkit_folders()]
    text = next((path.read_text() for path in headers if path.is_file()), None)
    if text is None:
        pytest.skip("the headers of the CUDA runtime are not installed")
    numbers = {name: int(number) for name, number in re.findall(r"CUDA_R_(\w+)\s*=\s*(\d+)", text)}
    names = {"float16": "16F", "bfloat16": "16BF", "float32": "32F", "float64": "64F"}
    names["uint16"] = "16BF"  # the bits of bfloat16
    assert {dtype: numbers[name] for dtype, name in names.items()} == DATA_TYPES


# --- streams ----------------------------------------------------------------------------------------------------------


def test_memory_of_pending_operations_goes_back_in_their_order(backend: CudaBackend) -> None:
    """Not to the pool of the user's stream, where others could have it before our stream has used it."""
    results = []
    for number in range(4):
        source, out = backend.asarray(np.full((3, 5), float(number))), backend.empty((3, 5), np.float64)
        backend.bias_activation_forward(source, None, gpunet.ReLU(), out)
        results.append(out)
    del source, out
    gc.collect()
    for number, out in enumerate(results):
        np.testing.assert_array_equal(backend.to_numpy(out), number)


def operations(backend: CudaBackend) -> dict[str, Callable[[], Any]]:
    """Return everything that is asked of a stream."""
    square = backend.zeros((2, 2), np.float32)
    other = backend.zeros((2, 2), np.float32)
    replay = backend.capture(lambda: backend.copy(square, other))
    lane = backend.device.copy_lane([(2, 2)], [np.float32])
    lane.stage([(2, 2)])
    return {
        "zeros": lambda: backend.zeros(3, np.float32),
        "copy": lambda: backend.copy(square, other),
        "copy from the host": lambda: backend.copy(np.ones((2, 2), np.float32), other),
        "launch": lambda: backend.bias_activation_forward(square, None, gpunet.ReLU(), other),
        "gemm": lambda: backend.gemm(square, square, other),
        "replay": replay,
        "to_numpy": lambda: backend.to_numpy(square),
        "event": backend.device.record_event,
        "lane": lambda: backend.device.copy_lane([(2, 2)], [np.float32]),
        "send": lane.send,
        "receive": lambda: lane.receive([other]),
    }


def test_every_operation_holds_the_streams_lock(backend: CudaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread's operation would become part of a recording, or overwrite what was staged."""
    owned: list[bool] = []
    resources: Any = backend.device._resources  # type: ignore[attr-defined]

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            owned.append(resources.lock._is_owned())
            return function(*arguments)

        return call

    asked = operations(backend)
    monkeypatch.setattr(fake_cupy.Stream, "submit", watched(fake_cupy.Stream.submit))
    monkeypatch.setattr(resources.staging, "stage", watched(resources.staging.stage))
    for name, operation in asked.items():
        owned.clear()
        operation()
        assert owned, name
        assert all(owned), name


def test_nothing_is_destroyed_at_the_end_of_the_process(backend: CudaBackend) -> None:
    """The driver may have gone by then."""
    resources: Any = backend.device._resources  # type: ignore[attr-defined]
    finalizers = [one for one in weakref.finalize._registry if (one.peek() or [None])[0] is resources]
    assert [one.atexit for one in finalizers] == [False]


def test_threads_have_streams_of_their_own(cupy: Any) -> None:
    streams = [cupy_device.CupyDevice(0)._stream]
    thread = threading.Thread(target=lambda: streams.append(cupy_device.CupyDevice(0)._stream))
    thread.start()
    thread.join()
    assert streams[0] is not streams[1]


def test_two_threads_compile_a_module_once(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_module, compiled = cupy.RawModule, []

    def slow(**arguments: Any) -> Any:
        compiled.append(1)
        time.sleep(0.1)  # long enough for the others to come here, were they let in
        return compile_module(**arguments)

    def work() -> None:
        backend = CudaBackend(cupy_device.CupyDevice(0))
        x = backend.zeros((2, 2), np.float32)
        backend.bias_activation_forward(x, None, gpunet.ReLU(), x)
        backend.synchronize()

    monkeypatch.setattr(cupy, "RawModule", slow)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(compiled) == 1


def test_each_kernel_is_allowed_its_shared_memory(backend: CudaBackend, cupy: Any) -> None:
    for dtype, columns in ((np.float32, 12_200), (np.float64, 6_100)):
        logits, labels = backend.zeros((2, columns), dtype), backend.zeros(2, np.int32)
        loss = backend.zeros(2, dtype)
        backend.softmax_cross_entropy(logits, labels, None, backend.zeros((2, columns), dtype), loss)
        np.testing.assert_allclose(backend.to_numpy(loss)[0], np.log(columns), rtol=1e-6)
    assert [size for _, size in cupy.attributes] == [48_800, 48_800]  # with static variables beyond 48 KiB


# --- recordings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["launch", "gemm", "copy"])
def test_a_recording_keeps_what_it_reads(backend: CudaBackend, operation: str) -> None:
    out = backend.zeros((3, 7), np.float64)

    def record() -> tuple[Callable[[], None], Any]:
        a, b, c = (RNG.standard_normal(shape) for shape in ((3, 5), (5, 7), (3, 7)))
        there = backend.asarray(a), backend.asarray(b), backend.asarray(c)
        steps = {
            "launch": (lambda: backend.bias_activation_forward(there[2], None, gpunet.Tanh(), out), np.tanh(c)),
            "gemm": (lambda: backend.gemm(there[0], there[1], out), a @ b),
            "copy": (lambda: backend.copy(there[2], out), c),
        }
        step, expected = steps[operation]
        step()  # compiled before it is recorded
        return backend.capture(step), expected

    replay, expected = record()
    gc.collect()
    backend.copy(np.zeros((3, 7)), out)
    replay()
    np.testing.assert_allclose(backend.to_numpy(out), expected, rtol=1e-13, atol=1e-13)
    assert not backend.launcher.is_recording


def test_the_collector_stays_as_it_was(backend: CudaBackend) -> None:
    there = backend.zeros(3, np.float32)
    gc.disable()
    try:
        backend.capture(lambda: backend.copy(there, there))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_collector_does_not_wait_for_the_stand_in_within_an_operation(cupy: Any) -> None:
    """It would run the later operations in the middle of an earlier one."""
    stream, order = fake_cupy.Stream(non_blocking=True), []

    class Cycle:
        def __init__(self) -> None:
            self.itself = self
            weakref.finalize(self, fake_cupy.Stream.wait_for_device)

    def first() -> None:
        Cycle()
        kept = [[] for _ in range(10 * gc.get_threshold()[0])]
        order.append(("first", len(kept)))

    stream.submit(first)
    stream.submit(lambda: order.append(("second", 0)))
    stream.synchronize()
    assert [name for name, _ in order] == ["first", "second"]


def test_what_is_destroyed_while_recording_is_destroyed_once_and_in_order() -> None:
    recorder, destroyed = Recorder(), []
    for _ in range(2):
        with recorder.recording():
            recorder.destroy(lambda: destroyed.append(1), lambda: destroyed.append(2))
            recorder.destroy(lambda: destroyed.append(3))
            assert destroyed == []
        assert destroyed == [1, 2, 3]
        destroyed.clear()
        with recorder.recording():
            pass
        assert destroyed == []


def test_one_thread_records_or_destroys_at_a_time() -> None:
    recorder, events = Recorder(), []

    def work(name: str, action: Callable[[Callable[[], None]], None]) -> None:
        action(lambda: events.append(name))

    def record(mark: Callable[[], None]) -> None:
        with recorder.recording():
            mark()

    threads = [
        threading.Thread(target=work, args=("record", record)),
        threading.Thread(target=work, args=("destroy", recorder.destroy)),
    ]
    with recorder.recording():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(0.05)
        events.append("mine ends")
    for thread in threads:
        thread.join()
    assert events[0] == "mine ends"
    assert sorted(events[1:]) == ["destroy", "record"]


def test_a_recording_waits_for_a_destruction() -> None:
    recorder, events, begun = Recorder(), [], threading.Event()

    def slow() -> None:
        begun.set()
        time.sleep(0.1)  # long enough for a recording to begin, were it let in
        events.append("destroyed")

    thread = threading.Thread(target=recorder.destroy, args=(slow,))
    thread.start()
    begun.wait()
    with recorder.recording():
        events.append("recorded")
    thread.join()
    assert events == ["destroyed", "recorded"]


# --- two devices ------------------------------------------------------------------------------------------------------


def test_two_devices_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its kernels, stream and handle, whichever the user has made current."""
    cupy = fake_cupy.FakeCupy(EmulatedDevice(multiprocessor_count=4, compute_capability=(8, 0)), devices=2)
    fake_cupy.install(monkeypatch, cupy)
    X, y = RNG.standard_normal((70, 9)), RNG.integers(0, 4, 70)
    parameters = []
    for device in ("cpu", *(CudaBackend(cupy_device.CupyDevice(index)) for index in (1, 0, 1))):
        network = gpunet.Network([9, 21, 4], batch_norm=True, seed=1, dtype="float64", device=device)
        gpunet.fit(network, X, y, epochs=2, batch_size=16)
        parameters.append(network.get_parameters())
        if device != "cpu":
            index: int = device.device.index  # type: ignore[union-attr]
            assert network.device == f"cuda:{index}"
            assert device.device.multiprocessor_count == 4 + index  # type: ignore[union-attr]
            assert device.zeros(1, np.float64).device.id == index  # type: ignore[union-attr]
    for found in parameters[1:]:
        for name, values in parameters[0].items():
            np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-11, err_msg=name)


def test_a_device_that_is_not_there(cupy: Any) -> None:
    with pytest.raises(gpunet.DeviceError, match="no device cuda:1: this machine has cuda:0 to cuda:0"):
        cupy_device.CupyDevice(1)
