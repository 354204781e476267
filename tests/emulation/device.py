"""The emulated device: the device seam of gpunet on a machine without a GPU."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from gpunet.errors import DeviceError
from gpunet.kernel_check.budgets import default_path, family, read_budgets
from gpunet.verification.storage import BFLOAT16, exact

from .compiler import ORDERS, EmulationError, Kernel, compiler_version, load_module, sanitizer_is_loaded
from .graph import Graph, Span
from .memory import Allocation, Allocator, View

Dimensions = tuple[int, int, int]

MOST_THREADS_PER_BLOCK = 1024
LARGEST_BLOCK = (1024, 1024, 64)
LARGEST_GRID = (2**31 - 1, 65535, 65535)
RESERVED_SHARED_MEMORY = 1024  # per resident block
# All the threads of a cooperative grid have a stack at the same time; of another grid, so many.
MOST_COOPERATIVE_THREADS = 65536
MOST_INTERLEAVED_THREADS = 2048
MOST_BLOCKS_PER_MULTIPROCESSOR = 32
REGISTERS_PER_MULTIPROCESSOR = 65536
PRECISIONS = ("float32", "tf32")
# uint16 holds the bits of bfloat16.
HALF_PRECISION = ("float16", "bfloat16", "uint16")


class _Operation(Protocol):
    """A checked piece of work: pointers and values only, nothing of the Python that asked for it."""

    @property
    def name(self) -> str: ...

    @property
    def read(self) -> Sequence[View]: ...

    @property
    def written(self) -> Sequence[View]: ...

    def run(self, device: EmulatedDevice) -> None: ...


@dataclass(frozen=True)
class _Launch:
    kernel: Kernel
    grid: Dimensions
    block: Dimensions
    cluster: Dimensions
    cooperative: bool
    shared_memory: int
    shared_memory_allowed: int
    resident_blocks: int
    values: tuple[bytes, ...]
    read: tuple[View, ...]
    written: tuple[View, ...]

    @property
    def name(self) -> str:
        return self.kernel.name

    def run(self, device: EmulatedDevice) -> None:
        seed = device.next_seed()
        self.kernel.run(
            self.grid,
            self.block,
            self.cluster,
            self.cooperative,
            self.shared_memory,
            self.shared_memory_allowed,
            self.values,
            self.resident_blocks,
            device.order or ORDERS[(seed >> 32) % len(ORDERS)],
            seed,
        )
        for buffer in (*self.read, *self.written):
            damage = buffer.allocation.damage()
            if damage is not None:
                raise EmulationError(f"{self.name}: {damage}")


@dataclass(frozen=True)
class _Gemm:
    a: View
    b: View
    out: View
    transpose_a: bool
    transpose_b: bool
    accumulate: bool
    precision: str
    bias: View | None = None
    relu: bool = False

    @property
    def name(self) -> str:
        return "gemm" if self.bias is None else "gemm_bias"

    @property
    def read(self) -> Sequence[View]:
        return (self.a, self.b, *([] if self.bias is None else [self.bias]))

    @property
    def written(self) -> Sequence[View]:
        return (self.out,)

    def run(self, device: EmulatedDevice) -> None:
        a, b = (_factor(view.array(), self.precision) for view in (self.a, self.b))
        product, out = np.matmul(a.T if self.transpose_a else a, b.T if self.transpose_b else b), self.out.array()
        if self.accumulate:
            product = product + _factor(out, "float32").astype(product.dtype)
        if self.bias is not None:
            product = product + _factor(self.bias.array(), "float32").astype(product.dtype)
        if self.relu:
            product = np.maximum(product, 0)
        out[...] = BFLOAT16.store(product) if out.dtype == BFLOAT16.dtype else product


@dataclass(frozen=True)
class _Copy:
    destination: View
    source: View
    name: str = "copy"

    @property
    def read(self) -> Sequence[View]:
        return (self.source,)

    @property
    def written(self) -> Sequence[View]:
        return (self.destination,)

    def run(self, device: EmulatedDevice) -> None:
        self.destination.array()[...] = self.source.array()


class Replay:
    """A recorded step: the launches, products and copies of one call, with the pointers and values of that time.

    Nothing else of the step is kept, as in a CUDA graph: no Python runs in :meth:`launch`, a host value that has
    changed since has no effect, and the buffers are not kept alive.

    Attributes
    ----------
    names : tuple of str
        The recorded operations, in the order in which they were asked for: kernel names, ``"gemm"`` and ``"copy"``.
    nodes : int
        The kernels among them, and the products, which are kernels too.
    longest_chain : int
        The most of them that wait for one another.

    Raises
    ------
    EmulationError
        If two operations may run at the same time, and one writes what the other reads or writes.
    """

    def __init__(self, device: EmulatedDevice, graph: Graph) -> None:
        self._device = device
        self._graph = graph
        self._launches = 0
        self.names = tuple(operation.name for operation in graph.operations)
        self.nodes = sum(map(_is_kernel, graph.operations))
        self.longest_chain = graph.longest_chain(_is_kernel)
        for first, second in graph.races(_accesses):
            raise EmulationError(f"a race: {second.name} does not wait for {first.name}, asked for before it")

    def launch(self) -> None:
        """Run the recorded operations again, in another of the orders that are possible.

        Raises
        ------
        EmulationError
            If a buffer of an operation has been freed since it was recorded: a GPU would read or overwrite
            whatever lies there now.
        """
        self._device.refuse_while_capturing("Replay.launch")
        self._launches += 1
        for operation in self._graph.shuffled(self._launches):
            for view in (*operation.read, *operation.written):
                if not self._device.is_alive(view.allocation):
                    raise EmulationError(
                        f"replay of {operation.name}: its buffer of shape {view.allocation.shape}, "
                        f"{view.allocation.dtype}, was freed after the capture"
                    )
            operation.run(self._device)


def _is_kernel(operation: _Operation) -> bool:
    return not isinstance(operation, _Copy)


def _accesses(operation: _Operation) -> tuple[list[Span], list[Span]]:
    return [view.span for view in operation.read], [view.span for view in operation.written]


class Lane:
    """What brings batches from the host; see :class:`gpunet.backends.devices.device.Lane`."""

    def __init__(self, device: EmulatedDevice, dtypes: Sequence[DTypeLike]) -> None:
        self._device = device
        self._dtypes = dtypes
        self._staged: list[np.ndarray] = []

    def stage(self, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        self._staged = [np.empty(shape, dtype) for shape, dtype in zip(shapes, self._dtypes, strict=True)]
        return self._staged

    def send(self) -> None:
        pass

    def receive(self, destinations: Sequence[np.ndarray]) -> None:
        for staged, destination in zip(self._staged, destinations, strict=True):
            self._device.copy(destination, staged)


class EmulatedDevice:
    """A CUDA device made of g++ and NumPy; it compiles the real kernels and runs every thread of every launch.

    Arrays are NumPy arrays whose memory this device owns. A kernel is given only those, as a GPU could only
    reach its own memory.

    Parameters
    ----------
    seed : int
        Seed of the order in which blocks and threads run. Each launch draws a new order from it.
    sanitize : bool
        Compile with the address and undefined-behaviour sanitizers; the process must have been started with
        :func:`sanitizer_environment`. A finding ends the process with the sanitizer's report.
    compute_capability : tuple of two ints
        What the device claims to be; ``__CUDA_ARCH__`` follows it. Clusters need (9, 0).
    multiprocessor_count : int
        What the device claims to have; it limits cooperative launches.
    guard_bytes : int
        Guard zone on each side of a buffer, a multiple of 256. Ignored with `sanitize`.
    order : str, optional
        One of ``ORDERS``: in which order threads run. By default, each launch draws one of them from `seed`.

    Attributes
    ----------
    name : str
    shared_memory_per_block : int
        Largest static and dynamic shared memory of a block, in bytes.
    shared_memory_per_multiprocessor, l2_bytes : int
        In bytes.
    max_cluster_size, warp_size : int

    Raises
    ------
    EmulationError
        If g++ is missing, or `sanitize` is asked for in a process without the sanitizer.
    """

    warp_size = 32
    threads_per_multiprocessor = 2048
    shared_memory_per_block = 227 * 1024
    shared_memory_per_multiprocessor = 228 * 1024
    l2_bytes = 50 * 1024 * 1024

    def __init__(
        self,
        seed: int = 0,
        sanitize: bool = False,
        compute_capability: tuple[int, int] = (9, 0),
        multiprocessor_count: int = 132,
        guard_bytes: int = 256,
        order: str | None = None,
    ) -> None:
        if sanitize and not sanitizer_is_loaded():
            raise EmulationError("sanitize=True needs a process started with sanitizer_environment()")
        major, minor = compute_capability
        self.name = f"emulated sm_{major}{minor}, {compiler_version()}"
        self.compute_capability = compute_capability
        self.multiprocessor_count = multiprocessor_count
        self.max_cluster_size = 8 if compute_capability >= (9, 0) else 1
        self.order = order
        self._sanitize = sanitize
        self._seeds = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
        self._launches = 0
        self._memory = Allocator(0 if sanitize else guard_bytes)
        self._recording: Graph | None = None
        # What the next operation of the recording waits for; what the branch has come to, if there is one.
        self._last: frozenset[int] = frozenset()
        self._branch: frozenset[int] = frozenset()

    # ------------------------------------------------------------------------------------------------ memory

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return an uninitialised array: every byte is 0xFF, which is NaN in a floating-point type.

        Raises
        ------
        EmulationError
            During a capture.
        """
        self.refuse_while_capturing("empty")
        return self._memory.allocate(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return an array of zeros."""
        array = self.empty(shape, dtype)
        array.fill(0)
        return array

    def asarray(self, array: ArrayLike, dtype: DTypeLike | None = None) -> np.ndarray:
        """Return `array` as a C-contiguous device array; a copy, unless it is one already.

        Raises
        ------
        EmulationError
            If a copy is needed during a capture.
        """
        host = np.asarray(array, dtype=dtype)
        if host is array and host.flags.c_contiguous and self._memory.find(host) is not None:
            return host
        device_array = self.empty(host.shape, host.dtype)
        device_array[...] = host
        return device_array

    def take(self, argument: str, values: Any) -> np.ndarray:
        """Return an array over the memory of any object with `__cuda_array_interface__`, which is the host's here."""
        self.refuse_while_capturing("take")
        return np.asarray(SimpleNamespace(__array_interface__=values.__cuda_array_interface__, owner=values))

    def give(self, array: np.ndarray, like: Any) -> np.ndarray:
        """Return a copy of a device array, or of what an array expression made of one."""
        given = self.empty(array.shape, array.dtype)
        given[...] = array
        return given

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        """Return a copy of a device array in the memory of the host."""
        self.refuse_while_capturing("to_numpy")
        self._memory.view(array, "the array")
        return np.array(array, copy=True, order="C")

    def copy(self, destination: np.ndarray, source: np.ndarray) -> None:
        """Copy `source` into `destination`: equal shape and dtype, both C-contiguous.

        `source` may be an array of the host, but not during a capture, which would keep its address only.
        """
        if destination.shape != source.shape or destination.dtype != source.dtype:
            raise ValueError(f"copy of {source.shape}, {source.dtype}, into {destination.shape}, {destination.dtype}")
        if not (destination.flags.c_contiguous and source.flags.c_contiguous):
            raise ValueError("copy needs C-contiguous arrays")
        target = self._memory.view(destination, "the destination of the copy")
        if self._memory.find(source) is None:
            self.refuse_while_capturing("copy from the host")
            destination[...] = source
        else:
            self._submit(_Copy(target, self._memory.view(source, "the source of the copy")))

    def check_guards(self) -> None:
        """Raise EmulationError when anything has written just outside a buffer that is alive.

        A launch checks the buffers it was given; this checks all of them.
        """
        self._memory.check_guards()

    def is_alive(self, allocation: Allocation) -> bool:
        """Whether the buffer has not been freed."""
        return self._memory.is_alive(allocation)

    def free_bytes(self) -> int:
        """Return how much memory arrays could still be given: more than any test has."""
        return 1 << 40

    def copy_lane(self, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[DTypeLike]) -> Lane:
        """Return a lane whose copies are made when they are received: this device does one thing at a time."""
        return Lane(self, dtypes)

    def collectives(self) -> Any:
        """Raise DeviceError: no other process has such a device."""
        raise DeviceError(f"{self.name} has no NCCL")

    # ----------------------------------------------------------------------------------------------- kernels

    @contextmanager
    def array_module(self) -> Iterator[Any]:
        """Return a context whose value is NumPy, which computes on this device's arrays; not during a capture."""
        self.refuse_while_capturing("an array expression")
        yield np

    def load(self, source: str, options: Sequence[str], kernels: Sequence[str], name: str) -> Mapping[str, Kernel]:
        """Compile one module.

        Parameters
        ----------
        source : str
            CUDA C++, complete: nothing is included from elsewhere.
        options : sequence of str
            Options of NVRTC. ``-DNAME=value`` is used; the others have no meaning here and are ignored.
        kernels : sequence of str
            C++ names of the kernels, with template arguments: ``"batch_norm_forward<float, 2>"``.
        name : str
            File name for error messages.

        Returns
        -------
        mapping from each of `kernels` to its Kernel

        Raises
        ------
        EmulationError
            With the compiler's message.
        """
        major, minor = self.compute_capability
        defines = [option for option in options if option.startswith("-D")]
        defines.append(f"-D__CUDA_ARCH__={major * 100 + minor * 10}")
        return load_module(source, defines, kernels, name, self._sanitize)

    def launch(
        self,
        kernel: Kernel,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        args: Sequence[Any],
        shared_memory: int = 0,
        cluster: int | tuple[int, ...] | None = None,
        cooperative: bool = False,
        shared_memory_allowed: int | None = None,
    ) -> None:
        """Run a kernel, or record it during a capture.

        Parameters
        ----------
        kernel : Kernel
        grid, block : int or tuple of up to three ints
            Number of blocks, and threads of a block.
        args : sequence
            Device arrays and NumPy scalars; ``np.uint64(0)`` is a null pointer.
        shared_memory : int
            Bytes of dynamic shared memory of a block.
        cluster : int or tuple of up to three ints, optional
            Blocks of a cluster.
        cooperative : bool
            Whether ``grid_sync`` may be used: all blocks must then fit on the device together.
        shared_memory_allowed : int, optional
            Bytes of static and dynamic shared memory that the driver allows this kernel; by default, what the device
            has.

        Raises
        ------
        TypeError
            If the arguments do not fit the kernel's parameters in number, kind or size, or an array is not on
            the device. A GPU would not notice.
        EmulationError
            If the device cannot run this configuration, or the kernel fails.
        """
        kernel.check_arguments(args)
        blocks, threads, extent = _three(grid), _three(block), _three(1 if cluster is None else cluster)
        resident = self._resident_blocks(kernel, math.prod(threads), shared_memory)
        self._check_configuration(blocks, threads, extent, cooperative, shared_memory, resident)
        values: list[bytes] = []
        read: list[View] = []
        written: list[View] = []
        for position, (argument, parameter) in enumerate(zip(args, kernel.parameters, strict=True)):
            if isinstance(argument, np.ndarray):
                view = self._memory.view(argument, f"{kernel.name}: argument {position}")
                (read if parameter.pointee_constant else written).append(view)
                values.append(np.uintp(view.address).tobytes())
            else:
                values.append(argument.tobytes())
        self._submit(
            _Launch(
                kernel,
                blocks,
                threads,
                extent,
                cooperative,
                shared_memory,
                self.shared_memory_per_block if shared_memory_allowed is None else shared_memory_allowed,
                min(resident, max(1, MOST_INTERLEAVED_THREADS // math.prod(threads))),
                tuple(values),
                tuple(read),
                tuple(written),
            )
        )

    def _resident_blocks(self, kernel: Kernel, threads: int, shared_memory: int) -> int:
        """Return how many blocks are on the device together; 0 where it has too few registers for one."""
        warps = -(-threads // self.warp_size)
        per_multiprocessor = min(
            MOST_BLOCKS_PER_MULTIPROCESSOR,
            self.threads_per_multiprocessor // (max(warps, 1) * self.warp_size),
            self.shared_memory_per_multiprocessor // (max(shared_memory, 0) + RESERVED_SHARED_MEMORY),
            REGISTERS_PER_MULTIPROCESSOR // (max(warps, 1) * self.warp_size * _registers(kernel.name)),
        )
        return per_multiprocessor * self.multiprocessor_count

    def _check_configuration(
        self,
        grid: Dimensions,
        block: Dimensions,
        cluster: Dimensions,
        cooperative: bool,
        shared_memory: int,
        resident: int,
    ) -> None:
        def require(condition: bool, problem: str) -> None:
            if not condition:
                raise EmulationError(f"invalid launch configuration: {problem}")

        threads = math.prod(block)
        blocks = math.prod(grid)
        require(min(grid) > 0 and min(block) > 0 and min(cluster) > 0, f"grid {grid}, block {block}")
        require(all(size <= most for size, most in zip(grid, LARGEST_GRID, strict=True)), f"grid {grid}")
        require(all(size <= most for size, most in zip(block, LARGEST_BLOCK, strict=True)), f"block {block}")
        require(threads <= MOST_THREADS_PER_BLOCK, f"{threads} threads in a block")
        require(0 <= shared_memory <= self.shared_memory_per_block, f"{shared_memory} bytes of shared memory")
        require(resident > 0, f"{threads} threads of a block need more registers than a multiprocessor has")
        if math.prod(cluster) > 1:
            require(self.compute_capability >= (9, 0), "clusters need compute capability 9.0")
            require(math.prod(cluster) <= self.max_cluster_size, f"cluster {cluster}")
            fits = all(size % part == 0 for size, part in zip(grid, cluster, strict=True))
            require(fits, f"grid {grid} is not a multiple of cluster {cluster}")
            require(not cooperative, "a cooperative launch with clusters is not emulated")
        if cooperative:
            require(blocks <= resident, f"{blocks} blocks of a cooperative launch, {resident} fit on the device")
            require(
                blocks * threads <= MOST_COOPERATIVE_THREADS,
                f"{blocks * threads} threads of a cooperative launch, {MOST_COOPERATIVE_THREADS} can be emulated: "
                "give the device a smaller multiprocessor_count",
            )

    def gemm(
        self,
        a: np.ndarray,
        b: np.ndarray,
        out: np.ndarray,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
        precision: str = "float32",
    ) -> None:
        """Compute ``out = op(a) @ op(b)``, or add it to `out`; row-major, rows contiguous.

        Parameters
        ----------
        a, b : (n, k) and (k, m) device arrays, each after its transposition
            float16, bfloat16 of ml_dtypes, float32 or float64; of one dtype.
        out : (n, m) device array
            Of the same dtype, or float32 for factors in half precision. It must not overlap the factors.
        transpose_a, transpose_b : bool
        accumulate : bool
        precision : {"float32", "tf32"}
            Of the products of float32 factors; "tf32" first rounds the factors to 10 bits of mantissa.

        Raises
        ------
        ValueError
            If shapes, dtypes, layouts or the precision do not fit.
        """
        views = self._product(a, b, out, transpose_a, transpose_b, precision)
        self._submit(_Gemm(*views, transpose_a, transpose_b, accumulate, precision))

    def gemm_bias(
        self,
        a: np.ndarray,
        b: np.ndarray,
        bias: np.ndarray,
        out: np.ndarray,
        transpose_a: bool = False,
        transpose_b: bool = False,
        relu: bool = False,
        precision: str = "float32",
    ) -> bool:
        """Compute ``out = op(a) @ op(b) + bias``, or what of it is above 0; NaN stays NaN.

        Parameters
        ----------
        a, b, out, transpose_a, transpose_b, precision
            As in :meth:`gemm`.
        bias : (m,) device array
        relu : bool

        Returns
        -------
        bool
            False where cublasLt would have nothing for it: `bias` is of another dtype than `out`, or not aligned to 16
            bytes.

        Raises
        ------
        ValueError
            As in :meth:`gemm`, and if the shape of `bias` does not fit or its elements have gaps.
        """
        views = self._product(a, b, out, transpose_a, transpose_b, precision)
        if bias.shape != out.shape[1:] or not bias.flags.c_contiguous:
            raise ValueError(f"gemm into {out.shape} with a bias of shape {bias.shape}, strides {bias.strides}")
        view = self._memory.view(bias, "gemm_bias: bias")
        if bias.dtype != out.dtype or view.address % 16:
            return False
        self._submit(_Gemm(*views, transpose_a, transpose_b, False, precision, view, relu))
        return True

    def _product(
        self,
        a: np.ndarray,
        b: np.ndarray,
        out: np.ndarray,
        transpose_a: bool,
        transpose_b: bool,
        precision: str,
    ) -> tuple[View, View, View]:
        """Return where the matrices of a product are, if they fit."""
        if a.ndim != 2 or b.ndim != 2 or out.ndim != 2:
            raise ValueError(f"gemm of arrays of shapes {a.shape}, {b.shape}, {out.shape}: needs matrices")
        rows, inner = a.shape[::-1] if transpose_a else a.shape
        inner_b, columns = b.shape[::-1] if transpose_b else b.shape
        if inner != inner_b or out.shape != (rows, columns):
            raise ValueError(f"gemm of {(rows, inner)} by {(inner_b, columns)} into {out.shape}, after transposition")
        half = a.dtype.name in HALF_PRECISION
        if not (half or a.dtype in (np.float32, np.float64)) or b.dtype != a.dtype:
            raise ValueError(f"gemm of {a.dtype} by {b.dtype}")
        if out.dtype != a.dtype and not (half and out.dtype == np.float32):
            raise ValueError(f"gemm of {a.dtype} into {out.dtype}")
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r} is not one of {PRECISIONS}")
        for matrix in (a, b, out):
            if matrix.shape[1] > 1 and matrix.strides[1] != matrix.itemsize:
                raise ValueError("gemm needs matrices whose rows are contiguous")
            if matrix.shape[0] > 1 and matrix.strides[0] < matrix.shape[1] * matrix.itemsize:
                raise ValueError("gemm needs matrices whose rows do not overlap")
        if np.may_share_memory(a, out) or np.may_share_memory(b, out):
            raise ValueError("gemm into one of its factors")
        view = self._memory.view
        return view(a, "gemm: a"), view(b, "gemm: b"), view(out, "gemm: out")

    def _submit(self, operation: _Operation) -> None:
        if self._recording is None:
            operation.run(self)
        else:
            self._last = self._recording.add(operation, self._last)

    def next_seed(self) -> int:
        """Return the seed of the next launch."""
        self._launches += 1
        return (int(self._seeds) + self._launches * 0x9E3779B97F4A7C15) % 2**64

    # ------------------------------------------------------------------------------------- capture and timing

    def capture(self, step: Callable[[], object]) -> Replay:
        """Record the launches, products and copies of ``step()`` without running them.

        As in the capture of a CUDA graph, `step` must not wait for the device, read from it, or allocate:
        `empty`, `zeros`, `asarray` of host data, `to_numpy`, a copy from the host, `synchronize`, the events and
        another capture raise EmulationError.

        Parameters
        ----------
        step : callable without arguments

        Returns
        -------
        Replay
        """
        self.refuse_while_capturing("capture")
        self._recording, self._last, self._branch = Graph(), frozenset(), frozenset()
        try:
            step()
            if self._branch - self._recording.followed(self._last):
                raise EmulationError("the capture has a branch that was not joined")
            return Replay(self, self._recording)
        finally:
            self._recording = None

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Return a context whose operations form a branch of the capture; outside one, it does nothing."""
        self.join()
        begun = self._last
        yield
        self._last, self._branch = begun, self._last

    def join(self) -> None:
        """Let what follows in the capture wait for the branch."""
        self._last, self._branch = self._last | self._branch, frozenset()

    def refuse_while_capturing(self, what: str) -> None:
        """Raise EmulationError during a capture."""
        if self._recording is not None:
            raise EmulationError(f"{what} is not permitted during a capture")

    def synchronize(self) -> None:
        """Wait for the device: every operation has ended when its call returns, so this only checks."""
        self.refuse_while_capturing("synchronize")

    def record_event(self) -> float:
        """Return a point in time for :meth:`elapsed`."""
        self.refuse_while_capturing("record_event")
        return time.perf_counter()

    def elapsed(self, start: float, stop: float) -> float:
        """Return the seconds between two events, on the host's clock."""
        return stop - start


@functools.cache
def _registers(kernel: str) -> int:
    """Return the registers of a thread of one of gpunet's kernels: its budget. Of others nothing is known."""
    budgets = read_budgets(default_path()).registers
    return next((families[family(kernel)] for families in budgets.values() if family(kernel) in families), 1)


def _three(dimensions: int | tuple[int, ...]) -> Dimensions:
    given = (dimensions,) if isinstance(dimensions, (int, np.integer)) else tuple(dimensions)
    if not 1 <= len(given) <= 3:
        raise EmulationError(f"invalid launch configuration: {len(given)} dimensions in {given}")
    x, y, z = (*(int(size) for size in given), 1, 1)[:3]
    return x, y, z


def _factor(values: np.ndarray, precision: str) -> np.ndarray:
    """Return what the device multiplies: half precision is of storage only, products and sums are float32."""
    if values.dtype.name in HALF_PRECISION:
        return (exact(values) if values.dtype == BFLOAT16.dtype else values).astype(np.float32)
    return _round_to_tf32(values) if precision == "tf32" and values.dtype == np.float32 else values


def _round_to_tf32(values: np.ndarray) -> np.ndarray:
    """Round to 10 bits of mantissa, to the nearest, ties away from zero, as the GPU's conversion does."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(values), rounded, values)
