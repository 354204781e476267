"""gpunet itself: on NumPy, on compiled kernels of the CPU, on CUDA kernels, and on CuPy's expressions instead."""

from __future__ import annotations

import gc
from abc import abstractmethod
from collections.abc import Callable, Mapping
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

import gpunet
from benchmarks.peers.gpunet_work import GpunetNetwork, build_operation
from benchmarks.peers.peer import Device, OperationWork, Peer, Work, as_host, missing_package
from benchmarks.problem import Problem
from benchmarks.report.results import Case
from gpunet.backends import Backend, NumpyBackend
from gpunet.errors import counted


class _BackendDevice(Device):
    """The device of a CUDA backend: events of its stream mark the time."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def synchronize(self) -> None:
        self.backend.synchronize()

    def record(self) -> Any:
        return self.backend.device.record_event()

    def elapsed(self, start: Any, stop: Any) -> float:
        return float(self.backend.device.elapsed(start, stop))

    def peak_bytes(self) -> int | None:
        """Return the bytes that CuPy's pool holds: all that its arrays took at once, freed blocks included."""
        import cupy

        return int(cupy.get_default_memory_pool().total_bytes())


class GpunetPeer(Peer):
    """gpunet on some backend."""

    @abstractmethod
    def new_backend(self, case: Case) -> Backend:
        """Return the backend that does a case."""

    def versions(self) -> dict[str, str]:
        return {"gpunet": gpunet.__version__, "numpy": np.__version__}

    def prepare(self, case: Case, problem: Problem) -> Work:
        backend = self.new_backend(case)
        work: Work
        unit: Callable[[], object]
        if case.is_network:
            work = network = GpunetNetwork(backend, case, problem)
            unit = network.unrecorded
        else:
            unit, written = build_operation(backend, case, problem.arrays)
            work = OperationWork(unit, lambda _: written, lambda array: as_host(backend.to_numpy(array)))
        if self.on_device:
            work.device, work.count = _BackendDevice(backend), lambda: self.count(backend, unit)
        return work

    def count(self, backend: Any, unit: Callable[[], object]) -> int | None:
        """Return how many kernels a unit of work launches on a device, None where nobody counts."""
        return None


class GpunetNumpy(GpunetPeer):
    """gpunet on NumPy; with float64 cases the reference that all outputs are compared with."""

    def missing(self) -> str | None:
        return None

    def is_worth(self, case: Case) -> bool:
        return case.precision != "tf32"

    def new_backend(self, case: Case) -> Backend:
        return NumpyBackend()


class GpunetCompiled(GpunetNumpy):
    """gpunet on the compiled kernels that ``device="cpu"`` takes where Numba is installed, with NumPy's OpenBLAS."""

    environment: ClassVar[Mapping[str, str]] = {"GPUNET_MKL": "0"}

    def missing(self) -> str | None:
        return missing_package("numba", "Numba")

    def versions(self) -> dict[str, str]:
        return super().versions() | {"numba": version("numba")}

    def blas(self) -> str:
        """Return the library that the stripes call, and how many threads the stripes have."""
        from gpunet.backends.cpu.blas import find_blas
        from gpunet.backends.cpu.pool import shared_pool

        found, threads = find_blas(), f"in {counted(shared_pool().threads, 'thread')} of gpunet's"
        if found is not None and found.name == "mkl":
            return f"mkl {version('mkl')} {threads}"
        return " ".join(part for part in (super().blas().rpartition(" x")[0], threads) if part)

    def new_backend(self, case: Case) -> Backend:
        from gpunet.backends.cpu.backend import CpuBackend
        from gpunet.backends.cpu.pool import shared_pool

        if self.threads is not None:  # told how many, it measures nothing
            told = SimpleNamespace(threads=self.threads, note=lambda seconds: None)
            shared_pool().choice = lambda work: told  # type: ignore[method-assign, assignment, return-value]
        return CpuBackend()


class GpunetCompiledMkl(GpunetCompiled):
    """The same with MKL's matrix products: networks and products, since all else is the same."""

    environment: ClassVar[Mapping[str, str]] = {"GPUNET_MKL": "1"}

    def missing(self) -> str | None:
        if reason := super().missing():
            return reason
        from gpunet.backends.cpu.blas import find_blas

        found = find_blas()
        return None if found is not None and found.name == "mkl" else "the package mkl is not installed"

    def is_worth(self, case: Case) -> bool:
        return super().is_worth(case) and (case.is_network or case.operation == "gemm") and case.sweep is None


class GpunetCuda(GpunetPeer):
    """gpunet on its fused CUDA kernels."""

    on_device = True

    def missing(self) -> str | None:
        from gpunet.backends.devices.probe import probe_gpu
        from gpunet.backends.selection import cuda_problem

        return cuda_problem(probe_gpu(), 0)

    def versions(self) -> dict[str, str]:
        import cupy

        from gpunet.backends.cuda.tuning import tuning_of
        from gpunet.backends.devices.cupy import CupyDevice

        return super().versions() | {"cupy": cupy.__version__, "launch plans": tuning_of(CupyDevice(0)).in_words}

    def new_backend(self, case: Case) -> Backend:
        import cupy

        from gpunet.backends.cuda import CudaBackend
        from gpunet.backends.cuda.tuning import tuning_of
        from gpunet.backends.devices.cupy import CupyDevice

        # Gives the memory of earlier cases back, so that the pool's size is that of this one.
        gc.collect()
        cupy.get_default_memory_pool().free_all_blocks()
        device = CupyDevice(0)
        return CudaBackend(device, case.precision, tuning=tuning_of(device))

    def count(self, backend: Any, unit: Callable[[], object]) -> int | None:
        """Return what a unit asks its device to launch, each matrix product counted as one; copies are none."""
        launched: list[object] = []

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                launched.append(function)
                return function(*args, **options)

            return call

        device, asked = backend.device, ("launch", "gemm", "gemm_bias")
        for name in asked:
            setattr(device, name, counted(getattr(device, name)))
        backend.capture = lambda step: step  # a recorded step would not ask again
        try:
            unit()
            backend.synchronize()  # before its buffers go
        finally:
            for owner, name in (*((device, name) for name in asked), (backend, "capture")):
                delattr(owner, name)
        return len(launched)


class GpunetCudaUnfused(GpunetCuda):
    """gpunet's network and training loop on plain CuPy expressions; matrix products are the same calls of cuBLAS.

    No step is recorded: each unit of work launches its kernels one by one. The difference to gpunet-cuda is what fusing
    and recording buy.
    """

    def new_backend(self, case: Case) -> Backend:
        backend: Any = super().new_backend(case)
        # CuPy works on its current stream; products and copies go to the device's.
        backend.device._stream.use()
        return unfused(backend.device, case.precision)

    def count(self, backend: Any, unit: Callable[[], object]) -> int | None:
        return None  # the kernels are CuPy's


def unfused(device: Any, precision: str) -> Backend:
    """Return arrays, copies and matrix products of the CUDA backend, the reference of operations, no recorded steps.

    The reference runs as a user of CuPy writes it: one array expression after the other, with their temporaries.
    """
    import cupy

    from gpunet.backends.cuda import CudaBackend

    class UnfusedCudaBackend(CudaBackend):
        bias_activation_forward = Backend.bias_activation_forward
        bias_activation_backward = Backend.bias_activation_backward
        batch_norm_activation_forward = Backend.batch_norm_activation_forward
        batch_norm_activation_backward = Backend.batch_norm_activation_backward
        batch_norm_activation_inference = Backend.batch_norm_activation_inference
        sgd_step = Backend.sgd_step
        adam_step = Backend.adam_step
        gather_batch = Backend.gather_batch

        def softmax_cross_entropy(self, outputs: Any, *arrays: Any, tally: Any = None, **others: Any) -> None:
            Backend.softmax_cross_entropy(self, outputs, *arrays, **others)
            if tally is not None:  # in one launch: to keep track of steps is no part of the comparison
                self.count_step(arrays[3], **tally._asdict(), rows=len(outputs))

        def _run_reference(self, reference: Callable[..., None], *args: Any, **kwargs: Any) -> None:
            reference(cupy, *args, **kwargs)

        def capture(self, step: Callable[[], None]) -> Callable[[], None]:
            return step

    return UnfusedCudaBackend(device, precision)
