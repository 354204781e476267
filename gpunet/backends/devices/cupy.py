"""The real device: a thin layer over CuPy, with its own stream, staging memory and cuBLAS handle."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gpunet.backends.devices.cublas import WORKSPACE_BYTES, WORKSPACE_BYTES_HOPPER, Cublas
from gpunet.backends.devices.device import Argument, Array, Dimensions
from gpunet.backends.devices.staging import RING_BYTES, StagingRing
from gpunet.errors import DeviceError, InvalidTypeError, OutOfDeviceMemoryError

OLDEST_COMPUTE_CAPABILITY = (7, 5)
CLUSTER_COMPUTE_CAPABILITY = (9, 0)
# Portable size: every device with clusters has them up to this.
LARGEST_CLUSTER = 8
# Every block gets this much dynamic shared memory without asking.
SHARED_MEMORY_WITHOUT_ASKING = 32 * 1024


def import_cupy() -> ModuleType:
    """Import CuPy and check that it can talk to the driver.

    Raises
    ------
    DeviceError
        CuPy is missing or broken, or the driver is missing or too old for it.
    """
    try:
        import cupy
    except Exception as error:  # a broken installation raises more than ImportError
        raise DeviceError(f"CuPy cannot be imported: {error}") from error
    if not cupy.cuda.is_available():
        runtime = cupy.cuda.runtime
        built_for, supported = runtime.runtimeGetVersion(), runtime.driverGetVersion()
        if supported == 0:
            raise DeviceError("no NVIDIA driver was found on this machine (libcuda cannot be loaded)")
        raise DeviceError(
            f"CuPy {cupy.__version__} finds no usable GPU: it brings CUDA {_version(built_for)}, and the driver "
            f"supports CUDA {_version(supported)}. A driver older than CuPy's CUDA needs the CuPy of its own: "
            "pip install 'gpunet[cuda12]' after removing this one"
        )
    return cupy


def load_cublas() -> ctypes.CDLL:
    """Return the cuBLAS library that CuPy uses: the process has one copy of it."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib  # CuPy depends on it

        return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
    except Exception as error:  # not installed, not found, or not loadable
        raise DeviceError(f"cuBLAS cannot be loaded: {error}") from error


class CupyDevice:
    """A CUDA device.

    Parameters
    ----------
    index : int
        Which one, in CuPy's order.

    Attributes
    ----------
    name : str
        ``"cuda:0"``.
    model : str
        ``"NVIDIA H200"``.
    compute_capability : tuple of two ints
    multiprocessor_count, max_cluster_size : int
    shared_memory_per_block, shared_memory_per_multiprocessor, l2_bytes : int
        In bytes.

    Raises
    ------
    DeviceError
        CuPy or the driver is missing, there is no such device, or it is older than compute capability 7.5.
    """

    # Kernels belong to the device and not to a stream: the networks of a process share them.
    _loaded: ClassVar[dict[tuple[int, str, tuple[str, ...], tuple[str, ...]], dict[str, Any]]] = {}

    def __init__(self, index: int = 0) -> None:
        cupy = self._cupy = import_cupy()
        count = cupy.cuda.runtime.getDeviceCount()
        if not 0 <= index < count:
            raise DeviceError(f"there is no device cuda:{index}: this machine has cuda:0 to cuda:{count - 1}")
        properties = cupy.cuda.runtime.getDeviceProperties(index)
        self.index = index
        self.name = f"cuda:{index}"
        self.model = properties["name"].decode(errors="replace")
        self.compute_capability: tuple[int, int] = (properties["major"], properties["minor"])
        if self.compute_capability < OLDEST_COMPUTE_CAPABILITY:
            have, need = (".".join(map(str, pair)) for pair in (self.compute_capability, OLDEST_COMPUTE_CAPABILITY))
            raise DeviceError(f"{self.name} ({self.model}) has compute capability {have}. Expected at least {need}.")
        self.multiprocessor_count: int = properties["multiProcessorCount"]
        self.shared_memory_per_block: int = properties["sharedMemPerBlockOptin"]
        self.shared_memory_per_multiprocessor: int = properties["sharedMemPerMultiprocessor"]
        self.l2_bytes: int = properties["l2CacheSize"]
        has_clusters = self.compute_capability >= CLUSTER_COMPUTE_CAPABILITY
        self.max_cluster_size = LARGEST_CLUSTER if has_clusters else 1

        self._device = cupy.cuda.Device(index)
        self._capturing = False
        self._shared_memory_allowed: dict[int, int] = {}
        with self._device:
            # Non-blocking: work on CuPy's default stream, the user's own, neither waits for ours nor holds it up.
            self._stream = cupy.cuda.Stream(non_blocking=True)
            # The memory of pending operations must not be handed out again: wait for them before the stream goes.
            weakref.finalize(self, self._stream.synchronize).atexit = False
            pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(RING_BYTES), np.uint8, RING_BYTES)
        self._staging = StagingRing(pinned, self._new_event)
        self._blas = self._new_blas()

    def __repr__(self) -> str:
        return f"CupyDevice({self.index})"

    # --- memory -----------------------------------------------------------------------------------------------------

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        self._refuse_while_capturing("allocation")
        size = math.prod(shape if isinstance(shape, tuple) else (shape,)) * np.dtype(dtype).itemsize
        with self._current(), self._memory_errors(size):
            return self._cupy.empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        array: Any = self.empty(shape, dtype)
        with self._current():
            array.data.memset_async(0, array.nbytes, self._stream)
        return array

    def asarray(self, array: Array) -> Array:
        if isinstance(array, self._cupy.ndarray):
            return self._check(array, "asarray", contiguous=True)
        host = np.asarray(array, order="C")
        device_array = self.empty(host.shape, host.dtype)
        self.copy(device_array, host)
        return device_array

    def fetch(self, values: Any) -> Array:
        # The array may be one of ours, still being written on our stream, which the user's does not wait for.
        self.synchronize()
        # On CuPy's current stream, the user's: what they have asked for so far is in the array then.
        with self._device:
            return self._cupy.asnumpy(self._cupy.asarray(values))

    def to_numpy(self, array: Array) -> Array:
        self._refuse_while_capturing("reading an array")
        checked: Any = self._check(array, "to_numpy", contiguous=False)
        with self._current():
            return checked.get(stream=self._stream)

    def copy(self, destination: Array, source: Array) -> None:
        if destination.shape != source.shape or destination.dtype != source.dtype:
            raise ValueError(f"copy of {source.shape}, {source.dtype}, into {destination.shape}, {destination.dtype}")
        target: Any = self._check(destination, "copy", contiguous=True)
        if source.size == 0:
            return
        if isinstance(source, self._cupy.ndarray):
            origin: Any = self._check(source, "copy", contiguous=True)
            self._copy_bytes(target.data.ptr, origin.data.ptr, origin.nbytes)
            return
        self._refuse_while_capturing("a copy from the host")
        host = np.asarray(source, order="C")
        if host.nbytes <= self._staging.segment_bytes:
            with self._device:
                staged = self._staging.stage(host)
            self._copy_bytes(target.data.ptr, staged, host.nbytes)
        else:
            # Rare and large: a data set, a vector of weights. The caller may overwrite it when this returns.
            self._copy_bytes(target.data.ptr, host.ctypes.data, host.nbytes)
            self.synchronize()

    def _copy_bytes(self, destination: int, source: int, size: int) -> None:
        runtime = self._cupy.cuda.runtime
        with self._device:
            runtime.memcpyAsync(destination, source, size, runtime.memcpyDefault, self._stream.ptr)

    # --- kernels ----------------------------------------------------------------------------------------------------

    def load(self, source: str, options: Sequence[str], kernels: Sequence[str], name: str) -> Mapping[str, Any]:
        key = (self.index, source, tuple(options), tuple(kernels))
        if key not in self._loaded:
            self._loaded[key] = self._compile(*key[1:], name)
        return self._loaded[key]

    def _compile(self, source: str, options: tuple[str, ...], kernels: tuple[str, ...], name: str) -> dict[str, Any]:
        with self._current():
            module = self._cupy.RawModule(code=source, options=options, name_expressions=kernels)
            try:
                # The Function itself: calling the RawKernel around it costs several microseconds more.
                return {expression: module.get_function(expression).kernel for expression in kernels}
            except self._cupy.cuda.compiler.CompileException as error:
                raise DeviceError(f"{name} does not compile for {self.model}: {error}") from error

    def launch(
        self,
        kernel: Any,
        grid: Dimensions,
        block: Dimensions,
        args: Sequence[Argument],
        shared_memory: int = 0,
        cluster: Dimensions | None = None,
        cooperative: bool = False,
    ) -> None:
        """Run a kernel; see :meth:`Device.launch`.

        The size of a cluster is compiled into the kernel (CuPy launches no others), so ``cluster`` is not used here.
        """
        if cooperative:
            raise DeviceError("a cooperative launch is not supported")
        for position, argument in enumerate(args):
            if not isinstance(argument, np.generic):
                self._check(argument, f"argument {position} of a kernel", contiguous=True)
        with self._device:
            if shared_memory > self._shared_memory_allowed.get(kernel.ptr, SHARED_MEMORY_WITHOUT_ASKING):
                driver = self._cupy.cuda.driver
                driver.funcSetAttribute(
                    kernel.ptr, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_memory
                )
                self._shared_memory_allowed[kernel.ptr] = shared_memory
            kernel(_dimensions(grid), _dimensions(block), tuple(args), shared_mem=shared_memory, stream=self._stream)

    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
        precision: str = "float32",
    ) -> None:
        for matrix in (a, b, out):
            self._check(matrix, "gemm", contiguous=True)
        with self._device:
            self._blas.gemm(a, b, out, transpose_a, transpose_b, accumulate, precision)

    # --- time -------------------------------------------------------------------------------------------------------

    def capture(self, step: Callable[[], object]) -> _GraphReplay:
        self._refuse_while_capturing("another capture")
        with self._current():
            self._stream.begin_capture()
            self._capturing = True
            try:
                step()
            except BaseException:
                self._abandon_capture()
                raise
            finally:
                self._capturing = False
            graph = self._stream.end_capture()
            graph.upload(self._stream)
        return _GraphReplay(graph, self._device, self._stream)

    def _abandon_capture(self) -> None:
        """End a capture whose step has failed; the stream works again, and the step's own error is what counts."""
        try:
            self._stream.end_capture()
        except self._cupy.cuda.runtime.CUDARuntimeError:
            return

    def synchronize(self) -> None:
        self._refuse_while_capturing("waiting")
        with self._device:
            self._stream.synchronize()

    def record_event(self) -> Any:
        self._refuse_while_capturing("an event")
        with self._device:
            event = self._cupy.cuda.Event()
            event.record(self._stream)
        return event

    def elapsed(self, start: Any, stop: Any) -> float:
        with self._device:
            stop.synchronize()
            return float(self._cupy.cuda.get_elapsed_time(start, stop)) / 1000

    # --- inside -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Make the device and its stream CuPy's current ones: memory that is freed goes back to this stream's pool.

        Another stream's pool could hand it out while operations on this stream still use it.
        """
        with self._device, self._stream:
            yield

    @contextmanager
    def _memory_errors(self, size: int) -> Iterator[None]:
        """Turn CuPy's error into ours, for an allocation of ``size`` bytes."""
        try:
            yield
        except self._cupy.cuda.memory.OutOfMemoryError:
            # CuPy has given unused blocks of its pool back before it gave up: what is free now is all there is.
            free, total = self._cupy.cuda.runtime.memGetInfo()
            raise OutOfDeviceMemoryError(
                f"{self.name} ({self.model}) has no room for {size:,} bytes: {free:,} of {total:,} are free. "
                "A smaller batch, fewer examples or float32 need less."
            ) from None

    def _check(self, array: Any, what: str, contiguous: bool) -> Array:
        """Return ``array`` if it lies on this device, or raise."""
        if not isinstance(array, self._cupy.ndarray):
            raise InvalidTypeError(
                f"{what}: got a {type(array).__name__} of the host. Expected an array on {self.name}."
            )
        if array.device.id != self.index:
            raise InvalidTypeError(f"{what}: got an array on cuda:{array.device.id}. Expected one on {self.name}.")
        if contiguous and not array.flags.c_contiguous:
            raise InvalidTypeError(f"{what}: got a view with gaps. Expected a C-contiguous array.")
        return array

    def _refuse_while_capturing(self, what: str) -> None:
        if self._capturing:
            raise DeviceError(f"{what} is not possible while a step is captured")

    def _new_event(self) -> _StreamEvent:
        with self._device:
            return _StreamEvent(self._cupy.cuda.Event(disable_timing=True), self._stream)

    def _new_blas(self) -> Cublas:
        size = WORKSPACE_BYTES_HOPPER if self.compute_capability >= CLUSTER_COMPUTE_CAPABILITY else WORKSPACE_BYTES
        with self._current(), self._memory_errors(size):
            # CuPy's memory blocks start at multiples of 512 bytes.
            return Cublas(load_cublas(), self._stream, self._cupy.cuda.alloc(size), size)


class _StreamEvent:
    """An event of one stream; see :class:`gpunet.backends.devices.staging.Event`."""

    def __init__(self, event: Any, stream: Any) -> None:
        self._event = event
        self._stream = stream

    def record(self) -> None:
        self._event.record(self._stream)

    def synchronize(self) -> None:
        self._event.synchronize()


class _GraphReplay:
    """A captured graph; see :class:`gpunet.backends.devices.device.Replay`."""

    def __init__(self, graph: Any, device: Any, stream: Any) -> None:
        self._graph = graph
        self._device = device
        self._stream = stream

    def launch(self) -> None:
        with self._device:
            self._graph.launch(self._stream)


def _dimensions(size: Dimensions) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,)


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
