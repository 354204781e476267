"""The seam to the hardware: all that the CUDA backend asks of a device.

:class:`~gpunet.backends.devices.cupy.CupyDevice` is the real one. The tests have another, which compiles the same
kernels for the CPU; everything above this seam therefore runs, launch configurations and argument order included, on a
machine without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpunet.errors import DeviceError

Array = npt.NDArray[Any]
Dimensions = int | tuple[int, ...]
Argument = Array | np.generic

# What a kernel takes for a pointer that it is not to follow.
NULL = np.uint64(0)


class KernelCompileError(DeviceError):
    """CUDA C++ that the compiler refuses; the message has what it said."""


class RecordingRefusedError(DeviceError):
    """A step that the driver refuses to record; it has not run."""


class ClusterRefusedError(DeviceError):
    """A launch in clusters that the driver refuses; nothing has run."""


class Replay(Protocol):
    """A recorded step.

    Attributes
    ----------
    nodes : int or None
        Kernels in the recording; None where the driver does not tell.
    longest_chain : int or None
        The most of them that have to wait for one another; None likewise.
    """

    @property
    def nodes(self) -> int | None: ...

    @property
    def longest_chain(self) -> int | None: ...

    def launch(self) -> Any:
        """Run the recorded operations again, on the same buffers."""


class Lane(Protocol):
    """What brings one batch after the other from the host into arrays of the device.

    For each batch: :meth:`stage`, write the arrays, :meth:`send`; and :meth:`receive` before the next :meth:`stage`. A
    batch that was sent and not received is dropped with the next.
    """

    def stage(self, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
        """Return uninitialised arrays on the host to write the next batch into.

        Waits until the copy of the batch before the last one is done, which it normally is.
        """

    def send(self) -> None:
        """Begin to copy what was written."""

    def receive(self, destinations: Sequence[Array]) -> None:
        """Copy what was sent into arrays of the device of those shapes, in the order of its other operations."""


class CollectiveLane(Protocol):
    """The place of one process in a job of several, whose devices exchange arrays.

    Every process calls the same operations in the same order. Each waits for what its device has been asked for before
    the call, and runs beside what it is asked for afterwards, until the callable that it returns is called: what is
    asked for from then on waits for it. Before, nobody touches its arrays. Not while capturing.
    """

    def all_gather(self, part: Array, out: Array) -> Callable[[], None]:
        """Write the parts of all processes, in order: ``out`` has as many times the elements of ``part``."""

    def all_to_all(self, parts: Array, out: Array) -> Callable[[], None]:
        """Write what each process has for this one, in order."""

    def all_reduce(self, array: Array) -> Callable[[], None]:
        """Add up the arrays of all processes, in place."""


class Collectives(Protocol):
    """What moves arrays between the devices of several processes.

    Attributes
    ----------
    place : str
        Tells the device from every other, of this machine and of others.
    version : str
        Which has to be that of the others.
    """

    @property
    def place(self) -> str: ...

    @property
    def version(self) -> str: ...

    def new_job(self) -> Any:
        """Return what the processes of a new job find each other by; it pickles. One of them calls this."""

    def join(self, job: Any, rank: int, size: int) -> CollectiveLane:
        """Take part in a job; returns when all its processes do, each on a device of its own."""


class Device(Protocol):
    """A CUDA device with one stream: operations run in the order in which they are asked for.

    Attributes
    ----------
    name : str
        ``"cuda:0"``.
    compute_capability : tuple of two ints
    multiprocessor_count : int
    threads_per_multiprocessor : int
        The most that a multiprocessor has at once.
    shared_memory_per_block : int
        The largest static and dynamic shared memory of a block together, in bytes.
    shared_memory_per_multiprocessor : int
        In bytes.
    l2_bytes : int
        Size of the level-2 cache.
    max_cluster_size : int
        Blocks in the largest cluster; 1 where the device has no clusters.
    """

    @property
    def name(self) -> str: ...

    @property
    def compute_capability(self) -> tuple[int, int]: ...

    @property
    def multiprocessor_count(self) -> int: ...

    @property
    def threads_per_multiprocessor(self) -> int: ...

    @property
    def shared_memory_per_block(self) -> int: ...

    @property
    def shared_memory_per_multiprocessor(self) -> int: ...

    @property
    def l2_bytes(self) -> int: ...

    @property
    def max_cluster_size(self) -> int: ...

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return an uninitialised C-contiguous array on the device; not while capturing."""

    def zeros(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return an array of zeros on the device; not while capturing."""

    def asarray(self, array: Array) -> Array:
        """Return ``array`` as a C-contiguous device array: itself where it is one, otherwise a copy."""

    def take(self, argument: str, values: Any) -> Array:
        """Return any array in CUDA memory, whosever it is, as an array of this device, without a copy.

        Any view, of any dtype. Operations from now on wait for what still writes it: on the stream that its library
        says (DLPack, or the stream of ``__cuda_array_interface__``), on CuPy's current one for CuPy's own, and on
        every stream where nothing is said. Not while capturing.

        Raises
        ------
        InvalidTypeError
            It is on another device; the message begins with ``argument``.
        """

    def give(self, array: Array, like: Any) -> Any:
        """Return a copy of a device array in memory of the caller's: PyTorch's where ``like`` is, otherwise CuPy's.

        It is finished when this returns, so any stream may use it. Not while capturing.
        """

    def to_numpy(self, array: Array) -> Array:
        """Return a copy of a device array on the host, after all operations before; not while capturing."""

    def copy(self, destination: Array, source: Array) -> None:
        """Copy ``source``, on the host or the device, into ``destination``, of equal shape and dtype.

        A host array may be overwritten as soon as this returns. While capturing, ``source`` is on the device.
        """

    def free_bytes(self) -> int:
        """Return how much memory arrays could still be given."""

    def copy_lane(self, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[npt.DTypeLike]) -> Lane:
        """Return what brings batches of such arrays, at most so large, from the host; not while capturing."""

    def collectives(self) -> Collectives:
        """Return what moves arrays between this device and those of other processes; not while capturing.

        Raises
        ------
        DeviceError
            There is nothing that does.
        """

    def array_module(self) -> AbstractContextManager[Any]:
        """Return a context in which array expressions run on this device, in order with its other operations.

        Its value is the library to write them with: CuPy, or NumPy where arrays are NumPy's. NumPy's functions and
        operators hand arrays of CuPy's to it. Not while capturing.
        """

    def load(self, source: str, options: Sequence[str], kernels: Sequence[str], name: str) -> Mapping[str, Any]:
        """Compile CUDA C++ and return its kernels by the C++ names asked for.

        Parameters
        ----------
        source : str
            Complete: nothing but the compiler's own headers is included from elsewhere.
        options : sequence of str
            Options of NVRTC.
        kernels : sequence of str
            With template arguments: ``"sgd_step<float, 4, true>"``.
        name : str
            File name for error messages.

        Raises
        ------
        KernelCompileError
        """

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
        """Run a kernel of :meth:`load`.

        Parameters
        ----------
        kernel : object
        grid, block, cluster : int or tuple of up to three ints
        args : sequence
            Device arrays and NumPy scalars of exactly the width the kernel declares; ``NULL`` for no array.
        shared_memory : int
            Bytes of dynamic shared memory of a block.
        cooperative : bool
            Whether the blocks synchronise with one another.

        Raises
        ------
        ClusterRefusedError
            There is no room for a cluster of this size with so much shared memory: on a slice of a GPU, or on a part
            with few multiprocessors. The same kernel without clusters may run.
        """

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
        """Compute out = op(a) op(b), or out + op(a) op(b); row-major matrices.

        Parameters
        ----------
        precision : str
            ``"float32"`` or ``"tf32"``: how float32 factors are multiplied. Half precision is summed in float32.
        """

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
        """Compute out = op(a) op(b) + bias, or max(0, op(a) op(b) + bias), in one operation, if the device has one.

        Parameters
        ----------
        a, b, out, transpose_a, transpose_b, precision
            As in :meth:`gemm`.
        bias : array, (m,)
            One number for each column of out.
        relu : bool
            What becomes of NaN is not said.

        Returns
        -------
        bool
            False where nothing was done: there is no such operation on the device, for these sizes, or for a bias of
            another dtype than out or one that is not aligned to 16 bytes.

        Raises
        ------
        DeviceError
            The library for it is missing, or refuses.
        """

    def capture(self, step: Callable[[], object]) -> Replay:
        """Record the launches, products and copies of ``step()`` without running them.

        The caller keeps the buffers alive. Each operation of the recording waits for those asked for before it; see
        :meth:`beside` for those that may run at the same time.

        Raises
        ------
        RecordingRefusedError
            The step can be run, and nothing else speaks against it.
        """

    def beside(self) -> AbstractContextManager[None]:
        """Return a context whose operations form a branch of the recording: the others do not wait for them.

        The branch waits for what was asked for before the context. What is asked for after it runs beside the branch,
        until :meth:`join`: so neither writes what the other reads or writes. There is one branch at a time: beginning
        another joins this one first. Where nothing is recorded, operations run in the order in which they are asked
        for.
        """

    def join(self) -> None:
        """Let what is asked for from now on wait for the branch of :meth:`beside`, if there is one."""

    def synchronize(self) -> None:
        """Wait until every operation has finished."""

    def record_event(self) -> Any:
        """Return a point in the device's time."""

    def elapsed(self, start: Any, stop: Any) -> float:
        """Return the seconds between two events of :meth:`record_event`."""
