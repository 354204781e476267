"""Where arrays live and who computes on them: few, coarse operations behind one interface."""

from gpunet.backends.base import Backend
from gpunet.backends.selection import select_backend

__all__ = ["Backend", "select_backend"]
