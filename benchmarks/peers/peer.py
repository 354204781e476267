"""What a peer is: a library, or a way to use one, that does the work of a case."""

from __future__ import annotations

import importlib.util
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from benchmarks.problem import Problem
from benchmarks.report.results import Case
from gpunet.environment import blas_libraries

Array = npt.NDArray[Any]
Outputs = dict[str, Array]

NETWORK_MODES = ("forward", "forward_backward", "step", "epoch")
_BOTH = ("forward", "backward")
_MODES = {"bias_activation": _BOTH, "batch_norm_activation": _BOTH} | dict.fromkeys(
    ("gemm", "softmax_cross_entropy", "sgd_step", "adam_step", "copy"), ("forward",)
)
OPERATIONS = [(operation, mode) for operation, modes in _MODES.items() for mode in modes]


class Device:
    """What the work runs on; this one is the CPU, where work is done when its call returns."""

    def synchronize(self) -> None:
        """Wait until what was submitted is done."""

    def record(self) -> Any:
        """Return a mark in the device's stream, or None where there is no stream to mark."""
        return None

    def elapsed(self, start: Any, stop: Any) -> float:
        """Return the seconds between two marks that have been reached."""
        raise NotImplementedError

    def peak_bytes(self) -> int | None:
        """Return the device memory that was held at most; None on the CPU, where the process is asked."""
        return None

    def launches(self, unit: Callable[[], object]) -> int | None:
        """Do a unit of work and return how many kernels it launched; None where nobody counts."""
        return None


class Work(ABC):
    """One case, built and ready to run: ``unit`` does it once, on one of ``batches`` in rotation.

    On a device it submits it and returns.
    """

    device = Device()
    count: Callable[[], int | None] | None = None  # of `launches`

    def __init__(self, unit: Callable[..., Any], batches: Sequence[tuple[Any, ...]] = ((),)) -> None:
        self.unit, self.batches = unit, batches
        self._rotation = itertools.cycle(batches)

    @abstractmethod
    def outputs(self) -> Outputs:
        """Do the work once from the problem's numbers and return what is compared, as float64 on the host.

        ``forward``: ``logits`` of the first batch, in inference mode. ``forward_backward``: ``loss``, and the gradient
        of every parameter by its name, for the first batch. ``step`` and ``epoch``: every parameter by its name, after
        a step on each batch in order, or after an epoch in the order of the data. Operations: the arrays that the
        backend's operation writes, by its argument names. W_i are (m_i, m_{i-1}), whatever the library's layout.

        Called once, before anything is timed; the work goes on from wherever it leaves.
        """

    def run(self, repeats: int) -> None:
        """Do the work ``repeats`` times."""
        unit = self.unit
        for batch in itertools.islice(self._rotation, repeats):
            unit(*batch)

    def time(self, repeats: int) -> tuple[float, float | None]:
        """Return the seconds of one unit of work by the host's clock and by the device's, over ``repeats`` units."""
        device = self.device
        device.synchronize()
        started, start = time.perf_counter(), device.record()
        self.run(repeats)
        stop = device.record()
        device.synchronize()
        host = (time.perf_counter() - started) / repeats
        return host, None if start is None else device.elapsed(start, stop) / repeats

    def launches(self) -> int | None:
        """Return how many kernels one unit of work launches, the last thing that is done; None where nobody counts."""
        return self.count() if self.count else self.device.launches(partial(self.run, 1))


class NetworkWork(Work):
    """A network of some library with the problem's parameters; its methods are units of work.

    ``forward`` returns the logits in inference mode; ``forward_backward`` the loss, and leaves the gradients; ``step``
    does one step of training, all of them on a batch that is on the device; ``epoch`` goes once over a data set of the
    host. A library that has no way to do one of them lacks the method, and its peer refuses the mode.
    """

    def __init__(self, case: Case, problem: Problem) -> None:
        self.case, self.checked_steps = case, problem.checked_steps
        batches = problem.batches if case.mode == "epoch" else self.place(problem.batches)
        super().__init__(getattr(self, case.mode), batches)

    @abstractmethod
    def parameters(self) -> Mapping[str, Any]:
        """Return the parameters that the problem has, by their names there."""

    def gradients(self) -> Mapping[str, Any]:
        """Return their gradients."""
        raise NotImplementedError

    def place(self, batches: list[tuple[Array, Array]]) -> list[tuple[Any, ...]]:
        """Return the batches as arguments of the methods, on the device."""
        return list(batches)

    def to_host(self, value: Any) -> Array:
        """Return an array of the library as float64 of NumPy."""
        return as_host(value)

    def outputs(self) -> Outputs:
        mode = self.case.mode
        if mode == "epoch":
            self.unit(*self.batches[0], shuffle=False)
        else:
            result = self.unit(*self.batches[0])
        if mode == "forward":
            return {"logits": as_logits(self.to_host(result))}
        if mode == "forward_backward":
            loss = self.to_host(result).reshape(1)
            return {"loss": loss} | {name: self.to_host(value) for name, value in self.gradients().items()}
        if mode == "step":
            for batch in self.batches[1 : self.checked_steps]:
                self.unit(*batch)
        return {name: self.to_host(value) for name, value in self.parameters().items()}


class OperationWork(Work):
    """A single operation: ``results`` names the arrays in what ``unit`` returned."""

    def __init__(
        self, unit: Callable[[], Any], results: Callable[[Any], Mapping[str, Any]], to_host: Callable[[Any], Array]
    ) -> None:
        super().__init__(unit)
        self.results, self.to_host = results, to_host

    def outputs(self) -> Outputs:
        return {name: np.atleast_1d(self.to_host(array)) for name, array in self.results(self.unit()).items()}


class Peer(ABC):
    """A library, or one way to use it. Lives in a process of its own; heavy imports happen inside the methods."""

    # Of a peer in `PEERS`, from there.
    name: str = ""
    label: str = ""
    on_device: bool = False
    # Threads that it takes, whatever the run's number; its cores are the run's. Of NAME@THREADS.
    threads: int | None = None
    # Variables of its process.
    environment: ClassVar[Mapping[str, str]] = {}

    @property
    def device(self) -> str:
        """Where the arrays are: PyTorch's and JAX's name of it."""
        return "cuda" if self.on_device else "cpu"

    @abstractmethod
    def missing(self) -> str | None:
        """Return why this machine cannot run it (a package, a GPU that is not there), or None."""

    def refuses(self, case: Case) -> str | None:
        """Return why it does not do a case (no batch norm, no such operation), or None."""
        if case.is_network and case.mode not in NETWORK_MODES:
            return f"a network has no mode {case.mode!r}"
        if not case.is_network and (case.operation, case.mode) not in OPERATIONS:
            return f"there is no operation {case.operation!r} with mode {case.mode!r}"
        if case.precision == "tf32" and not self.on_device:
            return "CPUs multiply in float32; TF32 is of NVIDIA's tensor cores"
        return None

    def is_worth(self, case: Case) -> bool:
        """Whether the peer is worth its time in a case of the suite; it may still refuse."""
        return True

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that do the work."""

    def blas(self) -> str:
        """Return what multiplies matrices, and with how many threads; by default NumPy's."""
        found = [(one["name"], one["version"], one["threads"] and f"x{one['threads']}") for one in blas_libraries()]
        return ", ".join(" ".join(filter(None, parts)) for parts in found)

    @abstractmethod
    def prepare(self, case: Case, problem: Problem) -> Work:
        """Build the case; compilation may wait for the first run."""


def as_host(value: Any) -> Array:
    """Return a copy of an array-like as float64."""
    return np.array(value, dtype=np.float64)


def as_logits(values: Any) -> Array:
    """Return logits with the mean of each row taken off.

    Softmax does not see it, and a library that gives only probabilities cannot know it.
    """
    logits = as_host(values)
    return logits - logits.mean(axis=1, keepdims=True)


def refuse_single_row(case: Case) -> str | None:
    """Return why a case's epoch ends in a batch that batch norm cannot normalise (gpunet's ``fit`` avoids such)."""
    if case.mode == "epoch" and case.batch_norm and case.examples % case.rows == 1:
        return "the last batch of the epoch has one row, which batch norm cannot normalise"
    return None


def missing_package(module: str, distribution: str) -> str | None:
    """Return that a package is not installed, or None."""
    return None if importlib.util.find_spec(module) else f"{distribution} is not installed"


def hidden_layers(case: Case) -> range:
    """Return the numbers of a network's hidden linear layers, from 1."""
    return range(1, len(case.sizes) - 1)
