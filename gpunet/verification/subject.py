"""What is verified: the backends of one device, and what there is of it to try."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpunet.backends import Backend, NumpyBackend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.backend import EPILOGUES
from gpunet.backends.cuda.batch_norm import CLUSTER_SIZES, DeviceLimits
from gpunet.backends.devices.probe import probe_gpu
from gpunet.backends.half import HALF_DTYPES
from gpunet.backends.half_numpy import HalfNumpyBackend
from gpunet.backends.switches import CLUSTERS, CUBLAS_LT, CUDA_GRAPH, Switch
from gpunet.environment import cpu_name, usable_cores
from gpunet.verification.check import Unit
from gpunet.verification.storage import FLOAT32, FLOAT64, STORAGES, Storage


class Subject(ABC):
    """A device whose backends are verified.

    Attributes
    ----------
    storages : tuple of Storage
        What matrices may be stored as.
    precisions : tuple of str
        How float32 matrices may be multiplied.
    switches : tuple of Switch
        What can be turned off.
    is_large : bool
        Whether shapes that fill a GPU are tried too.
    """

    storages: tuple[Storage, ...]
    precisions: tuple[str, ...] = ("float32",)
    switches: tuple[Switch, ...] = ()

    def __init__(self, is_large: bool) -> None:
        self.is_large = is_large

    @property
    @abstractmethod
    def description(self) -> dict[str, str]:
        """The device: ``kind``, ``name``, ``model`` and what else its results depend on."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What networks do without on this device, although it is turned on."""
        return ()

    @abstractmethod
    def operations(self, precision: str = "float32") -> Backend:
        """Return the backend whose operations are checked, one and the same in every call."""

    @abstractmethod
    def for_network(self, precision: str = "float32") -> Backend:
        """Return a new backend for a network."""

    @abstractmethod
    def beside(self, precision: str = "float32") -> Backend:
        """Return a new backend whose networks are the right ones."""

    def compile(self, unit: Unit) -> None:
        """Compile kernels, for the backends of :meth:`operations`; a CPU has none."""
        return

    def compile_all(self, units: Sequence[Unit]) -> Iterator[None]:
        """Compile kernels on several threads, and yield after each; one that does not compile is told at its check."""
        with ThreadPoolExecutor(max(1, usable_cores())) as pool:
            futures = [pool.submit(self.compile, unit) for unit in units]
            try:
                for future in futures:
                    future.exception()
                    yield
            finally:
                pool.shutdown(cancel_futures=True)

    @contextmanager
    def turned_off(self, switch: Switch) -> Iterator[None]:
        """Let the networks of a block be without what a switch turns off."""
        yield

    def prove_alive(self) -> None:
        """Raise where the device does not work any more.

        Raises
        ------
        Exception
            Whatever the device does then.
        """
        return


def _on_numpy(precision: str) -> Backend:
    return HalfNumpyBackend() if precision in HALF_DTYPES else NumpyBackend()


class Cpu(Subject):
    """NumPy's backend, beside the specification in float64; its networks beside the specification's."""

    storages = (FLOAT32, FLOAT64)

    def __init__(self) -> None:
        super().__init__(is_large=False)
        self._operations = NumpyBackend()

    @property
    def description(self) -> dict[str, str]:
        return {"kind": "cpu", "name": "cpu", "model": cpu_name()}

    def operations(self, precision: str = "float32") -> Backend:
        return self._operations

    def for_network(self, precision: str = "float32") -> Backend:
        return _on_numpy(precision)

    def beside(self, precision: str = "float32") -> Backend:
        return Backend()


class Cuda(Subject):
    """The CUDA backend on a device.

    Parameters
    ----------
    new_backend : callable
        Returns a backend of its own for a precision, as a network has it.
    """

    storages = STORAGES
    precisions = ("float32", "tf32")
    switches = (CUDA_GRAPH, CLUSTERS, CUBLAS_LT)

    def __init__(self, new_backend: Callable[[str], CudaBackend]) -> None:
        self._new_backend = new_backend
        self._operations = {precision: new_backend(precision) for precision in self.precisions}
        self.device = self._operations["float32"].device
        self.model: str | None = getattr(self.device, "model", None)  # of hardware only
        super().__init__(is_large=self.model is not None)
        self._off: frozenset[Switch] = frozenset()

    @property
    def description(self) -> dict[str, str]:
        device = self.device
        return {
            "kind": "cuda" if self.model else "emulated",
            "name": device.name,
            "model": self.model or device.name,
            "compute capability": "{}.{}".format(*device.compute_capability),
            "multiprocessors": str(device.multiprocessor_count),
            "driver": "CUDA {}.{}".format(*(probe_gpu().driver_cuda or (0, 0))) if self.model else "none",
            "cupy": str(getattr(sys.modules.get("cupy"), "__version__", "none")),
            "launch plans": self._operations["float32"].launcher.tuning.in_words,
        }

    @property
    def records(self) -> bool:
        """Whether networks record their steps."""
        return self._operations["float32"].records

    @property
    def notes(self) -> tuple[str, ...]:
        notes = []
        if CUDA_GRAPH.is_on() and not self.records:
            notes.append("networks do without recorded steps: `gpunet info` says why")
        if CLUSTERS.is_on() and self.limits.max_cluster < self.device.max_cluster_size:
            notes.append("networks do without clusters: `gpunet info` says why")
        without = set(EPILOGUES.values()) - self._operations["float32"].epilogues
        if CUBLAS_LT.is_on() and without:
            notes.append(f"networks do without cublasLt's {' and '.join(sorted(without))}: `gpunet info` says why")
        return tuple(notes)

    @property
    def limits(self) -> DeviceLimits:
        """What batch norm is planned for here."""
        launcher = self._operations["float32"].launcher
        return DeviceLimits.of(self.device, launcher.max_cluster_size, launcher.tuning)

    @property
    def clusters(self) -> tuple[int, ...]:
        """The sizes of the clusters that batch norm may have here."""
        return tuple(size for size in CLUSTER_SIZES if size <= self.limits.max_cluster)

    def operations(self, precision: str = "float32") -> CudaBackend:
        return self._operations[precision]

    def for_network(self, precision: str = "float32") -> CudaBackend:
        backend = self._new_backend(precision)
        if CUDA_GRAPH in self._off:
            backend.records = False
        if CLUSTERS in self._off:
            backend.launcher.max_cluster_size = 1
        if CUBLAS_LT in self._off:
            backend.epilogues = frozenset()
        return backend

    def beside(self, precision: str = "float32") -> Backend:
        return _on_numpy(precision)

    def compile(self, unit: Unit) -> None:
        self._operations["float32"].launcher.kernels.get(unit.module, unit.group[0], unit.group, unit.activation)

    @contextmanager
    def turned_off(self, switch: Switch) -> Iterator[None]:
        before = self._off
        self._off = before | {switch}
        try:
            yield
        finally:
            self._off = before

    @contextmanager
    def batch_norm(self, algorithm: str | None, cluster: int | None) -> Iterator[CudaBackend]:
        """Let the backend of a block do batch norm in one way only."""
        launcher = self._operations["float32"].launcher
        launcher.batch_norm_choice = algorithm, cluster
        try:
            yield self._operations["float32"]
        finally:
            launcher.batch_norm_choice = None, None

    @contextmanager
    def products(self, precision: str, has_epilogues: bool) -> Iterator[tuple[CudaBackend, list[bool]]]:
        """Let the backend of a block do all or nothing together with products.

        Yields
        ------
        CudaBackend, list of bool
            The second is of the products so far that were asked for together with something: whether they were done.
        """
        backend, done = self._operations[precision], list[bool]()
        device: Any = backend.device
        epilogues, gemm_bias = backend.epilogues, device.gemm_bias

        def noted(*arguments: Any, **options: Any) -> bool:
            done.append(gemm_bias(*arguments, **options))
            return done[-1]

        backend.epilogues, device.gemm_bias = epilogues if has_epilogues else frozenset(), noted
        try:
            yield backend, done
        finally:
            backend.epilogues = epilogues
            del device.gemm_bias

    def prove_alive(self) -> None:
        array: Any = self.device.zeros(4, np.float32)
        self.device.to_numpy(array)
