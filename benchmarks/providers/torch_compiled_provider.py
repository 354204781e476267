"""PyTorch with ``torch.compile``: on a CPU, on CUDA as usually written, and as one CUDA graph of the whole step."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.cases import NETWORK, Case
from benchmarks.problem import Problem
from benchmarks.providers.base import Work
from benchmarks.providers.common import missing_package
from benchmarks.providers.torch_provider import TorchProvider


class CompiledProvider(TorchProvider):
    """A way to use PyTorch's compiler."""

    tuned: ClassVar[bool] = True
    compiler: ClassVar[tuple[str, str]] = ("CXX", "g++")

    def missing(self) -> str | None:
        if reason := super().missing() or (missing_package("triton", "Triton") if self.on_device else None):
            return reason
        variable, default = self.compiler
        command = os.environ.get(variable, default)
        if shutil.which(command) is None:
            return f"torch.compile needs a compiler, and {command} is not there"
        if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
            return "torch.compile needs Python's header files (Python.h), which are not installed"
        return None

    def refuses(self, case: Case) -> str | None:
        if case.operation != NETWORK:
            return "the compiler is measured on networks, where it has something to fuse"
        return super().refuses(case)

    def prepare(self, case: Case, problem: Problem) -> Work:
        import torch

        # Every network has the same code: without this the compiler gives up on it after eight cases.
        torch.compiler.reset()
        return super().prepare(case, problem)


class TorchCompile(CompiledProvider):
    """Forward pass and loss compiled together, with their backward, and the optimiser's step compiled."""

    name: ClassVar[str] = "torch-compile"
    label: ClassVar[str] = "PyTorch (compiled)"

    def new_network(self, case: Case, problem: Problem) -> Any:
        from benchmarks.providers.torch_compiled_networks import CompiledNetwork

        return CompiledNetwork(case, problem, self.device)


class TorchCudaCompile(CompiledProvider):
    """As usually written: ``torch.compile(model, mode="max-autotune")``, the loss and the fused optimiser eager."""

    name: ClassVar[str] = "torch-cuda-compile"
    label: ClassVar[str] = "PyTorch (max-autotune, CUDA)"
    on_device: ClassVar[bool] = True
    compiler: ClassVar[tuple[str, str]] = ("CC", "gcc")

    def new_network(self, case: Case, problem: Problem) -> Any:
        from benchmarks.providers.torch_compiled_networks import MaxAutotuneNetwork

        return MaxAutotuneNetwork(case, problem, self.device)


class TorchCudaGraph(TorchCudaCompile):
    """The whole compiled unit of work, optimiser included, recorded once as a CUDA graph and replayed.

    A unit of work copies its batch into the graph's buffers and launches the graph.
    """

    name: ClassVar[str] = "torch-cuda-graph"
    label: ClassVar[str] = "PyTorch (compiled, CUDA graph)"

    def new_network(self, case: Case, problem: Problem) -> Any:
        from benchmarks.providers.torch_compiled_networks import GraphNetwork

        return GraphNetwork(case, problem, self.device)
