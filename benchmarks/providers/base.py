"""What a provider is: a library, or a way to use one, that does the work of a case."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from benchmarks.cases import Case
from benchmarks.problem import Problem

Array = npt.NDArray[Any]
Outputs = dict[str, Array]


class Work(ABC):
    """One case, built and ready to run in this process."""

    @abstractmethod
    def outputs(self) -> Outputs:
        """Do the work once from the problem's numbers and return what is compared, as host arrays.

        ``forward``: ``logits`` of the first batch, in inference mode. ``forward_backward``: ``loss``, and the gradient
        of every parameter by its name, for the first batch. ``step`` and ``epoch``: every parameter by its name, after
        a step on each batch in order, or after an epoch in the order of the data. Operations: the arrays that the
        backend's operation writes, by its argument names. W_i are (m_i, m_{i-1}), whatever the library's layout.

        Called once, before anything is timed; the work goes on from wherever it leaves.
        """

    @abstractmethod
    def run(self, repeats: int) -> None:
        """Do the work ``repeats`` times, on the batches in turn. On a device: submit it and return."""

    def synchronize(self) -> None:
        """Wait until what was submitted is done."""

    def record(self) -> Any:
        """Return a mark in the device's stream, or None where there is no device."""
        return None

    def elapsed(self, start: Any, stop: Any) -> float:
        """Return the seconds between two marks that have been reached."""
        raise NotImplementedError

    def launches(self) -> int | None:
        """Return how many kernels one unit of work launches on a device, None where nobody counted."""
        return None

    def peak_bytes(self) -> int | None:
        """Return the device memory that was held at most; None on the CPU, where the process is asked."""
        return None

    def time(self, repeats: int) -> tuple[float, float | None]:
        """Return the seconds of one unit of work by the host's clock and by the device's, over ``repeats`` units."""
        self.synchronize()
        started, start = time.perf_counter(), self.record()
        self.run(repeats)
        stop = self.record()
        self.synchronize()
        host = (time.perf_counter() - started) / repeats
        return host, None if start is None else self.elapsed(start, stop) / repeats


class Provider(ABC):
    """A library, or one way to use it. Lives in a process of its own; heavy imports happen inside the methods."""

    name: ClassVar[str]
    label: ClassVar[str]
    on_device: ClassVar[bool] = False

    @abstractmethod
    def missing(self) -> str | None:
        """Return why this machine cannot run it (a package, a GPU that is not there), or None."""

    def refuses(self, case: Case) -> str | None:
        """Return why it does not do a case (no batch norm, no such operation), or None."""
        return None

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that do the work."""

    def blas(self) -> str:
        """Return what multiplies matrices on the CPU, and with how many threads; once the packages are imported."""
        return thread_pools()

    @abstractmethod
    def prepare(self, case: Case, problem: Problem) -> Work:
        """Build the case; compilation may wait for the first run."""


def as_host(value: Any) -> Array:
    """Return a copy of an array-like as float64."""
    return np.array(value, dtype=np.float64)


def thread_pools() -> str:
    """Return the libraries with thread pools in this process that can be asked, and their threads."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown (threadpoolctl tells)"
    pools = {f"{pool['internal_api']} {pool['version'] or ''} x{pool['num_threads']}" for pool in threadpool_info()}
    return ", ".join(sorted(" ".join(pool.split()) for pool in pools)) or "none found"
