"""JAX: compiled pure functions, their buffers donated where a step replaces them."""

from __future__ import annotations

import itertools
import os
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from benchmarks.cases import NETWORK, Case
from benchmarks.problem import Problem
from benchmarks.providers.base import Outputs, Provider, Work, as_host
from benchmarks.providers.common import (
    as_logits,
    first_refusal,
    missing_package,
    refuse_on_cpu,
    refuse_single_row,
    refuse_unknown,
)
from gpunet.environment import usable_cores

Array = npt.NDArray[Any]

# JAX's names; its default on a GPU is TF32.
_PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32"}


def import_jax(platform: str) -> Any:
    """Import JAX for one platform, ``"cpu"`` or ``"cuda"``; on CUDA it takes memory as it needs it, not most of it."""
    if platform == "cuda":
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import jax

    jax.config.update("jax_platforms", platform)
    return jax


def missing_jax(platform: str) -> str | None:
    """Return why JAX does not run on a platform, or None."""
    if reason := missing_package("jax", "JAX"):
        return reason
    try:
        import_jax(platform).devices(platform)
    except (RuntimeError, AssertionError) as error:  # JAX asserts that one platform at least has started
        return f"JAX finds no {platform} device{': ' if str(error) else ''}{str(error).partition(chr(10))[0]}"
    return None


def blas_of_xla() -> str:
    """Return XLA's own, which takes a thread for each core that the process may use."""
    return f"XLA x{usable_cores()}"


def set_precision(jax: Any, case: Case) -> None:
    """Set how float32 matrices are multiplied, for the process."""
    jax.config.update("jax_default_matmul_precision", _PRECISIONS[case.precision])


def refuse_in_jax(case: Case, on_device: bool) -> str | None:
    """Return why JAX does not do a case."""
    return first_refusal(
        refuse_unknown(case),
        None if on_device else refuse_on_cpu(case),
        refuse_single_row(case),
        None if case.dtype == "float32" else "JAX computes in float32 unless its 64-bit mode is on, which it is not",
    )


class JaxWork(Work):
    """Work of compiled functions.

    A GPU runs them in the order of the calls, so that waiting for the last one waits for all. A CPU may run calls that
    do not depend on each other side by side: there, units of work that leave nothing to the next are waited for.
    """

    def __init__(self, jax: Any, platform: str) -> None:
        self.jax = jax
        self.platform = platform
        self.latest: Any = None
        self.peak_before = self._memory().get("peak_bytes_in_use", 0)

    def synchronize(self) -> None:
        self.jax.block_until_ready(self.latest)

    def peak_bytes(self) -> int | None:
        """Return the peak of the process, which JAX cannot set back: None where an earlier case was larger."""
        peak = self._memory().get("peak_bytes_in_use", 0)
        return int(peak) if peak > self.peak_before else None

    def _memory(self) -> dict[str, int]:
        return self.jax.local_devices()[0].memory_stats() or {}


class _NetworkWork(JaxWork):
    """Work of a network on batches that are on the device, in turn: one call of a compiled function each."""

    def __init__(self, jax: Any, platform: str, case: Case, problem: Problem) -> None:
        super().__init__(jax, platform)
        from benchmarks.providers.jax_networks import NetworkFunctions

        self.case = case
        self.problem = problem
        self.functions = NetworkFunctions(case)
        self.parameters = {name: jax.numpy.array(value) for name, value in problem.parameters.items()}
        self.state = {name: jax.numpy.array(value) for name, value in problem.state.items()}

    def place_batches(self) -> None:
        """Put the batches on the device."""
        asarray = self.jax.numpy.array
        self.batches = [(asarray(X), asarray(y)) for X, y in self.problem.batches]
        self.turn = itertools.cycle(self.batches)


class _Forward(_NetworkWork):
    """The logits in inference mode."""

    def __init__(self, jax: Any, platform: str, case: Case, problem: Problem) -> None:
        super().__init__(jax, platform, case, problem)
        self.place_batches()
        self.infer = jax.jit(self.functions.infer)

    def run(self, repeats: int) -> None:
        wait = self.platform == "cpu"
        for X, _ in itertools.islice(self.turn, repeats):
            self.latest = self.infer(self.parameters, self.state, X)
            if wait:
                self.latest.block_until_ready()

    def outputs(self) -> Outputs:
        return {"logits": as_logits(self.infer(self.parameters, self.state, self.batches[0][0]))}


class _ForwardBackward(_NetworkWork):
    """Loss, gradients and running averages; the old averages are donated."""

    def __init__(self, jax: Any, platform: str, case: Case, problem: Problem) -> None:
        super().__init__(jax, platform, case, problem)
        self.place_batches()
        self.gradients = jax.jit(self.functions.gradients, donate_argnums=1)

    def run(self, repeats: int) -> None:
        wait = self.platform == "cpu" and not self.state
        for X, y in itertools.islice(self.turn, repeats):
            loss, gradients, self.state = self.gradients(self.parameters, self.state, X, y)
            self.latest = loss, gradients, self.state
            if wait:
                loss.block_until_ready()

    def outputs(self) -> Outputs:
        loss, gradients, self.state = self.gradients(self.parameters, self.state, *self.batches[0])
        return {"loss": as_host(loss).reshape(1), **{name: as_host(value) for name, value in gradients.items()}}


class _Step(_NetworkWork):
    """One step; parameters, running averages, moments and the count of steps are donated."""

    def __init__(self, jax: Any, platform: str, case: Case, problem: Problem) -> None:
        super().__init__(jax, platform, case, problem)
        self.place_batches()
        self.training = self.functions.initial_training(self.parameters, self.state)
        self.step = jax.jit(self.functions.step, donate_argnums=0)

    def run(self, repeats: int) -> None:
        for X, y in itertools.islice(self.turn, repeats):
            self.training, _ = self.step(self.training, X, y)
        self.latest = self.training

    def outputs(self) -> Outputs:
        for X, y in self.batches[: self.problem.checked_steps]:
            self.training, _ = self.step(self.training, X, y)
        return {name: as_host(value) for name, value in self.training[0].items()}


class _Epoch(_NetworkWork):
    """An epoch over arrays of the host: they go to the device, and each step gathers the rows of its batch there.

    NumPy draws the order; the losses are read at the end.
    """

    def __init__(self, jax: Any, platform: str, case: Case, problem: Problem) -> None:
        super().__init__(jax, platform, case, problem)
        self.training = self.functions.initial_training(self.parameters, self.state)
        self.step = jax.jit(self.functions.gathered_step, donate_argnums=0)
        self.generator = np.random.default_rng(0)

    def once(self, shuffle: bool) -> float:
        """Return the mean loss."""
        numpy = self.jax.numpy
        X, y = (numpy.asarray(array) for array in self.problem.batches[0])
        order = np.arange(len(y), dtype=np.int32)
        if shuffle:
            self.generator.shuffle(order)
        losses, rows = [], []
        for start in range(0, len(order), self.case.rows):
            index = order[start : start + self.case.rows]
            self.training, loss = self.step(self.training, X, y, index)
            losses.append(loss)
            rows.append(len(index))
        return float(np.average(self.jax.device_get(losses), weights=rows))

    def run(self, repeats: int) -> None:
        for _ in range(repeats):
            self.once(shuffle=True)
        self.latest = self.training

    def outputs(self) -> Outputs:
        self.once(shuffle=False)
        return {name: as_host(value) for name, value in self.training[0].items()}


class _OperationWork(JaxWork):
    """One operation; see :mod:`benchmarks.providers.jax_operations`."""

    def __init__(self, jax: Any, platform: str, case: Case, problem: Problem) -> None:
        super().__init__(jax, platform)
        from benchmarks.providers.jax_operations import build_operation

        self.once, self.carried = build_operation(case, problem.arrays)

    def run(self, repeats: int) -> None:
        wait = self.platform == "cpu" and self.carried is None
        for _ in range(repeats):
            self.carried, self.latest = self.once(self.carried)
            if wait:
                self.synchronize()

    def outputs(self) -> Outputs:
        self.carried, results = self.once(self.carried)
        return {name: as_host(value).reshape(value.shape or 1) for name, value in results.items()}


_WORK: dict[str, type[_NetworkWork]] = {
    "forward": _Forward,
    "forward_backward": _ForwardBackward,
    "step": _Step,
    "epoch": _Epoch,
}


class Jax(Provider):
    """JAX on a CPU."""

    name: ClassVar[str] = "jax"
    label: ClassVar[str] = "JAX"
    platform: ClassVar[str] = "cpu"

    def missing(self) -> str | None:
        return missing_jax(self.platform)

    def refuses(self, case: Case) -> str | None:
        return refuse_in_jax(case, self.on_device)

    def versions(self) -> dict[str, str]:
        import jax
        import jaxlib

        return {"jax": jax.__version__, "jaxlib": jaxlib.__version__}

    def blas(self) -> str:
        return blas_of_xla()

    def prepare(self, case: Case, problem: Problem) -> Work:
        jax = import_jax(self.platform)
        set_precision(jax, case)
        work: type[_NetworkWork] | type[_OperationWork] = _OperationWork
        if case.operation == NETWORK:
            work = _WORK[case.mode]
        return work(jax, self.platform, case, problem)


class JaxCuda(Jax):
    """JAX on CUDA; its kernels are not counted, and no events mark the time: its stream is its own."""

    name: ClassVar[str] = "jax-cuda"
    label: ClassVar[str] = "JAX (CUDA)"
    on_device: ClassVar[bool] = True
    platform: ClassVar[str] = "cuda"
