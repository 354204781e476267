"""gpunet itself: on NumPy, on a fast CPU backend where there is one, on CUDA."""

from __future__ import annotations

import gc
import importlib
import importlib.util
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

import gpunet
from benchmarks.cases import Case
from benchmarks.problem import Problem
from benchmarks.providers.base import Provider, Work
from benchmarks.providers.common import first_refusal, refuse_on_cpu, refuse_unknown
from benchmarks.providers.gpunet_work import build_work
from gpunet.backends import Backend, NumpyBackend


class GpunetProvider(Provider):
    """gpunet on some backend."""

    @abstractmethod
    def new_backend(self, case: Case) -> Backend:
        """Return the backend that does a case."""

    def refuses(self, case: Case) -> str | None:
        return first_refusal(refuse_unknown(case), None if self.on_device else refuse_on_cpu(case))

    def versions(self) -> dict[str, str]:
        return {"gpunet": gpunet.__version__, "numpy": np.__version__}

    def prepare(self, case: Case, problem: Problem) -> Work:
        return self.build(self.new_backend(case), case, problem)

    def build(self, backend: Backend, case: Case, problem: Problem) -> Work:
        """Return the work of a case on a backend."""
        return build_work(self.count_launches, backend, case, problem)

    def count_launches(self, backend: Any, unit: Callable[[], object]) -> int | None:
        """Return the kernels of a unit of work on a device, each matrix product counted as one; copies are none."""
        with _counting(backend) as count:
            unit()
            backend.synchronize()  # before its buffers go
        return count[0]


class GpunetNumpy(GpunetProvider):
    """gpunet on NumPy; with float64 cases the reference that all outputs are compared with."""

    name: ClassVar[str] = "gpunet-numpy"
    label: ClassVar[str] = "gpunet (NumPy)"

    def missing(self) -> str | None:
        return None

    def new_backend(self, case: Case) -> Backend:
        return NumpyBackend()


class GpunetFastCpu(GpunetNumpy):
    """gpunet on a backend with fused loops for the CPU."""

    name: ClassVar[str] = "gpunet-fast-cpu"
    label: ClassVar[str] = "gpunet (fast CPU)"
    module: ClassVar[str] = "gpunet.backends.numba"

    def missing(self) -> str | None:
        return None if importlib.util.find_spec(self.module) else "gpunet has no fast CPU backend yet"

    def new_backend(self, case: Case) -> Backend:
        backend: Backend = importlib.import_module(self.module).NumbaBackend()
        return backend


class GpunetCuda(GpunetProvider):
    """gpunet on its fused CUDA kernels."""

    name: ClassVar[str] = "gpunet-cuda"
    label: ClassVar[str] = "gpunet (CUDA)"
    on_device: ClassVar[bool] = True

    def missing(self) -> str | None:
        from gpunet.backends.devices.probe import probe_gpu
        from gpunet.backends.selection import cuda_problem

        return cuda_problem(probe_gpu(), 0)

    def versions(self) -> dict[str, str]:
        import cupy

        return super().versions() | {"cupy": cupy.__version__}

    def new_backend(self, case: Case) -> Backend:
        from gpunet.backends.cuda import CudaBackend
        from gpunet.backends.devices.cupy import CupyDevice

        release_pool()
        return CudaBackend(CupyDevice(0), case.precision)


def release_pool() -> None:
    """Give the memory of earlier cases back, so that the pool's size is that of this one."""
    import cupy

    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()


@contextmanager
def _counting(backend: Any) -> Iterator[list[int]]:
    """Count what the backend asks its device to launch; no step is recorded meanwhile, so that each one asks again."""
    count = [0]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            return function(*arguments, **options)

        return call

    device = backend.device
    device.launch, device.gemm = counted(device.launch), counted(device.gemm)
    backend.capture = lambda step: step
    try:
        yield count
    finally:
        del device.launch, device.gemm, backend.capture
