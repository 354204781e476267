"""The CPU backend that is compiled with Numba and runs on threads of its own."""

from gpunet.backends.cpu.backend import CpuBackend

__all__ = ["CpuBackend"]
