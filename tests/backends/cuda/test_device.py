"""The device over CuPy, with a stand-in for CuPy: order of operations, races, errors. And the choice of a backend."""

from __future__ import annotations

import ctypes
import functools
import gc
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends import NumpyBackend, select_backend, selection
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices import cupy as cupy_device
from gpunet.backends.devices import resources
from gpunet.backends.devices.cublas import WORKSPACE_BYTES, Cublas, load_cublas
from gpunet.backends.devices.device import Device, KernelCompileError
from gpunet.backends.devices.probe import GpuReport
from gpunet.backends.devices.staging import SEGMENTS, StagingRing
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy
from tests.helpers.cuda import on_device


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    fake_cupy.begin_process(monkeypatch)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> fake_cupy.FakeCupy:
    """A stand-in for CuPy with one device, which the device under test imports."""
    # Compute capability 8.0: the size of a cluster is compiled in, which only a real device can see.
    cupy = fake_cupy.FakeCupy(EmulatedDevice(multiprocessor_count=4, compute_capability=(8, 0)))
    fake_cupy.install(monkeypatch, cupy)
    return cupy


@pytest.fixture
def backend(cupy: fake_cupy.FakeCupy) -> CudaBackend:
    return CudaBackend(cupy_device.CupyDevice(0))


def test_every_name_exists_in_cupy() -> None:
    real = pytest.importorskip("cupy")
    for name in fake_cupy.NAMES:
        functools.reduce(getattr, name.split("."), real)


@pytest.mark.parametrize("implementation", [EmulatedDevice, cupy_device.CupyDevice])
@pytest.mark.parametrize("name", [name for name, _ in inspect.getmembers(Device, inspect.isfunction) if name[0] != "_"])
def test_devices_have_the_methods_of_the_seam(implementation: type, name: str) -> None:
    """With the same parameters in the same order; more may follow if they have defaults."""
    expected = list(inspect.signature(getattr(Device, name)).parameters.values())
    found = list(inspect.signature(getattr(implementation, name)).parameters.values())
    assert [(p.name, p.default) for p in found[: len(expected)]] == [(p.name, p.default) for p in expected]
    assert all(parameter.default is not parameter.empty for parameter in found[len(expected) :])


def test_describes_the_device(cupy: fake_cupy.FakeCupy) -> None:
    device = cupy_device.CupyDevice(0)
    assert (device.name, device.model) == ("cuda:0", "NVIDIA Fake")
    assert device.compute_capability == (8, 0)
    assert device.max_cluster_size == 1
    assert device.multiprocessor_count == 4


def test_what_the_driver_says_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "multiProcessorCount": "multiprocessor_count",
        "maxThreadsPerMultiProcessor": "threads_per_multiprocessor",
        "sharedMemPerBlockOptin": "shared_memory_per_block",
        "sharedMemPerMultiprocessor": "shared_memory_per_multiprocessor",
        "l2CacheSize": "l2_bytes",
    }
    properties = {name: number for number, name in enumerate(names)}
    fake_cupy.install(monkeypatch, fake_cupy.FakeCupy(EmulatedDevice(), properties=properties))
    device = cupy_device.CupyDevice(0)
    assert {name: getattr(device, attribute) for name, attribute in names.items()} == properties


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_network_trains_as_on_numpy(backend: CudaBackend, batch_norm: bool, weighted: bool) -> None:
    """Every operation runs late: a copy that read overwritten host memory would give another network."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((70, 9)), rng.integers(0, 4, 70)
    weights = rng.uniform(0.1, 2, 70) if weighted else None
    networks = []
    for device in (backend, "cpu"):
        network = gpunet.Network([9, 21, 4], batch_norm=batch_norm, dropout=0.2, seed=1, dtype="float64", device=device)
        optimizer = gpunet.SGD(gpunet.CyclicalRate(0.01, 0.2, 6), momentum=0.9)
        fit = {"optimizer": optimizer, "epochs": 6, "batch_size": 16, "l2": 1e-3, "clip_norm": 0.5}
        gpunet.fit(network, X, y, validation=(X, y), sample_weight=weights, **fit)
        networks.append(network)
    assert networks[0].device == "cuda:0"
    found, expected = (network.get_parameters() for network in networks)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-11, err_msg=name)


def test_more_blocks_than_fit_together_are_refused(backend: CudaBackend) -> None:
    """As where a process may use a part of the multiprocessors only."""
    network = gpunet.Network([9, 21, 4], batch_norm=True, device=backend)
    x, labels = backend.zeros((320, 9), np.float32), backend.zeros(320, np.int32)
    assert network.narrow_stack(320) is None  # four multiprocessors
    stack = network.narrow_stack(256)
    vectors = network.flat_parameters, network.flat_state, network.flat_gradients
    with pytest.raises(gpunet.DeviceError, match=r"launching narrow_pass<.*exceeds the limit \(4\)"):
        backend.narrow_pass(x, labels, stack, *vectors, network.loss_layer.value)


def test_blocks_that_meet_are_launched_together(backend: CudaBackend) -> None:
    """A narrow network's pass, recorded too: as cuLaunchCooperativeKernel, of three blocks."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 9)), rng.integers(0, 4, 300)
    backend.has_narrow_passes = True
    found, expected = (
        gpunet.Network([9, 21, 4], batch_norm=True, seed=1, dtype="float32", device=device)
        for device in (backend, "cpu")
    )
    for network in (found, expected):
        gpunet.fit(network, X, y, epochs=3, batch_size=150)
    assert found.narrow_stack(150) is not None
    for name, values in expected.get_parameters().items():
        np.testing.assert_allclose(found.get_parameters()[name], values, rtol=1e-4, atol=2e-5, err_msg=name)


def test_files_are_compiled_at_the_same_time_and_each_once(
    cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, compile_, together, compiled = cupy_device.CupyDevice(0), cupy.RawModule, threading.Barrier(2), []

    def both(code: str, **more: Any) -> Any:
        together.wait(timeout=30)
        compiled.append(code)
        return compile_(code=code, **more)

    monkeypatch.setattr(cupy, "RawModule", both)
    sources = [f"__global__ void {name}(int* x) {{ x[0] = 1; }}" for name in "ab"]
    loads = [
        threading.Thread(target=device.load, args=(source, (), (name,), "file.cu"))
        for source, name in zip(sources, "ab", strict=True)
        for _ in range(2)
    ]
    for thread in loads:
        thread.start()
    for thread in loads:
        thread.join()
    assert sorted(compiled) == sources


# --- memory -----------------------------------------------------------------------------------------------------------


# 60,000 go round the ring, a segment at a time; the next two are more than a segment.
@pytest.mark.parametrize("elements", [1, 1000, 60_000, 100_000, 200_000])
def test_host_memory_may_be_overwritten_after_a_copy(backend: CudaBackend, elements: int) -> None:
    value = np.zeros(elements, np.float32)
    there = [backend.zeros(elements, np.float32) for _ in range(40)]
    for number, array in enumerate(there):
        value[:] = number
        backend.copy(value, array)
        value[:] = -1
    for number, array in enumerate(there):
        np.testing.assert_array_equal(backend.to_numpy(array), number)


def test_staging_ring_waits_before_it_overwrites() -> None:
    """Copies are done only when an event after them is waited for, as late as can be."""
    memory = np.zeros(SEGMENTS * 256, np.uint8)
    pending: list[tuple[int, int]] = []
    waits = []

    class LateEvent:
        recorded = 0

        def record(self) -> None:
            self.recorded = len(done) + len(pending)

        def synchronize(self) -> None:
            waits.append(self.recorded)
            while len(done) < self.recorded:
                address, expected = pending.pop(0)
                offset = address - memory.ctypes.data
                done.append(int(memory[offset : offset + 8].view(np.int64)[0]) == expected)

    done: list[bool] = []
    ring = StagingRing(memory, LateEvent)
    value = np.zeros(1, np.int64)
    for number in range(1, 200):
        value[0] = number
        pending.append((ring.stage(value), number))
    assert len(done) > 100
    assert all(done)
    assert (SEGMENTS - 1) * 4 <= len(pending) <= SEGMENTS * 4  # waits for the oldest only


def test_staging_ring_takes_a_whole_segment() -> None:
    memory = np.zeros(SEGMENTS * 256, np.uint8)
    ring = StagingRing(memory, lambda: SimpleNamespace(record=lambda: None, synchronize=lambda: None))
    whole = np.arange(256, dtype=np.uint8)
    addresses = [ring.stage(whole) - memory.ctypes.data for _ in range(SEGMENTS + 1)]
    assert addresses == [0, 256, 512, 768, 0]


def test_out_of_memory_says_how_much(backend: CudaBackend, cupy: fake_cupy.FakeCupy) -> None:
    cupy.free = 1000
    with pytest.raises(gpunet.OutOfDeviceMemoryError, match="no room for 8,000 bytes: 1,000 of 1,073,741,824 are"):
        backend.zeros((10, 100), np.float64)
    with pytest.raises(MemoryError):
        backend.empty(1000, np.float64)


def test_arrays_elsewhere_are_refused(backend: CudaBackend) -> None:
    there = backend.zeros((4, 4), np.float32)
    elsewhere: Any = fake_cupy.ndarray(np.zeros((4, 4), np.float32), device=1)
    for wrong, message in ((np.zeros((4, 4), np.float32), "of the host"), (elsewhere, "on cuda:1")):
        with pytest.raises(gpunet.InvalidTypeError, match=message):
            backend.bias_activation_forward(wrong, None, gpunet.ReLU(), there)
        with pytest.raises(gpunet.InvalidTypeError, match=message):
            backend.gemm(there, wrong, there)
        with pytest.raises(gpunet.InvalidTypeError, match=message):
            backend.to_numpy(wrong)
    for use in (lambda: backend.copy(elsewhere, there), lambda: backend.asarray(elsewhere)):
        with pytest.raises(gpunet.InvalidTypeError, match="on cuda:1"):
            use()
    gaps: Any = fake_cupy.ndarray(np.zeros((4, 8), np.float32)[:, ::2])
    for use in (
        lambda: backend.copy(gaps, there),
        lambda: backend.asarray(gaps),
        lambda: backend.gemm(there, there, gaps),
        lambda: backend.bias_activation_forward(gaps, None, gpunet.ReLU(), there),
    ):
        with pytest.raises(gpunet.InvalidTypeError, match="a view with gaps"):
            use()
    with pytest.raises(ValueError, match="copy of"):
        backend.copy(np.zeros(3, np.float32), there)


def test_asarray(backend: CudaBackend) -> None:
    values = np.arange(12.0).reshape(3, 4)
    there = backend.asarray(values.T)
    np.testing.assert_array_equal(backend.to_numpy(there), values.T)
    assert backend.asarray(there) is there


# --- launches and capture ---------------------------------------------------------------------------------------------


def test_large_shared_memory_is_asked_for_once(backend: CudaBackend, cupy: fake_cupy.FakeCupy) -> None:
    columns = 12_000
    logits, labels = backend.zeros((2, columns), np.float32), backend.zeros(2, np.int32)
    gradient, loss = backend.zeros((2, columns), np.float32), backend.zeros(2, np.float32)
    for _ in range(2):
        backend.softmax_cross_entropy(logits, labels, None, gradient, loss)
    assert [size for _, size in cupy.attributes] == [4 * columns]
    np.testing.assert_allclose(backend.to_numpy(loss), [np.log(columns), 2], rtol=1e-6)


@pytest.mark.parametrize("size", [32 * 1024, 48 * 1024 - 256, 48 * 1024, 64 * 1024])
@pytest.mark.parametrize("more", [-4, 0, 4])
def test_a_row_around_what_the_driver_gives_without_asking(backend: CudaBackend, size: int, more: int) -> None:
    """The driver counts the kernel's static shared memory too."""
    columns = (size + more) // 4
    logits, labels = backend.zeros((1, columns), np.float32), backend.zeros(1, np.int32)
    gradient, loss = backend.zeros((1, columns), np.float32), backend.zeros(2, np.float32)
    backend.softmax_cross_entropy(logits, labels, None, gradient, loss)
    np.testing.assert_allclose(backend.to_numpy(loss), [np.log(columns), 1], rtol=1e-6)


FORBIDDEN: dict[str, Callable[[Any, Any], Any]] = {
    "allocation": lambda device, there: device.empty(3, np.float32),
    "reading an array": lambda device, there: device.to_numpy(there),
    "a copy from the host": lambda device, there: device.copy(there, np.zeros(3, np.float32)),
    "taking an array": lambda device, there: device.take("X", there),
    "giving an array away": lambda device, there: device.give(there, there),
    "an array expression": lambda device, there: device.array_module().__enter__(),
    "waiting": lambda device, there: device.synchronize(),
    "an event": lambda device, there: device.record_event(),
    "another capture": lambda device, there: device.capture(lambda: None),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_refused_while_capturing(backend: CudaBackend, what: str) -> None:
    device, there = backend.device, backend.zeros(3, np.float32)
    with pytest.raises(gpunet.DeviceError, match=f"{what} is not possible while a step is captured"):
        device.capture(lambda: FORBIDDEN[what](device, there))
    backend.copy(np.ones(3, np.float32), there)  # the stream works on
    np.testing.assert_array_equal(backend.to_numpy(there), 1)


def test_networks_share_compiled_kernels(cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, compile_module = [], cupy.RawModule
    monkeypatch.setattr(cupy, "RawModule", lambda **arguments: compiled.append(1) or compile_module(**arguments))
    for _ in range(3):
        backend = CudaBackend(cupy_device.CupyDevice(0))
        x = backend.zeros((4, 4), np.float32)
        backend.bias_activation_forward(x, None, gpunet.ReLU(), x)
    assert len(compiled) == 1


def test_networks_of_a_thread_share_its_streams_and_handles(cupy: fake_cupy.FakeCupy) -> None:
    handles = fake_cupy.FakeCublas.handles
    devices = {id(cupy_device.CupyDevice(0)._stream) for _ in range(200)}
    assert len(devices) == 1
    assert fake_cupy.FakeCublas.handles == handles + 2
    device = cupy_device.CupyDevice(0)
    assert cupy.allocations == [(WORKSPACE_BYTES, device._stream)] * 2
    opened = device._resources.blas._library.open.values()
    assert [handle.workspace_bytes for handle in opened] == [WORKSPACE_BYTES] * 2
    assert [handle.stream for handle in opened] == [device._stream.ptr, device._resources.side_stream.ptr]
    assert len({handle.workspace for handle in opened}) == 2


def test_what_a_thread_had_goes_with_it(cupy: fake_cupy.FakeCupy) -> None:
    """Pending operations end before the stream, whose free memory nothing else could use."""
    gc.collect()
    handles = fake_cupy.FakeCublas.handles
    there, streams = [], []

    def work() -> None:
        device = cupy_device.CupyDevice(0)
        streams.append(device._stream)
        there.append(device.zeros(3, np.float32))
        device.copy(there[0], np.ones(3, np.float32))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    gc.collect()
    np.testing.assert_array_equal(there[0].values, 1)
    assert fake_cupy.FakeCublas.handles == handles
    assert cupy.freed_streams == streams
    assert cupy_device.CupyDevice(0)._stream not in streams


def test_a_second_network_with_less_shared_memory_leaves_the_first_what_it_was_allowed(cupy: Any) -> None:
    """The driver keeps one limit for each kernel, and the networks of a process share the kernels."""
    losses = []
    backends = [CudaBackend(cupy_device.CupyDevice(0)) for _ in range(2)]
    for backend, columns in zip([*backends, *backends], [13_000, 16_000, 13_000, 16_000], strict=True):
        logits, labels = backend.zeros((2, columns), np.float32), backend.zeros(2, np.int32)
        gradient, loss = backend.zeros((2, columns), np.float32), backend.zeros(2, np.float32)
        backend.softmax_cross_entropy(logits, labels, None, gradient, loss)
        losses.append(backend.to_numpy(loss)[0])
    np.testing.assert_allclose(losses, np.log([13_000, 16_000, 13_000, 16_000]), rtol=1e-6)


def test_garbage_with_a_handle_does_not_end_a_recording(
    backend: CudaBackend, cupy: fake_cupy.FakeCupy, caplog: pytest.LogCaptureFixture
) -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self
            self.held = resources.StreamResources(cupy, (8, 0))

        def __del__(self) -> None:
            fake_cupy.Stream.wait_for_device()  # as other libraries' objects may, of which gpunet knows nothing

    there, handles = backend.zeros(3, np.float32), fake_cupy.FakeCublas.handles
    source = backend.asarray(np.ones(3, np.float32))
    garbage = [Cycle()]

    def step() -> None:
        garbage.clear()
        thresholds = gc.get_threshold()
        gc.set_threshold(1, 1, 1)
        kept = [[number] for number in range(1000)]  # enough to call the collector, were it on
        gc.set_threshold(*thresholds)
        del kept
        resources.RECORDER.destroy(fake_cupy.Stream.wait_for_device)  # what this thread itself destroys
        backend.copy(source, there)

    backend.capture(step)()
    np.testing.assert_array_equal(backend.to_numpy(there), 1)
    assert not caplog.text
    assert gc.isenabled()
    gc.collect()
    assert fake_cupy.FakeCublas.handles == handles


def test_another_thread_waits_until_a_recording_has_ended(backend: CudaBackend) -> None:
    there, other = backend.zeros(3, np.float32), backend.zeros(3, np.float32)
    ones, twos = (backend.asarray(np.full(3, value, np.float32)) for value in (1, 2))
    thread = threading.Thread(target=lambda: backend.copy(twos, other))

    def step() -> None:
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        backend.copy(ones, there)

    replay = backend.capture(step)
    thread.join()
    np.testing.assert_array_equal(backend.to_numpy(other), 2)
    backend.copy(ones, other)
    replay()  # has the copy into `there`, and no other
    np.testing.assert_array_equal(backend.to_numpy(there), 1)
    np.testing.assert_array_equal(backend.to_numpy(other), 1)


@pytest.mark.parametrize("fails", ["during the step", "at its end", "at the upload"])
def test_training_goes_on_where_recording_is_refused(
    fails: str, cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begin_capture, end_capture = fake_cupy.Stream.begin_capture, fake_cupy.Stream.end_capture

    def invalid_from_the_start(stream: fake_cupy.Stream) -> None:
        begin_capture(stream)
        stream.invalidated = True

    def invalid_at_the_end(stream: fake_cupy.Stream) -> Any:
        stream.invalidated = True
        return end_capture(stream)

    def refused(graph: Any, stream: Any) -> None:
        raise fake_cupy.CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")

    replaced = {
        "during the step": (fake_cupy.Stream, "begin_capture", invalid_from_the_start),
        "at its end": (fake_cupy.Stream, "end_capture", invalid_at_the_end),
        "at the upload": (fake_cupy.Graph, "upload", refused),
    }
    monkeypatch.setattr(*replaced[fails])
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 9)), rng.integers(0, 4, 50)
    found = []
    for device in (CudaBackend(cupy_device.CupyDevice(0)), "cpu"):
        network = gpunet.Network([9, 21, 4], dropout=0.2, seed=1, dtype="float64", device=device)
        history = gpunet.fit(network, X, y, epochs=3, batch_size=16, optimizer=gpunet.Adam(0.01))
        found.append((network.get_parameters(), network.steps, history["loss"]))
    (parameters, steps, losses), (expected, expected_steps, expected_losses) = found
    assert steps == expected_steps
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-11)
    for name, values in expected.items():
        np.testing.assert_allclose(parameters[name], values, rtol=0, atol=1e-11, err_msg=name)
    assert caplog.text.count("training steps are not recorded") == 1


def test_an_error_of_the_step_itself_is_not_taken_for_a_refused_recording(backend: CudaBackend) -> None:
    def step() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        backend.capture(step)


@pytest.mark.parametrize("waits", ["to_numpy", "synchronize"])
@pytest.mark.parametrize("last", ["a matrix product", "a recorded step", "bias_activation_forward<float, relu_"])
def test_errors_of_the_driver_are_device_errors(
    backend: CudaBackend, monkeypatch: pytest.MonkeyPatch, last: str, waits: str
) -> None:
    def fail(stream: fake_cupy.Stream) -> None:
        raise fake_cupy.CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    x, y = backend.zeros((2, 2), np.float32), backend.zeros((2, 2), np.float32)
    replay = backend.capture(lambda: backend.copy(x, y))
    operations = {
        "bias_activation_forward<float, relu_": lambda: backend.bias_activation_forward(x, None, gpunet.ReLU(), y),
        "a matrix product": lambda: backend.gemm(x, x, y),
        "a recorded step": replay,
    }
    good = next(name for name in operations if name != last)
    operations[good]()
    backend.to_numpy(x) if waits == "to_numpy" else backend.synchronize()
    operations[last]()
    monkeypatch.setattr(fake_cupy.Stream, "synchronize", fail)
    with pytest.raises(gpunet.DeviceError, match="cudaErrorIllegalAddress") as caught:
        backend.synchronize()
    assert f"last one asked for is {last}" in str(caught.value)
    assert f"known to have succeeded is {good}" in str(caught.value)
    assert "restart" in str(caught.value)


def test_a_refused_launch_names_the_kernel(backend: CudaBackend, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.device, "_allow_shared_memory", lambda kernel, size: None)
    logits, labels = backend.zeros((2, 16_000), np.float32), backend.zeros(2, np.int32)
    with pytest.raises(gpunet.DeviceError, match=r"launching softmax_cross_entropy.*: CUDA_ERROR_INVALID_VALUE"):
        backend.softmax_cross_entropy(
            logits, labels, None, backend.zeros((2, 16_000), np.float32), backend.zeros(2, np.float32)
        )


def test_missing_cuda_headers_say_how_to_get_them(backend: CudaBackend, cupy: Any, monkeypatch: Any) -> None:
    def no_headers(**arguments: Any) -> Any:
        raise RuntimeError("Failed to find CUDA headers. Please install the CUDA toolkit headers.")

    x = backend.zeros((2, 2), np.float32)
    monkeypatch.setattr(cupy, "RawModule", no_headers)
    with pytest.raises(gpunet.DeviceError, match=r"activation\.cu.*headers\. Headers .*pip install 'gpunet\[cuda12\]'"):
        backend.bias_activation_forward(x, None, gpunet.ReLU(), x)


def test_time_between_events(backend: CudaBackend) -> None:
    start = backend.device.record_event()
    kept = [backend.zeros(2, np.float32) for _ in range(3)]
    stop = backend.device.record_event()
    assert backend.device.elapsed(start, stop) == pytest.approx((len(kept) + 1) / 1000)  # a millisecond each


def test_compiler_errors_name_file_and_device(backend: CudaBackend) -> None:
    with pytest.raises(KernelCompileError, match=r"broken\.cu does not compile for NVIDIA Fake"):
        backend.device.load("this is no C++", (), ("kernel",), "broken.cu")


# --- cuBLAS -----------------------------------------------------------------------------------------------------------


def new_blas(library: Any) -> Cublas:
    return Cublas(library, fake_cupy.Stream(non_blocking=True), SimpleNamespace(ptr=0x1000), 4096)


def test_workspace_is_set_after_the_stream() -> None:
    """Setting the stream would take the workspace away."""
    library = fake_cupy.FakeCublas()
    stream = new_blas(library).stream
    assert library.calls == ["stream", "workspace"]
    assert [handle.stream for handle in library.open.values()] == [stream.ptr]


def multiply(a: Any, b: Any, out: Any, *flags: bool) -> None:
    """Write a product of host matrices into ``out``."""
    blas = new_blas(fake_cupy.FakeCublas())
    blas.gemm(*map(fake_cupy.ndarray, (a, b, out)), *flags)
    blas.stream.synchronize()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
def test_row_major_operands(transpose_a: bool, transpose_b: bool, accumulate: bool, dtype: str) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((5, 3) if transpose_a else (3, 5)).astype(dtype)
    b = rng.standard_normal((7, 5) if transpose_b else (5, 7)).astype(dtype)
    out = np.full((3, 7), 2.0, np.float32 if dtype == "float16" else dtype)
    expected = (a.T if transpose_a else a).astype(float) @ (b.T if transpose_b else b) + (2 if accumulate else 0)
    multiply(a, b, out, transpose_a, transpose_b, accumulate)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_one_row_and_one_column() -> None:
    row, column = np.arange(5.0).reshape(1, 5), np.arange(5.0).reshape(5, 1)
    small, large = np.full((1, 1), np.nan), np.full((5, 5), np.nan)
    multiply(row, column, small)
    multiply(column, row, large)
    np.testing.assert_array_equal(small, row @ column)
    np.testing.assert_array_equal(large, column @ row)


@pytest.mark.parametrize(
    ("dtype", "precision", "compute"),
    [("float32", "float32", 68), ("float32", "tf32", 77), ("float64", "tf32", 70), ("float16", "tf32", 68)],
)
def test_precision(dtype: str, precision: str, compute: int) -> None:
    library = fake_cupy.FakeCublas()
    matrix, out = fake_cupy.ndarray(np.ones((2, 2), dtype)), fake_cupy.ndarray(np.zeros((2, 2), dtype))
    blas = new_blas(library)
    blas.gemm(matrix, matrix, out, precision=precision)
    blas.stream.synchronize()
    assert library.computes == [compute]


def test_gemm_refuses_what_does_not_fit() -> None:
    blas = new_blas(fake_cupy.FakeCublas())
    a, b = (fake_cupy.ndarray(np.zeros((2, 3), dtype)) for dtype in (np.float32, np.float64))
    with pytest.raises(ValueError, match="after transposition"):
        blas.gemm(a, a, a)
    with pytest.raises(ValueError, match=r"into \(2, 3\), after transposition"):
        blas.gemm(a, a, a, transpose_b=True)
    with pytest.raises(ValueError, match="gemm of float32 by float64"):
        blas.gemm(a, b, fake_cupy.ndarray(np.zeros((2, 2), np.float32)), transpose_b=True)
    with pytest.raises(ValueError, match="gemm of float32 by float32 into float64"):
        blas.gemm(a, a, fake_cupy.ndarray(np.zeros((2, 2))), transpose_b=True)
    with pytest.raises(ValueError, match="precision"):
        blas.gemm(a, a, fake_cupy.ndarray(np.zeros((2, 2), np.float32)), transpose_b=True, precision="fp8")


@pytest.mark.skipif(sys.platform == "win32", reason="the library has another name there")
@pytest.mark.parametrize("major", [12, 13])
def test_cublas_is_that_of_cupys_cuda(major: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wheels of two CUDA versions lie side by side, and CuPy's tool finds the newer."""
    found = {12: tmp_path / "nvidia/cublas/lib/libcublas.so.12", 13: tmp_path / "nvidia/cu13/lib/libcublas.so.13"}
    for path in found.values():
        path.parent.mkdir(parents=True)
        path.touch()
    pathfinder = SimpleNamespace(load_nvidia_dynamic_lib=lambda name: SimpleNamespace(abs_path=str(found[13])))
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(pathfinder=pathfinder))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", pathfinder)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: path)
    cupy = fake_cupy.FakeCupy(EmulatedDevice())
    cupy.cuda.runtime.runtimeGetVersion = lambda: major * 1000 + 20
    assert load_cublas(cupy) == str(found[major])


def test_cublas_of_another_cuda_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = fake_cupy.FakeCupy(EmulatedDevice())
    cupy.cuda.runtime.runtimeGetVersion = lambda: 77_000
    with pytest.raises(gpunet.DeviceError, match=r"cuBLAS of CUDA 77 cannot be loaded: .*libcublas\.so\.77"):
        load_cublas(cupy)


def test_cublas_errors_are_raised() -> None:
    library = fake_cupy.FakeCublas()
    with pytest.raises(gpunet.DeviceError, match="cublasSetWorkspace failed with status 7: invalid value"):
        Cublas(library, SimpleNamespace(ptr=0), SimpleNamespace(ptr=0x1001), 4096)


@pytest.mark.parametrize("function", ["cublasCreate", "cublasSetStream", "cublasSetWorkspace", "cublasGemmEx"])
def test_the_status_of_every_call_is_looked_at(function: str) -> None:
    library = fake_cupy.FakeCublas()
    matrix = fake_cupy.ndarray(np.ones((2, 2)))
    for status, meaning in ((13, "the operation failed"), (1, "the library is not initialised")):
        library.fails = {function: status, f"{function}_v2": status}
        with pytest.raises(gpunet.DeviceError, match=f"{function} failed with status {status}: {meaning}"):
            new_blas(library).gemm(matrix, matrix, fake_cupy.ndarray(np.ones((2, 2))))


# --- which backend ----------------------------------------------------------------------------------------------------


def report(**changes: Any) -> GpuReport:
    return GpuReport(**({"driver_cuda": (13, 0), "devices": ("NVIDIA A", "NVIDIA B"), "cupy": "14.2.0"} | changes))


def test_cuda_by_index(cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "probe_gpu", report)
    assert select_backend("cuda").device_name == "cuda:0"
    assert select_backend("auto").device_name == "cuda:0"


@pytest.mark.parametrize(
    ("changes", "device", "message"),
    [
        ({"driver_cuda": None, "devices": ()}, "cuda", "no NVIDIA driver"),
        ({"devices": ()}, "cuda", "no device"),
        ({"driver_cuda": (11, 8)}, "cuda", "CuPy needs a driver for CUDA 12 or newer"),
        ({"cupy": None}, "cuda", r"pip install 'gpunet\[cuda13\]'"),
        ({"cupy": None, "driver_cuda": (12, 4)}, "cuda:0", r"pip install 'gpunet\[cuda12\]'"),
        ({"cupy": "13.4.1"}, "cuda", "CuPy 13.4.1 is installed, and gpunet needs 14 or newer"),
        ({}, "cuda:2", r"this machine has cuda:0 \(NVIDIA A\), cuda:1 \(NVIDIA B\)"),
    ],
)
def test_what_is_missing(monkeypatch: pytest.MonkeyPatch, changes: Any, device: str, message: str) -> None:
    monkeypatch.setattr(selection, "probe_gpu", lambda: report(**changes))
    with pytest.raises(gpunet.DeviceError, match=message):
        select_backend(device)
    if device != "cuda:2":
        assert isinstance(select_backend("auto"), NumpyBackend)


def test_old_device_is_refused(cupy: fake_cupy.FakeCupy) -> None:
    cupy.emulated.compute_capability = (7, 0)
    with pytest.raises(gpunet.DeviceError, match=r"compute capability 7\.0\. Expected at least 7\.5"):
        cupy_device.CupyDevice(0)
    cupy.emulated.compute_capability = (7, 5)
    cupy_device.CupyDevice(0)


def test_auto_takes_the_cpu_where_cuda_does_not_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(selection, "probe_gpu", report)
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert isinstance(select_backend("auto"), NumpyBackend)
    assert "CuPy cannot be imported" in caplog.text


@pytest.mark.parametrize("error", [fake_cupy.CUDARuntimeError, fake_cupy.CUDADriverError])
def test_auto_takes_the_cpu_where_cuda_cannot_open_the_device(
    cupy: fake_cupy.FakeCupy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
) -> None:
    def busy(index: int) -> Any:
        raise error("cudaErrorDevicesUnavailable")

    monkeypatch.setattr(selection, "probe_gpu", report)
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceProperties", busy)
    assert isinstance(select_backend("auto"), NumpyBackend)
    assert "cuda:0 cannot be opened: cudaErrorDevicesUnavailable" in caplog.text
    with pytest.raises(gpunet.DeviceError, match="cuda:0 cannot be opened"):
        select_backend("cuda")


def test_auto_hides_no_mistake_of_ours(cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout whose kernels were not found once trained on the CPU, and one line of a log said so."""

    def mistaken(index: int) -> Any:
        raise ModuleNotFoundError("No module named 'gpunet.kernels'")

    monkeypatch.setattr(selection, "probe_gpu", report)
    monkeypatch.setattr(cupy_device, "CupyDevice", mistaken)
    with pytest.raises(ModuleNotFoundError):
        select_backend("auto")


def test_import_touches_no_cuda() -> None:
    """Also the modules of the CUDA backend can be imported where there is no CuPy."""
    program = (
        "import sys; import gpunet; gpunet.Network([2, 2], device='cpu');"
        "assert 'gpunet.backends.cuda' not in sys.modules;"
        "sys.modules['cupy'] = None; import gpunet.backends.cuda.proof, gpunet.backends.devices.cupy;"
        "assert gpunet.Network([2, 2]).backend.device_name == 'cpu'; assert 'cuda' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_host_array_is_needed_to_reach_a_device(backend: CudaBackend) -> None:
    values = np.random.default_rng(0).standard_normal((6, 5))
    np.testing.assert_array_equal(backend.to_numpy(on_device(backend, values, offset=3)), values)
