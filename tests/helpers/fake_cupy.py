"""The part of CuPy that :class:`CupyDevice` uses, on a machine without a GPU.

It stands for what matters about the real one. Operations on a stream run later, when somebody waits for that stream or
another stream waits for an event of it, and read memory then, page-locked memory of the host too; an array's memory may
still be written by what its stream was asked for before; whoever copies from other host memory has to wait before
anything else is asked for. When no array lies in a block of memory, it goes back to the pool of the stream that it was
allocated on, and holds nothing any more once that stream gets there, whatever other streams and recordings still want
of it. A capturing stream records and refuses to wait, and whoever waits for the whole device invalidates its recording.
A stream that waits for an event of a capture takes part in it, and must be waited for before its end; replays run the
operations in any order that the waits leave, and those that may run at the same time must not write what others use.
A kernel belongs to one device and has one limit of dynamic shared memory, whoever set it. Device and stream are current
for one thread. Arrays are not NumPy arrays and give no access to their elements. Kernels run on the emulated device.
That every name used exists in the real CuPy is tested apart.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import itertools
import math
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from gpunet.backends import notices
from gpunet.backends.cuda import proof
from gpunet.backends.devices import cupy as cupy_device
from gpunet.backends.devices import probe, resources
from gpunet.verification.storage import BFLOAT16, exact
from tests.emulation import EmulatedDevice, EmulationError
from tests.emulation.graph import Graph as OrderedGraph
from tests.emulation.graph import Span
from tests.helpers import fake_cublas_lt
from tests.helpers.late_expressions import METHODS, LateExpressions

Operation = Callable[[], Any]
POISON = 0xFF


class Task(NamedTuple):
    """An operation, and the memory that it reads and writes."""

    run: Operation
    read: list[Span]
    written: list[Span]


class CUDARuntimeError(RuntimeError):
    """A call that the driver would refuse."""


class CUDADriverError(RuntimeError):
    """The same of the driver's own interface."""


class OutOfMemoryError(MemoryError):
    """cupy.cuda.memory.OutOfMemoryError."""


class Current(threading.local):
    """What is current for a thread; the user's stream and the first device where nothing was chosen."""

    def __init__(self) -> None:
        self.streams: list[Stream] = [Stream.null]
        self.devices = [0]


class Stream:
    """A queue of operations that run when someone waits."""

    by_address: dict[int, Stream] = {}  # noqa: RUF012
    null: Stream
    passed = 0  # events and other operations, of all streams
    turn = threading.RLock()  # a thread that waits for the device may run what another asked for, but not beside it

    def __init__(self, non_blocking: bool = False) -> None:
        assert non_blocking
        self._open(id(self), current.devices[-1])

    def _open(self, address: int, device: int) -> None:
        self.ptr = address
        self.device = device
        self.queue: list[Operation] = []
        self.recording: OrderedGraph | None = None
        self.origin = self  # of the recording that it takes part in
        self.last: frozenset[int] = frozenset()  # what the next operation of the recording waits for
        self.invalidated = False
        self.reads_callers_memory = False
        self.by_address[address] = self  # last: the garbage collector may wait for the device at any time

    def __enter__(self) -> Stream:
        current.streams.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        assert current.streams.pop() is self

    def use(self) -> Stream:
        current.streams[:] = [self]
        return self

    def submit(self, operation: Operation, read: list[Span] | None = None, written: list[Span] | None = None) -> None:
        assert not self.reads_callers_memory, "a copy may still read memory that its caller overwrites: nobody waited"
        if self.recording is None:
            self.queue.append(operation)
            return
        self._refuse_invalidated()
        self.last = self.recording.add(Task(operation, read or [], written or []), self.last)

    def _refuse_invalidated(self) -> None:
        if self.origin.invalidated:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a previous error")

    def record(self) -> Event:
        event = Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if event.recording is None and self.recording is None:
            if event.point is not None:
                self.submit(event.point.wait)  # as it is recorded now, and not when the stream gets here
        elif event.recording is None:
            self.origin.invalidated = True
            raise CUDARuntimeError("cudaErrorStreamCaptureIsolation: dependency on uncaptured work in another stream")
        elif self.recording is None and event.origin.recording is event.recording:
            self.recording, self.origin, self.last = event.recording, event.origin, event.last
        elif self.recording is event.recording:
            self.last |= event.last
        else:
            raise CUDARuntimeError("cudaErrorStreamCaptureMerge: two captures would become one")

    def synchronize(self) -> None:
        if self.recording is not None:
            raise CUDARuntimeError("operation not permitted when stream is capturing")
        self.finish()

    def finish(self) -> None:
        """Run what is pending; tests may let :meth:`synchronize` fail, while the collector waits for the device."""
        self.run_until(lambda: not self.queue)
        self.reads_callers_memory = False

    def run_until(self, condition: Callable[[], bool]) -> None:
        with self.turn, _without_collector():
            while not condition():
                Stream.passed += 1
                self.queue.pop(0)()

    def lend(self, values: Any) -> None:
        """Give memory of the pool: what this stream was asked for before may still write to it."""

        def write() -> None:
            Stream.passed -= 1  # no operation of its own
            _poison(values)

        if self.queue:
            self.queue.append(write)

    def take_back(self, values: Any) -> None:
        """Take memory back into the pool: the next to have it may write as soon as the stream gets there."""

        if self.queue:
            self.queue.append(lambda: _poison(values))
        else:
            _poison(values)

    def begin_capture(self) -> None:
        assert self.recording is None
        self.recording, self.origin, self.last, self.invalidated = OrderedGraph(), self, frozenset(), False

    def end_capture(self) -> Graph:
        recording = self.recording
        assert recording is not None
        assert self.origin is self, "cudaErrorStreamCaptureUnmatched"
        parts = [stream for stream in self.by_address.values() if stream.recording is recording]
        for stream in parts:
            stream.recording = None
        self._refuse_invalidated()
        if any(stream.last - recording.followed(self.last) for stream in parts):
            raise CUDARuntimeError("cudaErrorStreamCaptureUnjoined: unjoined work in another stream")
        return Graph(recording)

    @classmethod
    def wait_for_device(cls) -> None:
        """What cudaDeviceSynchronize does, and cublasDestroy with it."""
        for stream in list(cls.by_address.values()):
            if stream.recording is None:
                stream.finish()
            else:
                stream.origin.invalidated = True


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep the garbage collector, which may wait for the device, from doing so in the middle of an operation."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _poison(values: Any) -> None:
    ctypes.memset(values.ctypes.data, POISON, values.nbytes)


Stream.null = Stream.__new__(Stream)
Stream.null._open(0, 0)
current = Current()


class Graph:
    """cupy.cuda.Graph, with the emulated device's rules of what may run at the same time."""

    def __init__(self, recording: OrderedGraph) -> None:
        self.recording = recording
        self.uploads = self.launches = 0
        races = recording.races(lambda task: (task.read, task.written))
        assert not any(races), "operations that may run at the same time write what others use"

    @property
    def operations(self) -> list[Operation]:
        return [task.run for task in self.recording.operations]

    def upload(self, stream: Stream) -> None:
        self.uploads += 1

    def launch(self, stream: Stream) -> None:
        self.launches += 1
        for task in self.recording.shuffled(self.launches):
            stream.submit(task.run)


class Point:
    """Where an event was recorded."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.time: int | None = None

    def reach(self) -> None:
        self.time = Stream.passed

    def wait(self) -> None:
        self.stream.run_until(lambda: self.time is not None)


class Event:
    def __init__(self, disable_timing: bool = False) -> None:
        self.has_time = not disable_timing
        self.point: Point | None = None
        self.recording: OrderedGraph | None = None

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or current.streams[-1]
        self.recording, self.origin, self.last = stream.recording, stream.origin, stream.last
        if self.recording is None:
            self.point = Point(stream)
            stream.submit(self.point.reach)

    def synchronize(self) -> None:
        if self.recording is not None:
            raise CUDARuntimeError("cudaErrorCapturedEvent: operation not permitted on an event of a capture")
        if self.point is not None:
            self.point.wait()

    @property
    def time(self) -> int | None:
        return None if self.point is None else self.point.time


def get_elapsed_time(start: Event, stop: Event) -> float:
    """Return a millisecond for every operation that has run in between."""
    if not (start.has_time and stop.has_time):
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle: invalid resource handle")
    if start.time is None or stop.time is None:
        raise CUDARuntimeError("cudaErrorNotReady: device not ready")
    return float(stop.time - start.time)


class Device:
    def __init__(self, index: int) -> None:
        self.id = index

    def __enter__(self) -> Device:
        current.devices.append(self.id)
        return self

    def __exit__(self, *error: object) -> None:
        assert current.devices.pop() == self.id


class Memory:
    """A block of a pool, which all views of an array share. Really it is never freed, so that nothing crashes."""

    ptr: int


class ndarray(LateExpressions):  # noqa: N801
    """A device array: shape and address, views of it, and expressions that run late."""

    pool: FakeCupy

    def __init__(self, values: Any, device: int = 0, memory: Memory | None = None) -> None:
        self.values = values
        self.device = Device(device)
        self.memory = memory

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
        values = self.values

        def memset_async(value: int, size: int, stream: Stream | None = None) -> None:
            (stream or current.streams[-1]).submit(lambda: ctypes.memset(values.ctypes.data, value, size))

        return SimpleNamespace(ptr=values.ctypes.data, memset_async=memset_async)

    def _view(self, values: Any) -> ndarray:
        return ndarray(values, self.device.id, self.memory)

    @classmethod
    def new(cls, shape: tuple[int, ...], dtype: Any) -> ndarray:
        return cls.pool.empty(shape, dtype)

    @classmethod
    def later(cls, operation: Operation) -> None:
        current.streams[-1].submit(operation)

    def view(self, dtype: Any) -> ndarray:
        return self._view(self.values.view(dtype))

    def reshape(self, *shape: Any) -> ndarray:
        return self._view(self.values.reshape(*shape))

    T = property(lambda self: self._view(self.values.T))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: Any) -> ndarray:
        keys = key if isinstance(key, tuple) else (key,)
        assert all(isinstance(one, (slice, int, np.integer)) for one in keys)
        return self._view(self.values[(*keys, ...)])

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device.id

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def get(self, stream: Stream | None = None, blocking: bool = True) -> Any:
        stream = stream or current.streams[-1]
        values, there = self.values, np.empty(self.shape, self.dtype)
        stream.submit(lambda: there.__setitem__(..., values))
        self.pool.bytes_to_host += self.nbytes
        if blocking:
            stream.synchronize()
        return there


class FakeCupy:
    """Stands for the module ``cupy``."""

    __version__ = "14.2.0"
    ndarray = ndarray

    def __init__(
        self, emulated: EmulatedDevice, devices: int = 1, free: int = 1 << 30, properties: dict[str, Any] | None = None
    ) -> None:
        self.emulated = emulated
        self.properties = {} if properties is None else properties
        self.has_clusters: bool | None = None  # by default, as the compute capability says
        # Clusters of so many blocks, or of blocks with more shared memory, do not fit.
        self.refused_cluster, self.cluster_bytes = 9, emulated.shared_memory_per_block
        self.launched_clusters: list[int] = []
        self.free = free
        self.cached = self.used = self.limit = 0  # of the pool: blocks that nobody has, that somebody has, the most
        self.attributes: list[tuple[int, int]] = []
        self.allowed: dict[int, int] = {}
        self.allocations: list[tuple[int, Stream]] = []
        self.freed: set[int] = set()
        self.freed_streams: list[Stream] = []
        self.memory: list[Any] = []
        self._spans: list[tuple[int, int]] = []  # of device and page-locked memory
        self._pinned: list[tuple[int, int]] = []
        self.bytes_to_host = self.bytes_to_device = 0
        ndarray.pool = self
        runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            memcpyDefault=4,
            runtimeGetVersion=lambda: 13020,
            driverGetVersion=lambda: 13000,
            getDeviceCount=lambda: devices,
            getDeviceProperties=self._properties,
            deviceGetAttribute=self._attribute,
            memGetInfo=lambda: (self.free, 1 << 30),
            memcpyAsync=self._memcpy_async,
            deviceSynchronize=Stream.wait_for_device,
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
            get_current_stream=lambda: current.streams[-1],
            alloc=self._allocate,
            alloc_pinned_memory=self._allocate_pinned,
            get_elapsed_time=get_elapsed_time,
        )

    def _properties(self, index: int) -> dict[str, Any]:
        emulated = self.emulated
        return {
            "name": b"NVIDIA Fake",
            "major": emulated.compute_capability[0],
            "minor": emulated.compute_capability[1],
            "multiProcessorCount": emulated.multiprocessor_count + index,
            "maxThreadsPerMultiProcessor": emulated.threads_per_multiprocessor,
            "sharedMemPerBlockOptin": emulated.shared_memory_per_block,
            "sharedMemPerMultiprocessor": emulated.shared_memory_per_multiprocessor,
            "l2CacheSize": emulated.l2_bytes,
            **self.properties,
        }

    def _attribute(self, attribute: int, index: int) -> int:
        assert attribute == 120  # cudaDevAttrClusterLaunch
        return int(self._properties(index)["major"] >= 9 if self.has_clusters is None else self.has_clusters)

    def _set_attribute(self, kernel: int, attribute: int, value: int) -> None:
        assert attribute == 8
        self.attributes.append((kernel, value))
        self.allowed[kernel] = value

    def _allocate(self, size: int) -> Any:
        self.allocations.append((size, current.streams[-1]))
        memory = Memory()
        memory.ptr = WORKSPACE_ROOM * len(self.allocations)
        weakref.finalize(memory, self.freed.add, memory.ptr).atexit = False
        return memory

    def _allocate_pinned(self, size: int) -> Any:
        values = self._keep(np.full(2 * size, POISON, np.uint8))  # with room for who writes too much
        self._pinned.append(self._spans[-1])
        lent = (ctypes.c_char * size).from_address(values.ctypes.data)
        weakref.finalize(lent, values.fill, POISON).atexit = False
        return lent

    def get_default_memory_pool(self) -> Any:
        def free_all_blocks(stream: Stream) -> None:
            assert not stream.queue, "pending operations may use them"
            held = [index for index, (_, owner) in enumerate(self.allocations, 1) if owner is stream]
            assert {WORKSPACE_ROOM * index for index in held} <= self.freed, "what is still held is not given back"
            self.freed_streams.append(stream)

        return SimpleNamespace(
            free_all_blocks=free_all_blocks,
            free_bytes=lambda: self.cached,
            used_bytes=lambda: self.used,
            get_limit=lambda: self.limit,
        )

    def _keep(self, values: Any) -> Any:
        self.memory.append(values)
        self._spans.append((values.ctypes.data, values.ctypes.data + values.nbytes))
        return values

    def _memcpy_async(self, destination: int, source: int, size: int, kind: int, stream: int) -> None:
        assert kind == 4
        queue = Stream.by_address[stream]
        is_kept, is_pinned = (_lies_in(source, spans) for spans in (self._spans, self._pinned))
        if is_pinned or not is_kept:
            self.bytes_to_device += size
        if is_kept:
            spans = [(source, source + size)], [(destination, destination + size)]
            queue.submit(lambda: self._move(destination, source, size), *spans)
        else:
            content = ctypes.string_at(source, size)  # the caller may free it when the copy has returned
            queue.submit(lambda: self._move(destination, content, size))
            queue.reads_callers_memory = True

    def _move(self, destination: int, source: int | bytes, size: int) -> None:
        ctypes.memmove(destination, source, size)

    def asarray(self, values: Any) -> ndarray:
        interface = values.__cuda_array_interface__
        if interface.get("stream") is not None:
            Stream.by_address[interface["stream"]].synchronize()
        return ndarray(np.asarray(SimpleNamespace(__array_interface__=interface, keeps=values)))

    def from_dlpack(self, values: Any) -> ndarray:
        kind, index = values.__dlpack_device__()
        assert kind == 2, "CPU arrays cannot be directly imported to CuPy."
        # The legacy default stream is 1 there.
        capsule = values.__dlpack__(stream=current.streams[-1].ptr or 1, max_version=(1, 0), copy=None)
        return ndarray(capsule.values, index, capsule.memory)

    def empty(self, shape: Any, dtype: Any) -> ndarray:
        values = self.emulated.empty(shape, dtype)
        if values.nbytes > self.free:
            raise OutOfMemoryError
        stream = current.streams[-1]
        stream.lend(values)
        memory = Memory()
        weakref.finalize(memory, stream.take_back, self._keep(values)).atexit = False
        return ndarray(values, current.devices[-1], memory)

    def RawModule(self, code: str, options: tuple[str, ...], name_expressions: tuple[str, ...]) -> Any:
        # Compiled when the first kernel is asked for.
        loaded = functools.cache(lambda: self.emulated.load(code, options, name_expressions, "module.cu"))
        return SimpleNamespace(get_function=lambda name: SimpleNamespace(kernel=self._function(loaded()[name])))

    def _function(self, kernel: Any) -> Any:
        """Return what cupy.cuda.function.Function is."""
        device = current.devices[-1]
        compiled_in = re.search(r"_resident<.* (\d)>", kernel.name)  # by __cluster_dims__
        cluster = int(compiled_in[1]) if compiled_in else 1

        def call(
            grid: Any,
            block: Any,
            args: Any,
            shared_mem: int = 0,
            stream: Stream | None = None,
            enable_cooperative_groups: bool = False,
        ) -> None:
            assert isinstance(grid, tuple)
            assert isinstance(block, tuple)
            queue = stream or current.streams[-1]
            if not device == current.devices[-1] == queue.device:
                raise CUDADriverError("CUDA_ERROR_INVALID_HANDLE: invalid resource handle")
            asked = self.allowed.get(id(kernel))
            if shared_mem > (SHARED_MEMORY_FOR_ALL if asked is None else asked):
                raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
            if cluster >= self.refused_cluster or (cluster > 1 and shared_mem > self.cluster_bytes):
                raise CUDADriverError("CUDA_ERROR_INVALID_CLUSTER_SIZE: invalid cluster size")
            self.launched_clusters.append(cluster)
            if enable_cooperative_groups:
                most = self.emulated._resident_blocks(kernel, math.prod(block), shared_mem)
                if len(grid) == 1:
                    grid = (min(grid[0], most),)  # and warns
                elif math.prod(grid) > most:
                    raise ValueError(f"The specified grid size exceeds the limit ({most}).")
            # Static shared memory counts too, and the emulated device alone knows of it.
            allowed = SHARED_MEMORY_FOR_ALL if asked is None else None
            values = [argument.values if isinstance(argument, ndarray) else argument for argument in args]
            launch = functools.partial(
                self.emulated.launch,
                cluster=cluster,
                shared_memory_allowed=allowed,
                cooperative=enable_cooperative_groups,
            )
            spans: tuple[list[Span], list[Span]] = [], []
            for value, parameter in zip(values, kernel.parameters, strict=False):  # the launch says what does not fit
                if isinstance(value, np.ndarray):
                    spans[not parameter.pointee_constant].append(_span(value))
            queue.submit(lambda: launch(kernel, grid, block, values, shared_mem), *spans)

        return type("Function", (), {"ptr": id(kernel), "__call__": staticmethod(call)})()


WORKSPACE_ROOM = 1 << 26  # from one workspace to the next: more than any has

# What the driver allows without being asked; a kernel's own static variables count in it.
SHARED_MEMORY_FOR_ALL = 48 * 1024


class Handle:
    """What cuBLAS keeps between calls."""

    def __init__(self) -> None:
        self.device = current.devices[-1]
        self.stream = 0
        self.workspace = 0
        self.workspace_bytes = 0


class FakeCublas:
    """Stands for libcublas: C functions of which ctypes knows as little as of those of a library.

    The functions of ``lt``, cublasLt, are found in it as well, as in a library that is linked with another.
    """

    handles = 0

    TYPES = {0: np.float32, 1: np.float64, 2: np.float16, 14: np.uint16}  # noqa: RUF012 (14: bits of bfloat16)
    NOT_INITIALISED, INVALID_VALUE, MAPPING_ERROR, EXECUTION_FAILED = 1, 7, 11, 13

    def __init__(self, cupy: Any = None) -> None:
        self.calls: list[str] = []
        self.computes: list[int] = []
        self.open: dict[int, Handle] = {}
        self.fails: dict[str, int] = {}
        self._cupy = cupy  # which keeps the memory of pending products
        self._addresses = itertools.count(0x123456789AB)
        number, address, size = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
        matrix = [address, number, number]
        products = [address, *[number] * 5, address, *matrix, *matrix, address, *matrix, number, number]
        self._callbacks = []
        for name, function, parameters in (
            ("cublasCreate_v2", self._create, [address]),
            ("cublasDestroy_v2", self._destroy, [address]),
            ("cublasSetStream_v2", self._set_stream, [address, address]),
            ("cublasSetWorkspace_v2", self._set_workspace, [address, address, size]),
            ("cublasGemmEx", self._gemm, products),
        ):
            callback = ctypes.CFUNCTYPE(number, *parameters)(functools.partial(self._call, name, function))
            self._callbacks.append(callback)
            setattr(self, name, ctypes.CDLL(None)._FuncPtr(ctypes.cast(callback, address).value))
        self.lt = fake_cublas_lt.FakeCublasLt(self)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cublasLt"):
            raise AttributeError(name)
        return getattr(self.lt, name)

    def _call(self, name: str, function: Callable[..., int], *arguments: Any) -> int:
        return self.fails.get(name) or function(*arguments)

    def _create(self, handle: int) -> int:
        address = ctypes.c_void_p.from_address(handle).value = next(self._addresses)
        self.open[address] = Handle()
        FakeCublas.handles += 1
        return 0

    def _destroy(self, handle: int) -> int:
        if handle not in self.open:
            return self.NOT_INITIALISED
        assert not self._is_freed(self.open.pop(handle)), "the device may still use the workspace"
        Stream.wait_for_device()
        FakeCublas.handles -= 1
        return 0

    def _is_inside(self, start: int, size: int) -> bool:
        """Return whether a matrix lies in memory of the device; a GPU would notice at the edges of pages at most."""
        return self._cupy is None or any(first <= start <= start + size <= end for first, end in self._cupy._spans)

    def _is_freed(self, handle: Handle) -> bool:
        return self._cupy is not None and handle.workspace in self._cupy.freed

    def _set_stream(self, handle: int, stream: int | None) -> int:
        if handle not in self.open:
            return self.NOT_INITIALISED
        self.calls.append("stream")
        self.open[handle].stream, self.open[handle].workspace = stream or 0, 0
        return 0

    def _set_workspace(self, handle: int, workspace: int, size: int) -> int:
        if handle not in self.open:
            return self.NOT_INITIALISED
        self.calls.append("workspace")
        self.open[handle].workspace, self.open[handle].workspace_bytes = workspace, size
        return 0 if workspace % 256 == 0 else self.INVALID_VALUE

    def _gemm(self, handle: int, transpose_a: int, transpose_b: int, m: int, n: int, k: int, *rest: Any) -> int:
        alpha, a, a_type, a_step, b, b_type, b_step, beta, c, c_type, c_step, compute, _ = rest
        mine = self.open.get(handle)
        if mine is None or mine.device != current.devices[-1]:
            return self.NOT_INITIALISED
        stream = Stream.by_address[mine.stream]
        if self._is_freed(mine) or (stream.recording is not None and not mine.workspace):
            return self.MAPPING_ERROR
        shapes = (k, m) if transpose_a else (m, k), (n, k) if transpose_b else (k, n), (m, n)
        matrices = zip((a, b, c), shapes, (a_step, b_step, c_step), (a_type, b_type, c_type), strict=True)
        spans: list[Span] = []
        for start, shape, step, kind in matrices:
            if step < shape[0]:
                return self.INVALID_VALUE
            size = ((shape[1] - 1) * step + shape[0]) * np.dtype(self.TYPES[kind]).itemsize
            if not self._is_inside(start, size):
                return self.EXECUTION_FAILED
            spans.append((start, start + size))
        workspace = mine.workspace, mine.workspace + mine.workspace_bytes
        scalar = ctypes.c_double if compute == 70 else ctypes.c_float
        factors = scalar.from_address(alpha).value, scalar.from_address(beta).value
        self.computes.append(compute)

        def run() -> None:
            left = _column_major(a, shapes[0], a_step, self.TYPES[a_type])
            right = _column_major(b, shapes[1], b_step, self.TYPES[b_type])
            out = _column_major(c, shapes[2], c_step, self.TYPES[c_type])
            wide = np.float64 if compute == 70 else np.float32
            left, right = left.T if transpose_a else left, right.T if transpose_b else right
            with np.errstate(all="ignore"):
                # beta 0 ignores what is there, NaN included.
                added = factors[1] * _numbers(out, wide) if factors[1] else 0
                product = factors[0] * (_numbers(left, wide) @ _numbers(right, wide)) + added
                out[...] = BFLOAT16.store(product) if out.dtype == BFLOAT16.dtype else product

        stream.submit(run, spans[:2], [spans[2], workspace])
        return 0


def _span(values: Any) -> Span:
    return values.ctypes.data, values.ctypes.data + values.nbytes


def _numbers(matrix: Any, wide: Any) -> Any:
    return (exact(matrix) if matrix.dtype == BFLOAT16.dtype else matrix).astype(wide)


def begin_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what gpunet knows of the devices of this process, and what it has said of them."""
    monkeypatch.setattr(proof, "_proofs", {})
    monkeypatch.setattr(notices, "_said", set())
    monkeypatch.setattr(probe, "_initialised_in", None)


def install(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> None:
    """Let :class:`CupyDevice` find this CuPy, as in a new process."""
    begin_process(monkeypatch)
    monkeypatch.setattr(cupy_device, "import_cupy", lambda: cupy)
    monkeypatch.setattr(resources, "load_cublas", FakeCublas)
    monkeypatch.setattr(resources.StreamResources, "_of_thread", type(resources.StreamResources._of_thread)())
    monkeypatch.setattr(Stream, "by_address", {0: Stream.null})
    for name in ("_loaded", "_locks_of_sources", "_shared_memory_allowed"):
        monkeypatch.setattr(cupy_device.CupyDevice, name, {})


def _lies_in(address: int, spans: list[tuple[int, int]]) -> bool:
    return any(start <= address < stop for start, stop in spans)


def _column_major(address: int, shape: tuple[int, int], step: int, dtype: Any) -> Any:
    """Return a matrix whose columns are ``step`` elements apart, as cuBLAS sees it."""
    itemsize = np.dtype(dtype).itemsize
    room = (ctypes.c_char * (((shape[1] - 1) * step + shape[0]) * itemsize)).from_address(address)
    return np.ndarray(shape, dtype, buffer=room, strides=(itemsize, step * itemsize))


# Every name of CuPy that the device uses.
NAMES = (
    "ndarray",
    "asarray",
    "from_dlpack",
    "empty",
    "RawModule",
    "cuda.is_available",
    "cuda.Device",
    "cuda.Stream",
    "cuda.Event",
    "get_default_memory_pool",
    "cuda.MemoryPool.free_all_blocks",
    "cuda.MemoryPool.free_bytes",
    "cuda.MemoryPool.used_bytes",
    "cuda.MemoryPool.get_limit",
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
    "cuda.runtime.deviceGetAttribute",
    "cuda.driver.CUDADriverError",
    "cuda.driver.funcSetAttribute",
    "cuda.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES",
    "cuda.Stream.begin_capture",
    "cuda.Stream.end_capture",
    "cuda.Stream.synchronize",
    "cuda.Stream.record",
    "cuda.Stream.wait_event",
    "cuda.get_current_stream",
    "cuda.runtime.deviceSynchronize",
    "cuda.Event.record",
    "cuda.Event.synchronize",
    "cuda.function.Function",
    "cuda.graph.Graph.launch",
    "cuda.graph.Graph.upload",
    "cuda.MemoryPointer.memset_async",
    "cuda.MemoryPointer.ptr",
    "ndarray.get",
    "ndarray.device",
    "ndarray.view",
    "ndarray.flags",
    "ndarray.data",
    "ndarray.__cuda_array_interface__",
    "ndarray.__dlpack_device__",
    "ndarray.__array_ufunc__",
    "ndarray.__array_function__",
    "ndarray.astype",
    "ndarray.item",
    *(f"ndarray.{name}" for name in METHODS),
    # What NumPy's functions find there.
    "isfinite",
    "exp",
    "take",
    "bincount",
    "count_nonzero",
)
