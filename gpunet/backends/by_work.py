"""The backend of ``device="cpu"`` where Numba is installed: NumPy for little work, compiled kernels for much."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.activations import Identity
from gpunet.backends.backend import Backend, PassRecorder, as_method
from gpunet.backends.compilation import telling_of_compilation
from gpunet.backends.notices import say_once
from gpunet.backends.numpy import NumpyBackend

if TYPE_CHECKING:
    from gpunet.backends.cpu import CpuBackend

# Floating-point operations. NumPy does so many in one to four seconds; compiling the kernels of a network takes seven,
# once on a machine, and loading them half of one.
WORTH_COMPILING = 1e11


def compiled_backend() -> CpuBackend:
    """Return a new compiled backend.

    Raises
    ------
    Exception
        Numba cannot be imported or cannot compile here, its cache cannot be written, or a trial gave wrong numbers.
    """
    _try_kernels()
    from gpunet.backends.cpu import CpuBackend

    return CpuBackend()


@functools.cache
def _try_kernels() -> None:
    """Compare a product and an activation with NumPy's, once in a process."""
    with telling_of_compilation():
        from gpunet.backends.cpu import CpuBackend

    rng = np.random.default_rng(0)
    x, weights = (rng.standard_normal(shape).astype(np.float32) for shape in ((67, 33), (33, 29)))
    found, expected = np.empty((67, 29), np.float32), np.empty((67, 29), np.float32)
    for backend, out in ((CpuBackend(), found), (NumpyBackend(), expected)):
        backend.gemm(x, weights, out)
        backend.bias_activation_forward(out, weights[0, :29], Identity(), out)
    if not np.allclose(found, expected, rtol=1e-4, atol=1e-4):
        raise ArithmeticError("its numbers are not those of NumPy")


@functools.cache
def kernels_problem() -> str | None:
    """Say in one sentence why nothing can be compiled here; None where it can. It is tried once in a process."""
    try:
        _try_kernels()
    except Exception as error:  # whatever Numba, the loader or the file system raises: NumPy does without them
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def _dispatched(name: str) -> Callable[..., Any]:
    """Return a method that is the compiled backend's while that is at work, and otherwise NumPy's."""
    on_numpy = getattr(NumpyBackend, name)

    def method(self: CpuByWork, *args: Any, **kwargs: Any) -> Any:
        if self._compiled is None:
            return on_numpy(self, *args, **kwargs)
        return getattr(self._compiled, name)(*args, **kwargs)

    return as_method(method, on_numpy)


class CpuByWork(NumpyBackend):
    """NumPy, but for calls with much work ahead (:meth:`working`), which run on compiled kernels.

    Both work on the same arrays. What decides is the number of floating-point operations that a call announces, and
    nothing else: neither the time that anything takes nor what has been compiled before, so that a call has the same
    bits each time. Numba is imported at the first one that is large enough. Where it cannot be used, NumPy does
    everything, and one warning says why.
    """

    name = "cpu"
    records_calls = True

    def __init__(self) -> None:
        super().__init__()
        self._compiled: CpuBackend | None = None
        self._kept: CpuBackend | None = None

    def is_compiled_for(self, work: float) -> bool:
        if work < WORTH_COMPILING:
            return False
        problem = kernels_problem()
        if problem is not None:
            say_once("on a CPU everything runs on NumPy, because the compiled kernels do not work", problem)
        return problem is None

    @contextmanager
    def working(self, work: float) -> Iterator[None]:
        compiled = None
        if self.is_compiled_for(work):
            compiled = self._kept = self._kept or compiled_backend()
        with self.lock:  # to the end: a choice is for nobody else's work, and the one before it comes back after it
            before, self._compiled = self._compiled, compiled
            try:
                yield
            finally:
                self._compiled = before

    @property
    def pass_recorder(self) -> PassRecorder | None:
        return None if self._compiled is None else self._compiled.pass_recorder

    @property
    def arithmetic(self) -> dict[str, str | None]:
        return super().arithmetic if self._compiled is None else self._compiled.arithmetic


_OTHERS = ("copy", "call", "capture", "linear_activation_forward", "flush_denormals")
for _name, _member in vars(Backend).items():
    if hasattr(_member, "__wrapped__") or _name in _OTHERS:
        setattr(CpuByWork, _name, _dispatched(_name))
