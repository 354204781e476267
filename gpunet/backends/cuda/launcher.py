"""What every launch stands on: compiled kernels, scratch memory, the launch itself, and its recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunet.activations import Activation
from gpunet.backends.arrays import Array, Scratch
from gpunet.backends.cuda.grids import power_of_two
from gpunet.backends.cuda.kernel_library import KernelLibrary
from gpunet.backends.cuda.tuning import ESTIMATES, Tuning
from gpunet.backends.devices.device import NULL, Argument, Device, Dimensions, Replay
from gpunet.backends.switches import CLUSTERS


class Launcher:
    """Launches kernels on one device; what kernel, on which grid, the files named like the kernels say.

    Parameters
    ----------
    device : Device
    has_clusters : bool
        False where the device is known to refuse clusters.
    tuning : Tuning

    Attributes
    ----------
    device : Device
    kernels : KernelLibrary
    scratch : Scratch
    max_cluster_size : int
        Blocks of the largest cluster that plans may have: the device's, or 1 with ``GPUNET_CLUSTERS=0`` and where one
        was refused.
    tuning : Tuning
        Constants of the launch plans.
    batch_norm_choice : tuple of (str or None, int or None)
        Algorithm and cluster size of batch norm, where a check chooses them and not an estimate; see
        :func:`gpunet.backends.cuda.batch_norm.plan_forward`.
    compared : set of (Activation, type)
        Activations of the user's own whose texts compute what their NumPy functions do, in float32 or float64.
    """

    def __init__(self, device: Device, has_clusters: bool = True, tuning: Tuning = ESTIMATES) -> None:
        self.device = device
        self.kernels = KernelLibrary(device)
        self.scratch = Scratch(device.empty)
        self.max_cluster_size = device.max_cluster_size if CLUSTERS.is_on() and has_clusters else 1
        self.tuning = tuning
        self.batch_norm_choice: tuple[str | None, int | None] = None, None
        self.compared: set[tuple[Activation, type]] = set()
        self._tables: dict[tuple[tuple[int, ...], ...], Array] = {}
        self._counters: Array | None = None
        self._held: list[Array] | None = None

    def launch(
        self,
        kernel: Any,
        grid: Dimensions,
        block: Dimensions,
        args: Sequence[Argument | None],
        shared_memory: int = 0,
        cluster: Dimensions | None = None,
        cooperative: bool = False,
    ) -> None:
        """Launch a kernel; None stands for a null pointer."""
        arguments = [NULL if argument is None else argument for argument in args]
        self.hold(*(argument for argument in args if argument is not None and not isinstance(argument, np.generic)))
        self.device.launch(
            kernel, grid, block, arguments, shared_memory=shared_memory, cluster=cluster, cooperative=cooperative
        )

    def table(self, rows: tuple[tuple[int, ...], ...]) -> Array:
        """Return whole numbers as an int32 array on the device, the same for the same rows."""
        if rows not in self._tables:
            self._tables[rows] = self.device.asarray(np.array(rows, np.int32))
        return self._tables[rows]

    def zeroed_counters(self, count: int) -> Array:
        """Return words of device memory that are 0, and that every kernel leaves 0."""
        if self._counters is None or self._counters.size < count:
            self._counters = self.device.zeros(power_of_two(max(count, 64)), np.uint32)
        return self._counters

    def poison_scratch(self) -> None:
        """Fill the scratch buffers with NaN: what a kernel reads there before it is written shows then."""
        for buffer in self.scratch.buffers:
            self.device.copy(buffer, np.full(buffer.nbytes, 0xFF, np.uint8).view(buffer.dtype))

    def check_counters(self) -> bool:
        """Return whether every kernel has left the counters 0; where one has not, the next gets new ones."""
        if self._counters is None or not self.device.to_numpy(self._counters).any():
            return True
        self._counters = None
        return False

    @property
    def is_recording(self) -> bool:
        """Whether what is launched is recorded instead of run."""
        return self._held is not None

    def hold(self, *arrays: Array) -> None:
        """Keep arrays alive with the recording that is being made, if one is."""
        if self._held is not None:
            self._held.extend(arrays)

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
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


class _Recording:
    """A recorded step, with the arrays that it reads and writes."""

    def __init__(self, replay: Replay, held: list[Array]) -> None:
        self._replay = replay
        self._held = held

    def __call__(self) -> None:
        self._replay.launch()
