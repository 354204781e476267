"""Where arrays live and who computes on them: few, coarse operations behind one interface."""

from gpunet.backends.backend import Backend
from gpunet.backends.numpy import NumpyBackend
from gpunet.backends.selection import select_backend

__all__ = ["Backend", "NumpyBackend", "select_backend"]
