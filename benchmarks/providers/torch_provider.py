"""PyTorch, operation by operation: as usually written, and tuned; on a CPU and on CUDA."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from benchmarks.cases import NETWORK, Case
from benchmarks.problem import Problem
from benchmarks.providers.base import Outputs, Provider, Work, as_host
from benchmarks.providers.common import (
    first_refusal,
    missing_package,
    refuse_on_cpu,
    refuse_single_row,
    refuse_unknown,
)
from benchmarks.providers.graph_nodes import count_kernels


class TorchWork(Work):
    """Work on a device of PyTorch; on CUDA, events of the current stream mark the time."""

    def __init__(self, device: str) -> None:
        import torch

        self.torch = torch
        self.on_cuda = device == "cuda"
        self.forget_peak()

    def forget_peak(self) -> None:
        """Start the peak of allocated memory anew."""
        if self.on_cuda:
            self.torch.cuda.reset_peak_memory_stats()

    def synchronize(self) -> None:
        if self.on_cuda:
            self.torch.cuda.synchronize()

    def record(self) -> Any:
        if not self.on_cuda:
            return None
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed(self, start: Any, stop: Any) -> float:
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1000

    def peak_bytes(self) -> int | None:
        return int(self.torch.cuda.max_memory_allocated()) if self.on_cuda else None

    def new_unit(self) -> Callable[[], object] | None:
        """Return one unit of work that can be recorded in a CUDA graph, None where it cannot; the last thing done."""
        return None

    def launches(self) -> int | None:
        """Return the kernels in a recording of one unit of work, which is made for this and never run.

        Not PyTorch's profiler: what it hooks into the driver stays, and slows down every launch of later cases.
        """
        if not self.on_cuda:
            return None
        cuda = self.torch.cuda
        stream = cuda.Stream()
        stream.wait_stream(cuda.current_stream())
        with cuda.stream(stream):
            unit = self.new_unit()
            if unit is None:
                return None
            unit()  # compiles, and takes what it keeps; its backward pass runs on the stream of the forward pass
        cuda.synchronize()
        graph = cuda.CUDAGraph(keep_graph=True)
        with cuda.graph(graph, stream=stream):
            unit()
        return count_kernels(graph.raw_cuda_graph())


class NetworkWork(TorchWork):
    """Work of a network on batches that are on the device, in turn.

    ``forward``, ``forward_backward`` and ``step`` of :class:`~benchmarks.providers.torch_networks.EagerNetwork`, or of
    one derived from it, are the units of work.
    """

    def __init__(self, network: Any, case: Case, problem: Problem) -> None:
        super().__init__(network.device)
        self.network = network
        self.case = case
        self.problem = problem
        torch = self.torch
        self.batches = [
            (torch.from_numpy(X).to(network.device), torch.from_numpy(y).long().to(network.device))
            for X, y in problem.batches
        ]
        self.turn = itertools.cycle(self.batches)
        self.once = getattr(network, case.mode)

    def run(self, repeats: int) -> None:
        once = self.once
        for X, y in itertools.islice(self.turn, repeats):
            once(X, y)

    def new_unit(self) -> Callable[[], object] | None:
        once = self.network.recordable()
        return None if once is None else lambda: once(*self.batches[0])

    def outputs(self) -> Outputs:
        steps = self.problem.checked_steps if self.case.mode == "step" else 1
        for number, (X, y) in enumerate(self.batches[:steps]):
            result = self.once(X, y)
            if number == 0 and self.network.first_unit_compiles:
                self.forget_peak()
        outputs: Outputs = self.network.outputs(result)
        return outputs


class EpochWork(TorchWork):
    """An epoch over arrays of the host."""

    def __init__(self, network: Any, problem: Problem) -> None:
        super().__init__(network.device)
        self.network = network
        self.data = problem.batches[0]

    def run(self, repeats: int) -> None:
        for _ in range(repeats):
            self.network.epoch(*self.data, shuffle=True)

    def outputs(self) -> Outputs:
        self.network.epoch(*self.data, shuffle=False)
        parameters: Outputs = self.network.parameters()
        return parameters


class OperationWork(TorchWork):
    """One operation; see :mod:`benchmarks.providers.torch_operations`."""

    def __init__(self, case: Case, problem: Problem, device: str, tuned: bool) -> None:
        super().__init__(device)
        from benchmarks.providers.torch_operations import build_operation

        self.build = partial(build_operation, case, problem, device, tuned)
        self.once, self.name_results = self.build()

    def run(self, repeats: int) -> None:
        once = self.once
        for _ in range(repeats):
            once()

    def new_unit(self) -> Callable[[], object]:
        once, _ = self.build()
        optimizer = getattr(once, "__self__", None)
        if isinstance(optimizer, self.torch.optim.Optimizer):
            allow_recording(optimizer)
        return once

    def outputs(self) -> Outputs:
        results = self.name_results(self.once())
        return {name: as_host(tensor.detach().cpu().numpy()) for name, tensor in results.items()}


def allow_recording(optimizer: Any) -> None:
    """Let an optimiser that is not capturable be recorded, for counting: its check asks for what replays would need."""
    for name in ("_cuda_graph_capture_health_check", "_accelerator_graph_capture_health_check"):
        setattr(optimizer, name, lambda: None)


class TorchProvider(Provider):
    """A way to use PyTorch."""

    tuned: ClassVar[bool] = False

    @property
    def device(self) -> str:
        """Where the tensors are."""
        return "cuda" if self.on_device else "cpu"

    def missing(self) -> str | None:
        if reason := missing_package("torch", "PyTorch"):
            return reason
        if self.on_device:
            import torch

            if not torch.cuda.is_available():
                return f"PyTorch {torch.__version__} finds no CUDA device"
        return None

    def refuses(self, case: Case) -> str | None:
        return first_refusal(
            refuse_unknown(case), None if self.on_device else refuse_on_cpu(case), refuse_single_row(case)
        )

    def versions(self) -> dict[str, str]:
        import torch

        cuda = {"cuda": str(torch.version.cuda)} if self.on_device else {}
        return {"torch": str(torch.__version__), **cuda}

    def blas(self) -> str:
        """Return PyTorch's own: it is part of its binary, where nobody else can ask for it."""
        import torch

        return f"{'MKL' if torch.backends.mkl.is_available() else 'PyTorch'} x{torch.get_num_threads()}"

    def prepare(self, case: Case, problem: Problem) -> Work:
        import torch

        # Of this process; it decides whether cuBLAS may use TF32.
        torch.set_float32_matmul_precision("high" if case.precision == "tf32" else "highest")
        if case.operation != NETWORK:
            return OperationWork(case, problem, self.device, self.tuned)
        network = self.new_network(case, problem)
        return EpochWork(network, problem) if case.mode == "epoch" else NetworkWork(network, case, problem)

    def new_network(self, case: Case, problem: Problem) -> Any:
        """Return the network of a case."""
        from benchmarks.providers.torch_networks import EagerNetwork, TunedNetwork

        return (TunedNetwork if self.tuned else EagerNetwork)(case, problem, self.device)


class TorchEager(TorchProvider):
    """PyTorch as usually written; a unit of work is that of ``EagerNetwork``."""

    name: ClassVar[str] = "torch-eager"
    label: ClassVar[str] = "PyTorch (eager)"


class TorchTuned(TorchProvider):
    """PyTorch as its tuning guide has it; a unit of work is that of ``TunedNetwork``."""

    name: ClassVar[str] = "torch-tuned"
    label: ClassVar[str] = "PyTorch (tuned)"
    tuned: ClassVar[bool] = True


class TorchCudaEager(TorchEager):
    """The same on CUDA."""

    name: ClassVar[str] = "torch-cuda-eager"
    label: ClassVar[str] = "PyTorch (eager, CUDA)"
    on_device: ClassVar[bool] = True


class TorchCudaTuned(TorchTuned):
    """The same on CUDA."""

    name: ClassVar[str] = "torch-cuda-tuned"
    label: ClassVar[str] = "PyTorch (tuned, CUDA)"
    on_device: ClassVar[bool] = True
