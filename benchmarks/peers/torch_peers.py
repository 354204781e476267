"""PyTorch: as usually written, tuned, compiled, and as one CUDA graph of the whole step; on a CPU and on CUDA."""

from __future__ import annotations

import importlib
import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.peers.peer import Peer, Work, missing_package, refuse_single_row
from benchmarks.problem import Problem
from benchmarks.report.results import Case


class TorchEager(Peer):
    """PyTorch as usually written; the others have other classes of networks, and tune operations."""

    network: ClassVar[str] = "torch_work:EagerNetwork"
    tuned: ClassVar[bool] = False

    def missing(self) -> str | None:
        if reason := missing_package("torch", "PyTorch"):
            return reason
        if self.on_device:
            import torch

            if not torch.cuda.is_available():
                return f"PyTorch {torch.__version__} finds no CUDA device"
        return None

    def refuses(self, case: Case) -> str | None:
        return super().refuses(case) or refuse_single_row(case)

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

        from benchmarks.peers.torch_work import build_operation_work

        # Of this process; it decides whether cuBLAS may use TF32.
        torch.set_float32_matmul_precision("high" if case.precision == "tf32" else "highest")
        if not case.is_network:
            return build_operation_work(case, problem, self.device, self.tuned)
        return self.new_network(case, problem)

    def new_network(self, case: Case, problem: Problem) -> Any:
        """Return the network of a case."""
        module, _, network = self.network.partition(":")
        return getattr(importlib.import_module(f"benchmarks.peers.{module}"), network)(case, problem, self.device)


class TorchTuned(TorchEager):
    """PyTorch as its tuning guide has it."""

    network, tuned = "torch_work:TunedNetwork", True

    def is_worth(self, case: Case) -> bool:
        return self.on_device or case.sweep is None


class TorchCompile(TorchEager):
    """Forward pass and loss compiled together, with their backward, and the optimiser's step compiled."""

    network = "torch_compiled:CompiledNetwork"

    def missing(self) -> str | None:
        if reason := super().missing() or (missing_package("triton", "Triton") if self.on_device else None):
            return reason
        variable, default = ("CC", "gcc") if self.on_device else ("CXX", "g++")
        command = os.environ.get(variable, default)
        if shutil.which(command) is None:
            return f"torch.compile needs a compiler, and {command} is not there"
        if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
            return "torch.compile needs Python's header files (Python.h), which are not installed"
        return None

    def refuses(self, case: Case) -> str | None:
        if not case.is_network:
            return "the compiler is measured on networks, where it has something to fuse"
        return super().refuses(case)

    def is_worth(self, case: Case) -> bool:
        """Half a minute for each network: steps of the configurations but for c, which is all matrix products."""
        if self.on_device:
            return case.sweep is None
        return case.is_network and case.mode == "step" and case.label in "abde" and case.batch_norm

    def new_network(self, case: Case, problem: Problem) -> Any:
        import torch

        # Every network has the same code: without this the compiler gives up on it after eight cases.
        torch.compiler.reset()
        return super().new_network(case, problem)


class TorchGraph(TorchCompile):
    """The whole compiled unit of work, optimiser included, recorded once as a CUDA graph and replayed.

    A unit of work copies its batch into the graph's buffers and launches the graph.
    """

    network = "torch_compiled:GraphNetwork"

    def is_worth(self, case: Case) -> bool:
        return True
