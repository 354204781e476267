"""The part of CuPy that :class:`CupyDevice` uses, on a machine without a GPU.

It stands for what matters about the real one: operations on a stream run later, when somebody waits for them, and read
host memory then; a capturing stream records and refuses to wait, and whoever waits for the whole device invalidates
its recording; a kernel has one limit of dynamic shared memory, whoever set it; arrays are not NumPy arrays and give no
access to their elements. Kernels run on the emulated device. That every name used exists in the real CuPy is tested
apart.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpunet.backends.devices import cupy as cupy_device
from gpunet.backends.devices import resources
from tests.emulation import EmulatedDevice, EmulationError

Operation = Callable[[], Any]


class CUDARuntimeError(RuntimeError):
    """A call that the driver would refuse."""


class CUDADriverError(RuntimeError):
    """The same of the driver's own interface."""


class OutOfMemoryError(MemoryError):
    """cupy.cuda.memory.OutOfMemoryError."""


class Stream:
    """A queue of operations that run when someone waits."""

    by_address: dict[int, Stream] = {}  # noqa: RUF012
    current: list[Stream] = []  # noqa: RUF012

    def __init__(self, non_blocking: bool = False) -> None:
        assert non_blocking
        self.ptr = id(self)
        self.by_address[self.ptr] = self
        self.queue: list[Operation] = []
        self.recording: list[Operation] | None = None
        self.invalidated = False

    def __enter__(self) -> Stream:
        self.current.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        assert self.current.pop() is self

    def use(self) -> Stream:
        self.current[:] = [self]
        return self

    def submit(self, operation: Operation) -> None:
        if self.recording is not None and self.invalidated:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a previous error")
        (self.queue if self.recording is None else self.recording).append(operation)

    def synchronize(self) -> None:
        if self.recording is not None:
            raise CUDARuntimeError("operation not permitted when stream is capturing")
        while self.queue:
            self.queue.pop(0)()

    def begin_capture(self) -> None:
        assert self.recording is None
        self.recording, self.invalidated = [], False

    def end_capture(self) -> Graph:
        assert self.recording is not None
        operations, self.recording = self.recording, None
        if self.invalidated:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a previous error")
        return Graph(operations)

    @classmethod
    def wait_for_device(cls) -> None:
        """What cudaDeviceSynchronize does, and cublasDestroy with it."""
        for stream in list(cls.by_address.values()):
            if stream.recording is None:
                stream.synchronize()
            else:
                stream.invalidated = True


class Graph:
    def __init__(self, operations: list[Operation]) -> None:
        self.operations = operations
        self.uploads = 0

    def upload(self, stream: Stream) -> None:
        self.uploads += 1

    def launch(self, stream: Stream) -> None:
        for operation in self.operations:
            stream.submit(operation)


class Event:
    def __init__(self, disable_timing: bool = False) -> None:
        self.stream: Stream | None = None
        self.passed = True

    def record(self, stream: Stream) -> None:
        self.stream, self.passed = stream, False
        stream.submit(self._pass)

    def _pass(self) -> None:
        self.passed = True

    def synchronize(self) -> None:
        while not self.passed:
            assert self.stream is not None
            self.stream.queue.pop(0)()


class Device:
    current: list[int] = []  # noqa: RUF012

    def __init__(self, index: int) -> None:
        self.id = index

    def __enter__(self) -> Device:
        self.current.append(self.id)
        return self

    def __exit__(self, *error: object) -> None:
        self.current.pop()


class ndarray:  # noqa: N801
    """A device array: shape and address, and views of it."""

    def __init__(self, values: Any, device: int = 0) -> None:
        self.values = values
        self.device = Device(device)

    shape = property(lambda self: self.values.shape)
    strides = property(lambda self: self.values.strides)
    dtype = property(lambda self: self.values.dtype)
    ndim = property(lambda self: self.values.ndim)
    size = property(lambda self: self.values.size)
    nbytes = property(lambda self: self.values.nbytes)
    itemsize = property(lambda self: self.values.itemsize)
    flags = property(lambda self: self.values.flags)
    __cuda_array_interface__ = property(lambda self: self.values.__array_interface__)

    @property
    def data(self) -> Any:
        def memset_async(value: int, size: int, stream: Stream) -> None:
            stream.submit(lambda: ctypes.memset(self.values.ctypes.data, value, size))

        return SimpleNamespace(ptr=self.values.ctypes.data, memset_async=memset_async)

    def reshape(self, *shape: Any) -> ndarray:
        return ndarray(self.values.reshape(*shape), self.device.id)

    def __getitem__(self, key: Any) -> ndarray:
        assert isinstance(key, (slice, int, np.integer))
        if isinstance(key, slice):
            return ndarray(self.values[key], self.device.id)
        return ndarray(self.values[key : key + 1].reshape(self.shape[1:]), self.device.id)

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def get(self, stream: Stream) -> Any:
        stream.synchronize()
        return self.values.copy()


class FakeCupy:
    """Stands for the module ``cupy``."""

    __version__ = "14.2.0"
    ndarray = ndarray

    def __init__(self, emulated: EmulatedDevice, devices: int = 1, free: int = 1 << 30) -> None:
        self.emulated = emulated
        self.free = free
        self.attributes: list[tuple[int, int]] = []
        self.allowed: dict[int, int] = {}
        self.allocations: list[int] = []
        self.freed_streams: list[Stream] = []
        self.kernels: dict[int, Any] = {}
        runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            memcpyDefault=4,
            runtimeGetVersion=lambda: 13020,
            driverGetVersion=lambda: 13000,
            getDeviceCount=lambda: devices,
            getDeviceProperties=self._properties,
            memGetInfo=lambda: (self.free, 1 << 30),
            memcpyAsync=self._memcpy_async,
        )
        self.cuda = SimpleNamespace(
            is_available=lambda: devices > 0,
            runtime=runtime,
            driver=SimpleNamespace(
                CUDADriverError=CUDADriverError,
                CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
                funcSetAttribute=self._set_attribute,
            ),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            compiler=SimpleNamespace(CompileException=EmulationError),
            Device=Device,
            Stream=Stream,
            Event=Event,
            alloc=self._allocate,
            alloc_pinned_memory=bytearray,
            get_elapsed_time=lambda start, stop: 1.0,
        )

    def _properties(self, index: int) -> dict[str, Any]:
        emulated = self.emulated
        return {
            "name": b"NVIDIA Fake",
            "major": emulated.compute_capability[0],
            "minor": emulated.compute_capability[1],
            "multiProcessorCount": emulated.multiprocessor_count,
            "sharedMemPerBlockOptin": emulated.shared_memory_per_block,
            "sharedMemPerMultiprocessor": emulated.shared_memory_per_multiprocessor,
            "l2CacheSize": emulated.l2_bytes,
        }

    def _set_attribute(self, kernel: int, attribute: int, value: int) -> None:
        self.attributes.append((kernel, value))
        self.allowed[kernel] = value

    def _allocate(self, size: int) -> Any:
        self.allocations.append(size)
        return SimpleNamespace(ptr=0x1000)

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(free_all_blocks=lambda stream: self.freed_streams.append(stream))

    def _memcpy_async(self, destination: int, source: int, size: int, kind: int, stream: int) -> None:
        assert kind == 4
        Stream.by_address[stream].submit(lambda: ctypes.memmove(destination, source, size))

    def asarray(self, values: Any) -> Any:
        return SimpleNamespace(__array_interface__=values.__cuda_array_interface__)

    def asnumpy(self, values: Any) -> Any:
        return np.array(values)

    def empty(self, shape: Any, dtype: Any) -> ndarray:
        assert Stream.current, "the memory would belong to another stream"
        values = self.emulated.empty(shape, dtype)
        if values.nbytes > self.free:
            raise OutOfMemoryError
        return ndarray(values, Device.current[-1])

    def RawModule(self, code: str, options: tuple[str, ...], name_expressions: tuple[str, ...]) -> Any:
        # Compiled when the first kernel is asked for.
        loaded = functools.cache(lambda: self.emulated.load(code, options, name_expressions, "module.cu"))
        return SimpleNamespace(get_function=lambda name: SimpleNamespace(kernel=self._function(loaded()[name])))

    def _function(self, kernel: Any) -> Any:
        """Return what cupy.cuda.function.Function is."""

        def call(grid: Any, block: Any, args: Any, shared_mem: int = 0, *, stream: Stream) -> None:
            assert isinstance(grid, tuple)
            assert isinstance(block, tuple)
            if shared_mem > self.allowed.get(id(kernel), 48 * 1024):
                raise CUDARuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
            values = [argument.values if isinstance(argument, ndarray) else argument for argument in args]
            stream.submit(lambda: self.emulated.launch(kernel, grid, block, values, shared_mem))

        return type("Function", (), {"ptr": id(kernel), "__call__": staticmethod(call)})()


class FakeCublas:
    """Stands for libcublas: real ctypes functions, so that arguments are converted as they would be."""

    handles = 0

    TYPES = {0: np.float32, 1: np.float64, 2: np.float16}  # noqa: RUF012

    def __init__(self, cupy: Any = None) -> None:
        self.calls: list[str] = []
        self.computes: list[int] = []
        self.stream = 0
        number, address, size = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
        matrix = [address, number, number]
        self.cublasCreate_v2 = ctypes.CFUNCTYPE(number, address)(self._create)
        self.cublasDestroy_v2 = ctypes.CFUNCTYPE(number, address)(self._destroy)
        self.cublasSetStream_v2 = ctypes.CFUNCTYPE(number, address, address)(self._set_stream)
        self.cublasSetWorkspace_v2 = ctypes.CFUNCTYPE(number, address, address, size)(self._set_workspace)
        products = [address, *[number] * 5, address, *matrix, *matrix, address, *matrix, number, number]
        self.cublasGemmEx = ctypes.CFUNCTYPE(number, *products)(self._gemm)

    def _create(self, handle: int) -> int:
        ctypes.c_void_p.from_address(handle).value = 0x123456789AB
        FakeCublas.handles += 1
        return 0

    def _destroy(self, handle: int) -> int:
        assert handle == 0x123456789AB
        Stream.wait_for_device()
        FakeCublas.handles -= 1
        return 0

    def _set_stream(self, handle: int, stream: int) -> int:
        assert handle == 0x123456789AB
        self.calls.append("stream")
        self.stream = stream
        return 0

    def _set_workspace(self, handle: int, workspace: int, size: int) -> int:
        self.calls.append("workspace")
        return 0 if workspace % 256 == 0 else 7

    def _gemm(self, handle: int, transpose_a: int, transpose_b: int, m: int, n: int, k: int, *rest: Any) -> int:
        alpha, a, a_type, a_step, b, b_type, b_step, beta, c, c_type, c_step, compute, _ = rest
        assert handle == 0x123456789AB
        scalar = ctypes.c_double if compute == 70 else ctypes.c_float
        factors = scalar.from_address(alpha).value, scalar.from_address(beta).value
        self.computes.append(compute)

        def run() -> None:
            left = _column_major(a, (k, m) if transpose_a else (m, k), a_step, self.TYPES[a_type])
            right = _column_major(b, (n, k) if transpose_b else (k, n), b_step, self.TYPES[b_type])
            out = _column_major(c, (m, n), c_step, self.TYPES[c_type])
            wide = np.float64 if compute == 70 else np.float32
            product = (left.T if transpose_a else left).astype(wide) @ (right.T if transpose_b else right).astype(wide)
            # beta 0 ignores what is there, NaN included.
            out[...] = factors[0] * product + (factors[1] * out if factors[1] else 0)

        stream = Stream.by_address.get(self.stream)
        run() if stream is None else stream.submit(run)
        return 0


def install(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    """Let :class:`CupyDevice` find this CuPy, as in a new process."""
    monkeypatch.setattr(cupy_device, "import_cupy", lambda: cupy)
    monkeypatch.setattr(resources, "load_cublas", FakeCublas)
    monkeypatch.setattr(resources.StreamResources, "_of_thread", threading.local())
    for name in ("_loaded", "_shared_memory_allowed"):
        monkeypatch.setattr(cupy_device.CupyDevice, name, {})
    cupy_device.CupyDevice._say_once.cache_clear()


def _column_major(address: int, shape: tuple[int, int], step: int, dtype: Any) -> Any:
    """Return a matrix whose columns are ``step`` elements apart, as cuBLAS sees it."""
    assert step >= shape[0]
    itemsize = np.dtype(dtype).itemsize
    room = (ctypes.c_char * (((shape[1] - 1) * step + shape[0]) * itemsize)).from_address(address)
    return np.ndarray(shape, dtype, buffer=room, strides=(itemsize, step * itemsize))


# Every name of CuPy that the device uses.
NAMES = (
    "ndarray",
    "asarray",
    "asnumpy",
    "empty",
    "RawModule",
    "cuda.is_available",
    "cuda.Device",
    "cuda.Stream",
    "cuda.Event",
    "get_default_memory_pool",
    "cuda.MemoryPool.free_all_blocks",
    "cuda.alloc",
    "cuda.alloc_pinned_memory",
    "cuda.get_elapsed_time",
    "cuda.memory.OutOfMemoryError",
    "cuda.compiler.CompileException",
    "cuda.runtime.CUDARuntimeError",
    "cuda.runtime.memcpyAsync",
    "cuda.runtime.memcpyDefault",
    "cuda.runtime.memGetInfo",
    "cuda.runtime.runtimeGetVersion",
    "cuda.runtime.driverGetVersion",
    "cuda.runtime.getDeviceCount",
    "cuda.runtime.getDeviceProperties",
    "cuda.driver.CUDADriverError",
    "cuda.driver.funcSetAttribute",
    "cuda.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES",
    "cuda.Stream.begin_capture",
    "cuda.Stream.end_capture",
    "cuda.Stream.synchronize",
    "cuda.Event.record",
    "cuda.Event.synchronize",
    "cuda.function.Function",
    "cuda.graph.Graph.launch",
    "cuda.graph.Graph.upload",
    "cuda.MemoryPointer.memset_async",
    "cuda.MemoryPointer.ptr",
    "ndarray.get",
    "ndarray.device",
    "ndarray.flags",
    "ndarray.data",
    "ndarray.__cuda_array_interface__",
)
