"""The real device: a thin layer over CuPy, with a stream, staging memory and cuBLAS handle that a thread shares."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gpunet.backends.devices.cublas import WORKSPACE_BYTES_HOPPER
from gpunet.backends.devices.device import (
    Argument,
    Array,
    ClusterRefusedError,
    Collectives,
    Dimensions,
    KernelCompileError,
    Lane,
    RecordingRefusedError,
    Replay,
)
from gpunet.backends.devices.graph_nodes import count_kernels, longest_chain
from gpunet.backends.devices.lane import CopyLane, lane_bytes
from gpunet.backends.devices.nccl import Nccl
from gpunet.backends.devices.probe import FORKED, is_forked, note_initialisation
from gpunet.backends.devices.resources import LARGEST_CLUSTER, RECORDER, StreamResources
from gpunet.backends.kinds import empty_tensor, torch_of
from gpunet.errors import DeviceError, GpunetError, InvalidTypeError, OutOfDeviceMemoryError

OLDEST_COMPUTE_CAPABILITY = (7, 5)
# After one of these the driver refuses every further call of the process.
_STICKY_ERRORS = (
    "cudaErrorIllegalAddress",
    "cudaErrorMisalignedAddress",
    "cudaErrorInvalidAddressSpace",
    "cudaErrorInvalidPc",
    "cudaErrorIllegalInstruction",
    "cudaErrorHardwareStackError",
    "cudaErrorLaunchFailure",
    "cudaErrorLaunchTimeout",
    "cudaErrorAssert",
    "cudaErrorECCUncorrectable",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_LAUNCH_FAILED",
)
_UNINITIALISED = ("cudaErrorInitializationError", "CUDA_ERROR_NOT_INITIALIZED")
# cudaDevAttrClusterLaunch, which CuPy has no name for.
_CLUSTER_LAUNCH = 120
# Every block gets this much dynamic shared memory without asking: on every architecture it has 48 KiB, and the kernels'
# static arrays are smaller than the rest.
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
        if built_for // 1000 <= supported // 1000:
            raise DeviceError(f"CuPy {cupy.__version__} finds no usable GPU: {_refusal(runtime)}")
        raise DeviceError(
            f"CuPy {cupy.__version__} finds no usable GPU: it brings CUDA {_version(built_for)}, and the driver "
            f"supports CUDA {_version(supported)}. A driver older than CuPy's CUDA needs the CuPy of its own: "
            "pip install 'gpunet[cuda12]' after removing this one"
        )
    return cupy


def _refusal(runtime: ModuleType) -> str:
    """Return what CUDA says when it is asked for its devices, of which there are none to use."""
    try:
        return f"there are {runtime.getDeviceCount()}"
    except RuntimeError as error:
        return _with_advice(error)


def _with_advice(error: Exception) -> str:
    """Return an error's message, and what to do where the error says it."""
    message = str(error)
    if any(name in message for name in _UNINITIALISED):
        return f"{message}. Perhaps {FORKED}"
    if "CUDA headers" in message or "nvrtc" in message:
        return (
            f"{message.rstrip('.')}. Headers and compiler come with pip install 'gpunet[cuda12]', or with "
            "'gpunet[cuda13]' for CUDA 13"
        )
    return message


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
    driver : str
        The newest CUDA version that the driver supports, ``"13.0"``.
    compute_capability : tuple of two ints
    multiprocessor_count, threads_per_multiprocessor, max_cluster_size : int
    shared_memory_per_block, shared_memory_per_multiprocessor, l2_bytes : int
        In bytes.

    Raises
    ------
    DeviceError
        CuPy or the driver is missing, there is no such device, it is older than compute capability 7.5, or CUDA cannot
        open it (another process has it for itself, it has failed).
    """

    # Kernels, and how much shared memory each was allowed, belong to the device and not to a stream: the networks of a
    # process share them.
    _loaded: ClassVar[dict[tuple[int, str, tuple[str, ...], tuple[str, ...]], dict[str, Any]]] = {}
    _shared_memory_allowed: ClassVar[dict[tuple[int, int], int]] = {}
    _lock_of_kernels: ClassVar[threading.RLock] = threading.RLock()
    _locks_of_sources: ClassVar[dict[tuple[int, str, tuple[str, ...], tuple[str, ...]], threading.Lock]] = {}

    def __init__(self, index: int = 0) -> None:
        if is_forked():
            raise DeviceError(f"cuda:{index} cannot be opened: {FORKED}")
        cupy = self._cupy = import_cupy()
        note_initialisation()
        try:
            self._open(index)
        except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
            raise DeviceError(f"cuda:{index} cannot be opened: {error}") from error

    def _open(self, index: int) -> None:
        cupy = self._cupy
        count = cupy.cuda.runtime.getDeviceCount()
        if not 0 <= index < count:
            raise DeviceError(f"there is no device cuda:{index}: this machine has cuda:0 to cuda:{count - 1}")
        properties = cupy.cuda.runtime.getDeviceProperties(index)
        self.index = index
        self.name = f"cuda:{index}"
        self.model = properties["name"].decode(errors="replace")
        self.driver = _version(cupy.cuda.runtime.driverGetVersion())
        self.compute_capability: tuple[int, int] = (properties["major"], properties["minor"])
        if self.compute_capability < OLDEST_COMPUTE_CAPABILITY:
            have, need = (".".join(map(str, pair)) for pair in (self.compute_capability, OLDEST_COMPUTE_CAPABILITY))
            raise DeviceError(f"{self.name} ({self.model}) has compute capability {have}. Expected at least {need}.")
        self.multiprocessor_count: int = properties["multiProcessorCount"]
        self.threads_per_multiprocessor: int = properties["maxThreadsPerMultiProcessor"]
        self.shared_memory_per_block: int = properties["sharedMemPerBlockOptin"]
        self.shared_memory_per_multiprocessor: int = properties["sharedMemPerMultiprocessor"]
        self.l2_bytes: int = properties["l2CacheSize"]
        has_clusters = cupy.cuda.runtime.deviceGetAttribute(_CLUSTER_LAUNCH, index)
        self.max_cluster_size = LARGEST_CLUSTER if has_clusters else 1

        self._device = cupy.cuda.Device(index)
        self._capturing = False
        # Where to look when the device fails: errors of kernels show at a later call.
        self._last_operation: Any = "none"
        self._last_good: Any = "none"
        with self._device, self._errors("setting up"), self._memory_errors(WORKSPACE_BYTES_HOPPER):
            self._resources = StreamResources.of_thread(cupy, index, self.compute_capability)
        self._stream, self._blas = self._resources.stream, self._resources.blas
        self._has_branch = False

    def __repr__(self) -> str:
        return f"CupyDevice({self.index})"

    # --- memory -----------------------------------------------------------------------------------------------------

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        self._refuse_while_capturing("allocation")
        size = math.prod(shape if isinstance(shape, tuple) else (shape,)) * np.dtype(dtype).itemsize
        with self._current("allocation"), self._memory_errors(size):
            return self._cupy.empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        array: Any = self.empty(shape, dtype)
        with self._current("filling with zeros"):
            array.data.memset_async(0, array.nbytes, self._stream)
        return array

    def asarray(self, array: Array) -> Array:
        if isinstance(array, self._cupy.ndarray):
            return self._check(array, "asarray", contiguous=True)
        host = np.asarray(array, order="C")
        device_array = self.empty(host.shape, host.dtype)
        self.copy(device_array, host)
        return device_array

    def take(self, argument: str, values: Any) -> Array:
        self._refuse_while_capturing("taking an array")
        index = _device_index(values)
        if index is not None and index != self.index:
            raise self._elsewhere(argument, index)
        self._wait_for_caller()
        with self._resources.lock, self._device, self._stream:
            try:
                array = self._share(values)
            except self._cupy.cuda.runtime.CUDARuntimeError as error:
                raise self._device_error("taking an array", error) from error
        return self._check(array, argument, contiguous=False)

    def _share(self, values: Any) -> Array:
        """Return an array over the same memory; this device and our stream are the current ones."""
        cupy = self._cupy
        if isinstance(values, cupy.ndarray):
            return values
        if hasattr(values, "__dlpack__"):
            return cupy.from_dlpack(values)  # its owner lets the current stream wait
        if values.__cuda_array_interface__.get("stream") is None:
            # Such as the interface's version 2: which stream writes it, nobody knows.
            with RECORDER.apart():
                cupy.cuda.runtime.deviceSynchronize()
        return cupy.asarray(values)  # waits for the stream that the interface names

    def _wait_for_caller(self) -> None:
        """Let our stream wait for what the caller's, the current one of CuPy, has been asked for so far."""
        with self._resources.lock, self._device, self._errors("waiting for the caller's stream"):
            self._stream.wait_event(self._cupy.cuda.get_current_stream().record())

    def give(self, array: Array, like: Any) -> Any:
        self._refuse_while_capturing("giving an array away")
        torch = torch_of(like)
        with self._device, self._errors("allocation"), self._memory_errors(array.nbytes):
            # Of the pool of the caller's stream, not of ours: there it goes back, in the order of their operations.
            if torch is None:
                result = self._cupy.empty(array.shape, array.dtype)
            else:
                result = empty_tensor(torch, array.shape, array.dtype, like)
        self.copy(self.take("result", result), array)
        self.synchronize()
        return result

    def to_numpy(self, array: Array) -> Array:
        self._refuse_while_capturing("reading an array")
        checked: Any = self._check(array, "to_numpy", contiguous=False)
        with self._current("a copy to the host"):
            values: Array = checked.get(stream=self._stream)
            self._last_good = self._last_operation
        return values

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
        staging = self._resources.staging
        if host.nbytes <= staging.segment_bytes:
            with self._current("a copy from the host"):
                self._copy_bytes(target.data.ptr, staging.stage(host), host.nbytes)
        else:
            # Rare and large: a data set, a vector of weights. The caller may overwrite it when this returns.
            self._copy_bytes(target.data.ptr, host.ctypes.data, host.nbytes)
            self.synchronize()

    def _copy_bytes(self, destination: int, source: int, size: int) -> None:
        runtime = self._cupy.cuda.runtime
        with self._current("a copy"):
            runtime.memcpyAsync(destination, source, size, runtime.memcpyDefault, self._stream.ptr)

    def free_bytes(self) -> int:
        with self._device, self._errors("asking for free memory"):
            free = int(self._cupy.cuda.runtime.memGetInfo()[0])
            pool = self._cupy.get_default_memory_pool()
            free += int(pool.free_bytes())
            limit = int(pool.get_limit())
            return min(free, max(limit - int(pool.used_bytes()), 0)) if limit else free

    def copy_lane(self, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[npt.DTypeLike]) -> Lane:
        with self._using("a buffer for batches"), self._memory_errors(lane_bytes(shapes, dtypes)):
            return CopyLane(self._cupy, self._stream, self._using, shapes, dtypes)

    def collectives(self) -> Collectives:
        return Nccl(self._cupy, self.index, self._stream, self._using, self._check)

    # --- kernels ----------------------------------------------------------------------------------------------------

    @contextmanager
    def array_module(self) -> Iterator[ModuleType]:
        self._refuse_while_capturing("an array expression")
        with self._current("an array expression"), self._memory_errors():
            yield self._cupy

    def load(self, source: str, options: Sequence[str], kernels: Sequence[str], name: str) -> Mapping[str, Any]:
        key = (self.index, source, tuple(options), tuple(kernels))
        with self._lock_of_kernels:
            lock = self._locks_of_sources.setdefault(key, threading.Lock())
        with lock:  # other threads may compile other files meanwhile
            if key not in self._loaded:
                self._loaded[key] = self._compile(*key[1:], name)
            return self._loaded[key]

    def _compile(self, source: str, options: tuple[str, ...], kernels: tuple[str, ...], name: str) -> dict[str, Any]:
        with self._device, self._errors(f"compiling {name}"):
            module = self._cupy.RawModule(code=source, options=options, name_expressions=kernels)
            try:
                # The Function itself: calling the RawKernel around it costs several microseconds more.
                return {expression: module.get_function(expression).kernel for expression in kernels}
            except self._cupy.cuda.compiler.CompileException as error:
                raise KernelCompileError(f"{name} does not compile for {self.model}: {error}") from error
            except (ImportError, AssertionError) as error:  # CuPy's, where NVRTC is missing or of another version
                raise self._device_error(f"compiling {name}", error) from error
            except OSError as error:
                raise self._device_error(
                    f"compiling {name}; the environment variable CUPY_CACHE_DIR can name another folder", error
                ) from error

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

        The size of a cluster is compiled into the kernel (CuPy launches no others): ``cluster`` says what it is.
        """
        for position, argument in enumerate(args):
            if not isinstance(argument, np.generic):
                self._check(argument, f"argument {position} of a kernel", contiguous=True)
        with self._resources.lock, self._device:
            try:
                if shared_memory > SHARED_MEMORY_WITHOUT_ASKING:
                    self._allow_shared_memory(kernel, shared_memory)
                kernel(
                    _dimensions(grid),
                    _dimensions(block),
                    tuple(args),
                    shared_mem=shared_memory,
                    stream=self._stream,
                    enable_cooperative_groups=cooperative,
                )
            except (RuntimeError, ValueError) as error:  # CuPy's own of a cooperative grid that does not fit
                failed = self._device_error(f"launching {self._operation_name(kernel)}", error)
                in_clusters = math.prod(_dimensions(cluster or 1)) > 1
                raise (ClusterRefusedError(str(failed)) if in_clusters and not _is_sticky(error) else failed) from error
            self._last_operation = kernel

    def _allow_shared_memory(self, kernel: Any, size: int) -> None:
        """Have the driver allow ``kernel`` at least ``size`` bytes: it keeps one number for all networks."""
        key = (self.index, kernel.ptr)
        with self._lock_of_kernels:
            if size > self._shared_memory_allowed.get(key, 0):
                driver = self._cupy.cuda.driver
                driver.funcSetAttribute(kernel.ptr, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, size)
                self._shared_memory_allowed[key] = size

    def _operation_name(self, operation: Any) -> str:
        """Return the C++ name of a kernel; what else there is has its name already."""
        names = (
            name for loaded in list(self._loaded.values()) for name, kernel in loaded.items() if kernel is operation
        )
        return next(names, str(operation))

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
            self._check(matrix, "gemm", contiguous=matrix.strides[-1] != matrix.itemsize)
        with self._current("a matrix product"):
            self._blas.gemm(a, b, out, transpose_a, transpose_b, accumulate, precision)
            self._last_operation = "a matrix product"

    def gemm_bias(
        self,
        a: Array,
        b: Array,
        bias: Array,
        out: Array,
        transpose_a: bool = False,
        transpose_b: bool = False,
        relu: bool = False,
        precision: str = "float32",
    ) -> bool:
        """Compute a product with an epilogue; see :meth:`Device.gemm_bias`."""
        blas_lt = self._resources.blas_lt
        if isinstance(blas_lt, str):
            raise DeviceError(blas_lt)
        if self._blas is not self._resources.blas:
            return False  # in a branch, beside products that use its workspace
        for array in (a, b, bias, out):
            self._check(array, "gemm_bias", contiguous=True)
        with self._current("a matrix product with a bias"):
            done = blas_lt.gemm_bias(a, b, bias, out, transpose_a, transpose_b, relu, precision)
            if done:
                self._last_operation = "a matrix product with a bias"
        return done

    # --- time -------------------------------------------------------------------------------------------------------

    def capture(self, step: Callable[[], object]) -> Replay:
        self._refuse_while_capturing("another capture")
        with self._resources.lock, RECORDER.recording(), self._device, self._stream:
            try:
                graph = self._record(step)
                graph.upload(self._stream)
            except (_DriverError, self._cupy.cuda.runtime.CUDARuntimeError) as error:
                raise RecordingRefusedError(f"{self.name} ({self.model}) refuses to record: {error}") from error
        return _GraphReplay(graph, self)

    def _record(self, step: Callable[[], object]) -> Any:
        self._stream.begin_capture()
        self._capturing = True
        try:
            step()
        except BaseException:
            self._abandon_capture()
            raise
        finally:
            self._capturing = self._has_branch = False
        return self._stream.end_capture()

    @contextmanager
    def beside(self) -> Iterator[None]:
        if not self._capturing:
            yield
            return
        self.join()
        resources = self._resources
        resources.event.record(resources.stream)
        resources.side_stream.wait_event(resources.event)  # it takes part in the recording from here on
        self._has_branch = True
        self._stream, self._blas = resources.side_stream, resources.side_blas
        try:
            yield
        finally:
            self._stream, self._blas = resources.stream, resources.blas

    def join(self) -> None:
        if self._has_branch:
            self._has_branch = False
            self._resources.event.record(self._resources.side_stream)
            self._resources.stream.wait_event(self._resources.event)

    def launch_graph(self, graph: Any) -> None:
        """Run a graph of :meth:`capture` again."""
        with self._resources.lock, self._device:
            try:
                graph.launch(self._stream)
            except RuntimeError as error:
                raise self._device_error("launching a recorded step", error) from error
            self._last_operation = "a recorded step"

    def _abandon_capture(self) -> None:
        """End a capture whose step has failed; the stream works again, and the step's own error is what counts."""
        try:
            self._stream.end_capture()
        except self._cupy.cuda.runtime.CUDARuntimeError:
            return

    def synchronize(self) -> None:
        self._refuse_while_capturing("waiting")
        with self._current("waiting for the device"):
            self._stream.synchronize()
            self._last_good = self._last_operation

    def record_event(self) -> Any:
        self._refuse_while_capturing("an event")
        with self._current("an event"):
            event = self._cupy.cuda.Event()
            event.record(self._stream)
        return event

    def elapsed(self, start: Any, stop: Any) -> float:
        with self._device, self._errors("waiting for an event"):
            stop.synchronize()
            return float(self._cupy.cuda.get_elapsed_time(start, stop)) / 1000

    # --- inside -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _current(self, what: str) -> Iterator[None]:
        """Make the device and its stream CuPy's current ones, and keep other threads from this stream.

        Memory that is freed then goes back to this stream's pool: another stream's could hand it out while operations
        on this stream still use it.
        """
        with self._resources.lock, self._device, self._stream, self._errors(what):
            yield

    @contextmanager
    def _using(self, what: str) -> Iterator[None]:
        self._refuse_while_capturing(what)
        with self._current(what):
            yield

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn the errors of CuPy, driver and compiler into ours."""
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, GpunetError):
                raise
            raise self._device_error(what, error) from error

    def _device_error(self, what: str, error: Exception) -> DeviceError:
        message = f"{self.name} ({self.model}), {what}: {_with_advice(error)}"
        if _is_sticky(error):
            good, last = self._operation_name(self._last_good), self._operation_name(self._last_operation)
            message += (
                f". The last operation known to have succeeded is {good}, the last one asked for is {last}. CUDA works "
                "again only after a restart of the process"
            )
        return _DriverError(message)

    @contextmanager
    def _memory_errors(self, size: int | None = None) -> Iterator[None]:
        """Turn CuPy's error into ours, for an allocation of ``size`` bytes, or what an expression allocates."""
        try:
            yield
        except self._cupy.cuda.memory.OutOfMemoryError:
            # CuPy has given unused blocks of its pool back before it gave up: what is free now is all there is.
            free, total = self._cupy.cuda.runtime.memGetInfo()
            wanted = "what an array expression needs" if size is None else f"{size:,} bytes"
            raise OutOfDeviceMemoryError(
                f"{self.name} ({self.model}) has no room for {wanted}: {free:,} of {total:,} are free. "
                "A smaller batch, float32 or fit(data_on='host') need less."
            ) from None

    def _check(self, array: Any, what: str, contiguous: bool) -> Array:
        """Return ``array`` if it lies on this device, or raise."""
        if not isinstance(array, self._cupy.ndarray):
            raise InvalidTypeError(
                f"{what}: got a {type(array).__name__} of the host. Expected an array on {self.name}."
            )
        if array.device.id != self.index:
            raise self._elsewhere(what, array.device.id)
        if contiguous and not array.flags.c_contiguous:
            raise InvalidTypeError(f"{what}: got a view with gaps. Expected a C-contiguous array.")
        return array

    def _elsewhere(self, what: str, index: int) -> InvalidTypeError:
        return InvalidTypeError(
            f"{what}: got an array on cuda:{index}. Expected one on {self.name}: copy it there, or make the network "
            f"with device='cuda:{index}'."
        )

    def _refuse_while_capturing(self, what: str) -> None:
        if self._capturing:
            raise DeviceError(f"{what} is not possible while a step is captured")


class _DriverError(DeviceError):
    """What CuPy, the driver or the compiler refused."""


class _GraphReplay:
    """A captured graph; see :class:`gpunet.backends.devices.device.Replay`."""

    def __init__(self, graph: Any, device: CupyDevice) -> None:
        self._graph = graph
        self._device = device

    @property
    def nodes(self) -> int | None:
        return count_kernels(self._graph.graph)

    @property
    def longest_chain(self) -> int | None:
        return longest_chain(self._graph.graph)

    def launch(self) -> None:
        self._device.launch_graph(self._graph)


def _is_sticky(error: Exception) -> bool:
    return any(name in str(error) for name in _STICKY_ERRORS)


def _device_index(values: Any) -> int | None:
    """Return the number of the device that an array says it is on; None where only its address tells."""
    if not hasattr(values, "__dlpack_device__"):
        return None
    return int(values.__dlpack_device__()[1])


def _dimensions(size: Dimensions) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,)


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
