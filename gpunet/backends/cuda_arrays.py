"""The ground of the CUDA backend: arrays on the device, launches, recorded steps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends import kernel_library as library
from gpunet.backends import launch_plans as plans
from gpunet.backends.arrays import Array
from gpunet.backends.base import Backend
from gpunet.backends.devices.device import NULL, Argument, Device, Dimensions, Replay


class CudaArrays(Backend):
    """Keeps arrays on a device and launches kernels there; the operations themselves are those of subclasses.

    Parameters
    ----------
    device : Device
    precision : str
        See :class:`~gpunet.backends.cuda.CudaBackend`.
    """

    name = "cuda"
    synchronous = False

    def __init__(self, device: Device, precision: str = "float32") -> None:
        super().__init__()
        self.device = device
        self.precision = precision
        self._kernels = library.KernelLibrary(device)
        self._counters: Array | None = None
        self._held: list[Array] | None = None

    @property
    def device_name(self) -> str:
        return self.device.name

    @property
    def arithmetic(self) -> dict[str, str | None]:
        return {
            "device": getattr(self.device, "model", self.device.name),
            "NumPy": np.__version__,  # draws the order of the examples
            "CuPy": getattr(sys.modules.get("cupy"), "__version__", None),
        }

    # --- arrays ---------------------------------------------------------------------------------------------------

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        return self.device.empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        return self.device.zeros(shape, dtype)

    def asarray(self, array: Array) -> Array:
        return self.device.asarray(array)

    def fetch(self, argument: str, values: Any) -> Array:
        return self.device.fetch(values)

    def to_numpy(self, array: Array) -> Array:
        return self.device.to_numpy(array)

    def copy(self, source: Array, destination: Array) -> None:
        if isinstance(source, np.ndarray) and not source.flags.c_contiguous:
            source = np.ascontiguousarray(source)
        self._hold(source, destination)
        self.device.copy(destination, source)

    def synchronize(self) -> None:
        self.device.synchronize()

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return a callable that repeats ``step`` by one launch of a recorded graph.

        The recording holds the arrays that ``step`` used, scratch buffers included: a later and larger batch may
        replace those, and the graph goes on with its own.
        """
        held: list[Array] = []
        self._held = held
        try:
            replay = self.device.capture(step)
        finally:
            self._held = None
        return _Recording(replay, held)

    # --- launching ------------------------------------------------------------------------------------------------

    def _launch(
        self,
        kernel: Any,
        grid: Dimensions,
        block: Dimensions,
        args: Sequence[Argument | None],
        shared_memory: int = 0,
        cluster: Dimensions | None = None,
    ) -> None:
        """Launch a kernel; None stands for a null pointer."""
        arguments = [NULL if argument is None else argument for argument in args]
        self._hold(*(argument for argument in args if argument is not None and not isinstance(argument, np.generic)))
        self.device.launch(kernel, grid, block, arguments, shared_memory=shared_memory, cluster=cluster)

    def _hold(self, *arrays: Array) -> None:
        """Keep arrays alive with the recording that is being made, if one is."""
        if self._held is not None:
            self._held.extend(arrays)

    def _zeroed_counters(self, count: int) -> Array:
        """Return words of device memory that are 0, and that every kernel leaves 0."""
        if self._counters is None or self._counters.size < count:
            self._counters = self.zeros(plans.power_of_two(max(count, 64)), np.uint32)
        return self._counters


class _Recording:
    """A recorded step, with the arrays that it reads and writes."""

    def __init__(self, replay: Replay, held: list[Array]) -> None:
        self._replay = replay
        self._held = held

    def __call__(self) -> None:
        self._replay.launch()
