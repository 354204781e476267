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
from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices.cupy import CupyDevice
from gpunet.backends.devices.device import Device


class UnfusedCudaBackend(CudaBackend):
    """Arrays, copies and matrix products of the CUDA backend, the reference of operations, and no recorded steps.

    The reference runs as a user of CuPy writes it: one array expression after the other, with their temporaries. CuPy
    works on its current stream, which has to be the device's.
    """

    bias_activation_forward = Backend.bias_activation_forward
    bias_activation_backward = Backend.bias_activation_backward
    batch_norm_activation_forward = Backend.batch_norm_activation_forward
    batch_norm_activation_backward = Backend.batch_norm_activation_backward
    batch_norm_activation_inference = Backend.batch_norm_activation_inference
    softmax_cross_entropy = Backend.softmax_cross_entropy
    sgd_step = Backend.sgd_step
    adam_step = Backend.adam_step
    gather_rows = Backend.gather_rows

    def __init__(self, device: Device, precision: str) -> None:
        import cupy

        super().__init__(device, precision)
        self.xp = cupy

    def _run_reference(self, reference: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        reference(self.xp, *args, **kwargs)

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
