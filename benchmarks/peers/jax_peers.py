"""JAX: compiled pure functions, their buffers donated where a step replaces them."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.peers.peer import Peer, Work, missing_package, refuse_single_row
from benchmarks.problem import Problem
from benchmarks.report.results import Case
from gpunet.environment import usable_cores

# JAX's names; its default on a GPU is TF32.
_PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32"}


class Jax(Peer):
    """JAX; its kernels are not counted, and no events mark the time on CUDA: its stream is its own."""

    def missing(self) -> str | None:
        if reason := missing_package("jax", "JAX"):
            return reason
        try:
            self.import_jax().devices(self.device)
        except (RuntimeError, AssertionError) as error:  # JAX asserts that one platform at least has started
            return f"JAX finds no {self.device} device{': ' if str(error) else ''}{str(error).partition(chr(10))[0]}"
        return None

    def refuses(self, case: Case) -> str | None:
        if case.dtype != "float32":
            return "JAX computes in float32 unless its 64-bit mode is on, which it is not"
        return super().refuses(case) or refuse_single_row(case)

    def versions(self) -> dict[str, str]:
        import jax
        import jaxlib

        return {"jax": jax.__version__, "jaxlib": jaxlib.__version__}

    def blas(self) -> str:
        """Return XLA's own, which takes a thread for each core that the process may use."""
        return f"XLA x{usable_cores()}"

    def prepare(self, case: Case, problem: Problem) -> Work:
        self.import_jax(case)
        from benchmarks.peers.jax_work import build_work

        return build_work(case, problem, self.device)

    def import_jax(self, case: Case | None = None) -> Any:
        """Import JAX for the peer's platform and, for the process, a case's products of float32 matrices."""
        if self.on_device:  # it takes memory as it needs it, not most of it
            os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        import jax

        jax.config.update("jax_platforms", self.device)
        if case is not None:
            jax.config.update("jax_default_matmul_precision", _PRECISIONS[case.precision])
        return jax
