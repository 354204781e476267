"""The machine's ceilings: a large matrix product and a large copy, by each library that may be the best at them."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from benchmarks.cases import Case
from benchmarks.problem import Problem
from benchmarks.providers.base import Outputs, Provider, Work


class _CeilingWork(Work):
    """Multiplies or copies; nothing is compared, since the other providers' products are."""

    def outputs(self) -> Outputs:
        self.run(1)
        return {}


class _NumpyWork(_CeilingWork):
    def __init__(self, case: Case) -> None:
        generator = np.random.default_rng(0)
        self.copies = case.operation == "ceiling_copy"
        shapes = [(case.sizes[-1],)] if self.copies else [(case.rows, case.sizes[0]), (case.sizes[0], case.sizes[1])]
        self.inputs = [generator.standard_normal(shape, np.float32).astype(case.dtype) for shape in shapes]
        self.out = np.empty_like(self.inputs[0]) if self.copies else np.empty((case.rows, case.sizes[1]), case.dtype)

    def run(self, repeats: int) -> None:
        for _ in range(repeats):
            if self.copies:
                np.copyto(self.out, self.inputs[0])
            else:
                np.matmul(*self.inputs, out=self.out)


class CeilingNumpy(Provider):
    """NumPy with its BLAS; its copy has one thread."""

    name: ClassVar[str] = "ceiling-numpy"
    label: ClassVar[str] = "NumPy"

    def missing(self) -> str | None:
        return None

    def versions(self) -> dict[str, str]:
        return {"numpy": np.__version__}

    def prepare(self, case: Case, problem: Problem) -> Work:
        return _NumpyWork(case)


class _TorchWork(_CeilingWork):
    def __init__(self, case: Case) -> None:
        import torch

        self.torch = torch
        self.copies = case.operation == "ceiling_copy"
        dtype = getattr(torch, case.dtype)
        shapes = [(case.sizes[-1],)] if self.copies else [(case.rows, case.sizes[0]), (case.sizes[0], case.sizes[1])]
        self.inputs = [torch.randn(shape, dtype=dtype) for shape in shapes]
        self.out = torch.empty(shapes[0] if self.copies else (case.rows, case.sizes[1]), dtype=dtype)

    def run(self, repeats: int) -> None:
        for _ in range(repeats):
            if self.copies:
                self.out.copy_(self.inputs[0])
            else:
                self.torch.mm(*self.inputs, out=self.out)


class CeilingTorch(Provider):
    """PyTorch with its BLAS; its copy has all threads."""

    name: ClassVar[str] = "ceiling-torch"
    label: ClassVar[str] = "PyTorch"

    def missing(self) -> str | None:
        try:
            import torch  # noqa: F401
        except ImportError:
            return "PyTorch is not installed"
        return None

    def versions(self) -> dict[str, str]:
        import torch

        return {"torch": torch.__version__}

    def prepare(self, case: Case, problem: Problem) -> Work:
        return _TorchWork(case)


class _CupyWork(_CeilingWork):
    def __init__(self, case: Case) -> None:
        import cupy

        from gpunet.backends.cuda import CudaBackend
        from gpunet.backends.devices.cupy import CupyDevice

        self.backend = CudaBackend(CupyDevice(0), case.precision)
        self.copies = case.operation == "ceiling_copy"
        shapes = [(case.sizes[-1],)] if self.copies else [(case.rows, case.sizes[0]), (case.sizes[0], case.sizes[1])]
        generator = cupy.random.default_rng(0)
        self.inputs = [generator.standard_normal(shape, dtype=case.dtype) for shape in shapes]
        self.out = cupy.empty(shapes[0] if self.copies else (case.rows, case.sizes[1]), case.dtype)
        cupy.cuda.Device().synchronize()  # filled on CuPy's stream, used on the backend's

    def run(self, repeats: int) -> None:
        for _ in range(repeats):
            if self.copies:
                self.backend.copy(self.inputs[0], self.out)
            else:
                self.backend.gemm(self.inputs[0], self.inputs[1], self.out)

    def synchronize(self) -> None:
        self.backend.synchronize()

    def record(self) -> Any:
        return self.backend.device.record_event()

    def elapsed(self, start: Any, stop: Any) -> float:
        return self.backend.device.elapsed(start, stop)


class CeilingCupy(Provider):
    """cuBLAS and the device's own copy, on the stream of a backend."""

    name: ClassVar[str] = "ceiling-cupy"
    label: ClassVar[str] = "cuBLAS"
    on_device: ClassVar[bool] = True

    def missing(self) -> str | None:
        from gpunet.backends.devices.probe import probe_gpu

        return probe_gpu().problem

    def versions(self) -> dict[str, str]:
        import cupy

        return {"cupy": cupy.__version__}

    def prepare(self, case: Case, problem: Problem) -> Work:
        return _CupyWork(case)
