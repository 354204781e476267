"""gpunet itself: on NumPy, on a fast CPU backend where there is one, on CUDA."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

import gpunet
from benchmarks.cases import NETWORK, Case
from benchmarks.problem import LEARNING_RATE, MOMENTUM, Problem
from benchmarks.providers.base import Outputs, Provider, Work, as_host
from benchmarks.providers.common import as_logits, first_refusal, refuse_on_cpu, refuse_unknown
from benchmarks.providers.gpunet_operations import build_operation
from gpunet.backends import Backend
from gpunet.training.evaluation import DeviceData
from gpunet.training.step import TrainingStep

Array = npt.NDArray[Any]


class BackendWork(Work):
    """Work on a backend; where that has a device, events of its stream mark the time."""

    def __init__(self, provider: GpunetProvider, backend: Backend) -> None:
        self.provider = provider
        self.backend = backend

    @property
    def device(self) -> Any:
        """The backend's device, or None on a CPU."""
        return getattr(self.backend, "device", None)

    @abstractmethod
    def unit(self) -> Callable[[], object]:
        """Return one unit of work that repeats no recorded step, for counting launches."""

    def synchronize(self) -> None:
        self.backend.synchronize()

    def record(self) -> Any:
        return None if self.device is None else self.device.record_event()

    def elapsed(self, start: Any, stop: Any) -> float:
        return self.device.elapsed(start, stop)

    def launches(self) -> int | None:
        return None if self.device is None else self.provider.count_launches(self.backend, self.unit())

    def peak_bytes(self) -> int | None:
        return None if self.device is None else pool_bytes()

    def on_host(self, array: Array) -> Array:
        """Return an array of the backend as float64."""
        return as_host(self.backend.to_numpy(array))


class _NetworkWork(BackendWork):
    """Work of a network with the problem's parameters."""

    def __init__(self, provider: GpunetProvider, backend: Backend, case: Case, problem: Problem) -> None:
        super().__init__(provider, backend)
        self.case = case
        self.problem = problem
        self.network = gpunet.Network(
            case.sizes,
            activation=case.activation,
            batch_norm=case.batch_norm,
            dtype=case.dtype,
            precision=case.precision if self.device is not None else "float32",
            device=backend,
        )
        self.network.set_parameters(problem.parameters | problem.state)
        self.optimizer: gpunet.Optimizer = (
            gpunet.Adam(LEARNING_RATE) if case.optimizer == "adam" else gpunet.SGD(LEARNING_RATE, momentum=MOMENTUM)
        )

    def parameters(self) -> Outputs:
        """Return the parameters as they are now."""
        return {name: as_host(value) for name, value in self.network.get_parameters().items()}


class _BatchWork(_NetworkWork):
    """Work on batches that are on the device, in turn."""

    def __init__(self, provider: GpunetProvider, backend: Backend, case: Case, problem: Problem) -> None:
        super().__init__(provider, backend, case, problem)
        self.batches = [(backend.asarray(X), backend.asarray(y)) for X, y in problem.batches]
        self.turn = itertools.cycle(self.batches)

    @abstractmethod
    def once(self, X: Array, y: Array) -> object:
        """Do the work on one batch."""

    def unit(self) -> Callable[[], object]:
        return lambda: self.once(*self.batches[0])

    def run(self, repeats: int) -> None:
        once = self.once
        for X, y in itertools.islice(self.turn, repeats):
            once(X, y)


class _Forward(_BatchWork):
    """``Network.forward`` in inference mode."""

    def once(self, X: Array, y: Array) -> Array:
        return self.network.forward(X)

    def outputs(self) -> Outputs:
        return {"logits": as_logits(self.backend.to_numpy(self.once(*self.batches[0])))}


class _ForwardBackward(_BatchWork):
    """``Network.forward`` in training mode, the loss, ``Network.backward``, operation by operation."""

    def once(self, X: Array, y: Array) -> None:
        network = self.network
        network.backward(network.loss_layer(network.forward(X, training=True), y, None))

    def outputs(self) -> Outputs:
        self.once(*self.batches[0])
        gradients = {name: self.on_host(view) for name, view in self.network.gradients.items()}
        return {"loss": self.on_host(self.network.loss_layer.value)[:1], **gradients}


class _Step(_NetworkWork):
    """The step of ``fit``: it gathers the batch from the data set on the device, which the peers' steps are spared.

    On CUDA the second and later steps are one launch of a recorded graph.
    """

    def __init__(self, provider: GpunetProvider, backend: Backend, case: Case, problem: Problem) -> None:
        super().__init__(provider, backend, case, problem)
        X, y = (np.concatenate(arrays) for arrays in zip(*problem.batches, strict=True))
        self.data = DeviceData(self.network, X, y)
        self.optimizer.attach(backend, self.network.flat_parameters)
        self.step = self._new_step()
        order = np.arange(len(X), dtype=np.int32)
        self.indices = np.split(order, len(problem.batches))
        self.turn = itertools.cycle(self.indices)

    def _new_step(self) -> TrainingStep:
        return TrainingStep(self.network, self.optimizer, self.data, self.case.rows, l2=0.0, clip_norm=None)

    def unit(self) -> Callable[[], object]:
        step = self._new_step()
        return lambda: step(self.indices[0])

    def run(self, repeats: int) -> None:
        for index in itertools.islice(self.turn, repeats):
            self.step(index)

    def outputs(self) -> Outputs:
        for index in self.indices[: self.problem.checked_steps]:
            self.step(index)
        return self.parameters()


class _Epoch(_NetworkWork):
    """``gpunet.fit(epochs=1)`` on arrays of the host: checks, the copy to the device, steps, a look at the result."""

    def once(self, shuffle: bool = True) -> None:
        X, y = self.problem.batches[0]
        gpunet.fit(self.network, X, y, epochs=1, batch_size=self.case.rows, optimizer=self.optimizer, shuffle=shuffle)

    def unit(self) -> Callable[[], object]:
        return self.once

    def run(self, repeats: int) -> None:
        for _ in range(repeats):
            self.once()

    def outputs(self) -> Outputs:
        self.once(shuffle=False)
        return self.parameters()


class _OperationWork(BackendWork):
    """One method of the backend."""

    def __init__(self, provider: GpunetProvider, backend: Backend, case: Case, problem: Problem) -> None:
        super().__init__(provider, backend)
        self.once, self.written = build_operation(backend, case, problem.arrays)

    def unit(self) -> Callable[[], object]:
        return self.once

    def run(self, repeats: int) -> None:
        once = self.once
        for _ in range(repeats):
            once()

    def outputs(self) -> Outputs:
        self.once()
        return {name: self.on_host(array) for name, array in self.written.items()}


_WORK: dict[str, type[_NetworkWork]] = {
    "forward": _Forward,
    "forward_backward": _ForwardBackward,
    "step": _Step,
    "epoch": _Epoch,
}


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
        work: type[_NetworkWork] | type[_OperationWork] = _OperationWork
        if case.operation == NETWORK:
            work = _WORK[case.mode]
        return work(self, backend, case, problem)

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
        return Backend()


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


def pool_bytes() -> int:
    """Return the bytes that CuPy's pool holds: all that its arrays took at once, freed blocks included."""
    import cupy

    return int(cupy.get_default_memory_pool().total_bytes())


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
