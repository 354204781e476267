"""Networks in PyTorch, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.torch_work import TunedNetwork, new_optimizer
from benchmarks.problem import Problem
from benchmarks.report.results import Case

_WARM_UPS = 3
# The kernels of "max-autotune", in no graph of the compiler's own.
_WITHOUT_GRAPHS = "max-autotune-no-cudagraphs"


class CompiledNetwork(TunedNetwork):
    """Forward pass and loss compiled together, their backward with them, and the optimiser's step."""

    def __init__(self, case: Case, problem: Problem, device: str) -> None:
        super().__init__(case, problem, device)
        if case.mode == "forward":
            self.logits = torch.compile(self.model, dynamic=False)
        else:
            self.loss = torch.compile(self._loss, dynamic=False)
            self.update = torch.compile(self.optimizer.step, dynamic=False)

    def new_optimizer(self) -> torch.optim.Optimizer:
        # Not the fused one, which the compiler cannot look into: it fuses the plain one itself.
        return new_optimizer(self.case, self.model.parameters())


class GraphNetwork(TunedNetwork):
    """Model and loss compiled, and the whole unit of work recorded as one CUDA graph for each size of batch."""

    def __init__(self, case: Case, problem: Problem, device: str) -> None:
        super().__init__(case, problem, device)
        if case.mode == "forward":
            self.logits = torch.compile(self.model, mode=_WITHOUT_GRAPHS, dynamic=False)
        else:
            self.loss = torch.compile(self._loss, mode=_WITHOUT_GRAPHS, dynamic=False)
        # By the size of the batch: what replays the work, the tensors that it reads, and the one that it writes.
        self._recordings: dict[int, tuple[Callable[[], None], Tensor, Tensor, Tensor]] = {}

    def new_optimizer(self) -> torch.optim.Optimizer:
        return new_optimizer(self.case, self.model.parameters(), fused=True, capturable=True)

    def forward(self, X: Tensor, y: Tensor) -> Tensor:
        return self._replay(super().forward, X, y)

    def forward_backward(self, X: Tensor, y: Tensor) -> Tensor:
        return self._replay(super().forward_backward, X, y)

    def step(self, X: Tensor, y: Tensor) -> Tensor:
        return self._replay(self._whole_step, X, y)

    def _whole_step(self, X: Tensor, y: Tensor) -> Tensor:
        loss = super().forward_backward(X, y)
        self.update()
        return loss

    def _replay(self, work: Callable[[Tensor, Tensor], Tensor], X: Tensor, y: Tensor) -> Tensor:
        if len(y) not in self._recordings:
            self._recordings[len(y)] = self._record(work, X.clone(), y.clone())
        replay, kept_X, kept_y, result = self._recordings[len(y)]
        kept_X.copy_(X)
        kept_y.copy_(y)
        replay()
        return result

    def _record(self, work: Callable[[Tensor, Tensor], Tensor], X: Tensor, y: Tensor) -> Any:
        """Record the work as PyTorch's manual does; what the warm-ups changed is put back."""
        before = {tensor: tensor.detach().clone() for tensor in self._changing()}
        self.warm_up(lambda: work(X, y))
        # Gradients made during the recording belong to the graph's memory.
        self.optimizer.zero_grad(set_to_none=True)
        # Detached: the graph of autograd would tie the parameters to the recording's stream.
        replay, result = self.capture(lambda: work(X, y).detach())
        with torch.no_grad():
            for tensor in self._changing():
                if tensor in before:
                    tensor.copy_(before[tensor])
                else:
                    tensor.zero_()  # a moment that the warm-ups made
        return replay, X, y, result

    def warm_up(self, work: Callable[[], object]) -> None:
        """Compile, choose kernels and make moments, on a stream other than the default one."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.reset_peak_memory_stats()  # what choosing kernels took is not what the work takes

    def capture(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Return a function that replays the work, and where its result then is."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = work()
        return graph.replay, result

    def _changing(self) -> list[Tensor]:
        """Return parameters, buffers and moments."""
        moments: list[Any] = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors = [*self.model.parameters(), *self.model.buffers(), *moments]
        return [tensor for tensor in tensors if isinstance(tensor, Tensor)]
