"""gpunet on plain CuPy expressions instead of its own kernels: the difference is what fusing and recording buy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from benchmarks.cases import Case
from benchmarks.problem import Problem
from benchmarks.providers.base import Outputs, Work
from benchmarks.providers.gpunet_provider import GpunetCuda, release_pool
from benchmarks.providers.graph_nodes import count_kernels
from benchmarks.providers.plain_operations import PlainOperations
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices.cupy import CupyDevice
from gpunet.backends.devices.device import Device


class UnfusedCudaBackend(PlainOperations, CudaBackend):
    """Arrays, copies and matrix products of the CUDA backend, operations of CuPy, and no recorded steps.

    CuPy works on its current stream, which has to be the device's.
    """

    def __init__(self, device: Device, precision: str) -> None:
        import cupy

        super().__init__(device, precision)
        self.xp = cupy

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        return step


class _OnStream(Work):
    """Work during which a device and its stream are CuPy's current ones."""

    def __init__(self, device: Any, build: Callable[[], Work]) -> None:
        self.device = device
        with self.current():
            self.work = build()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device and its stream current."""
        with self.device._device, self.device._stream:
            yield

    def outputs(self) -> Outputs:
        with self.current():
            return self.work.outputs()

    def run(self, repeats: int) -> None:
        with self.current():
            self.work.run(repeats)

    def synchronize(self) -> None:
        self.work.synchronize()

    def record(self) -> Any:
        return self.work.record()

    def elapsed(self, start: Any, stop: Any) -> float:
        return self.work.elapsed(start, stop)

    def launches(self) -> int | None:
        with self.current():
            return self.work.launches()

    def peak_bytes(self) -> int | None:
        return self.work.peak_bytes()


class GpunetCudaUnfused(GpunetCuda):
    """gpunet's network and training loop on plain CuPy expressions; matrix products are the same calls of cuBLAS.

    No step is recorded: each unit of work launches its kernels one by one.
    """

    name: ClassVar[str] = "gpunet-cuda-unfused"
    label: ClassVar[str] = "gpunet (CuPy expressions)"

    def new_backend(self, case: Case) -> UnfusedCudaBackend:
        release_pool()
        return UnfusedCudaBackend(CupyDevice(0), case.precision)

    def prepare(self, case: Case, problem: Problem) -> Work:
        backend = self.new_backend(case)
        return _OnStream(backend.device, lambda: self.build(backend, case, problem))

    def count_launches(self, backend: Any, unit: Callable[[], object]) -> int | None:
        """Return the kernels in a recording of the work, which is made for this and never run.

        None for an epoch, whose steps are many, and where CuPy or the driver refuses.
        """
        counts: list[int | None] = []

        def count(step: Callable[[], object]) -> Callable[[], object]:
            recording = backend.device.capture(step)
            counts.append(count_kernels(recording._graph.graph))
            return step

        backend.capture = count
        try:
            unit()  # a step of fit asks for its recording itself
            if not counts:
                count(unit)
            backend.synchronize()  # before its buffers go
        except Exception:  # whatever it is: a count is not worth a measured row
            return None
        finally:
            del backend.capture
        return counts[0] if len(counts) == 1 else None
