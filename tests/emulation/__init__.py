"""A CUDA device for machines without one: it runs the real kernels, thread by thread, on the CPU. See README.md."""

from .compiler import ORDERS, EmulationError, Kernel, sanitizer_environment
from .device import EmulatedDevice, Replay

__all__ = ["ORDERS", "EmulatedDevice", "EmulationError", "Kernel", "Replay", "sanitizer_environment"]
