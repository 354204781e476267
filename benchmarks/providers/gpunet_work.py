"""The units of work of gpunet, on any backend."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import gpunet
from benchmarks.cases import NETWORK, Case
from benchmarks.problem import LEARNING_RATE, MOMENTUM, Problem
from benchmarks.providers.base import Outputs, Work, as_host
from benchmarks.providers.common import as_logits
from benchmarks.providers.gpunet_operations import build_operation
from gpunet.backends import Backend
from gpunet.training.evaluation import DeviceData
from gpunet.training.step import TrainingStep

Array = npt.NDArray[Any]
# Returns the kernels that a unit of work launches on a backend.
CountLaunches = Callable[[Any, Callable[[], object]], int | None]


class BackendWork(Work):
    """Work on a backend; where that has a device, events of its stream mark the time."""

    def __init__(self, count_launches: CountLaunches, backend: Backend) -> None:
        self.count_launches = count_launches
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
        return None if self.device is None else self.count_launches(self.backend, self.unit())

    def peak_bytes(self) -> int | None:
        return None if self.device is None else pool_bytes()

    def on_host(self, array: Array) -> Array:
        """Return an array of the backend as float64."""
        return as_host(self.backend.to_numpy(array))


class _NetworkWork(BackendWork):
    """Work of a network with the problem's parameters."""

    def __init__(self, count_launches: CountLaunches, backend: Backend, case: Case, problem: Problem) -> None:
        super().__init__(count_launches, backend)
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

    def __init__(self, count_launches: CountLaunches, backend: Backend, case: Case, problem: Problem) -> None:
        super().__init__(count_launches, backend, case, problem)
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

    def __init__(self, count_launches: CountLaunches, backend: Backend, case: Case, problem: Problem) -> None:
        super().__init__(count_launches, backend, case, problem)
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

    def __init__(self, count_launches: CountLaunches, backend: Backend, case: Case, problem: Problem) -> None:
        super().__init__(count_launches, backend)
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


def build_work(count_launches: CountLaunches, backend: Backend, case: Case, problem: Problem) -> Work:
    """Return the work of a case on a backend."""
    if case.operation != NETWORK:
        return _OperationWork(count_launches, backend, case, problem)
    return _NETWORK_WORK[case.mode](count_launches, backend, case, problem)


def pool_bytes() -> int:
    """Return the bytes that CuPy's pool holds: all that its arrays took at once, freed blocks included."""
    import cupy

    return int(cupy.get_default_memory_pool().total_bytes())


_NETWORK_WORK: dict[str, type[_NetworkWork]] = {
    "forward": _Forward,
    "forward_backward": _ForwardBackward,
    "step": _Step,
    "epoch": _Epoch,
}
