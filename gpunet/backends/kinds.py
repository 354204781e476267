"""The libraries whose arrays users bring: a result is an array of the library that its input came from.

Of PyTorch nothing is imported: who brings a tensor has it loaded.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy.typing as npt

from gpunet.backends.arrays import Array


def torch_of(values: Any) -> ModuleType | None:
    """Return PyTorch where ``values`` is one of its tensors, otherwise None."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(values, getattr(torch, "Tensor", ())) else None


def like_host(values: Array, like: Any) -> Any:
    """Return a host array as a tensor that shares its memory, where ``like`` is a tensor; otherwise as it is."""
    torch = torch_of(like)
    return values if torch is None else torch.from_dlpack(values)


def empty_tensor(torch: ModuleType, shape: tuple[int, ...], dtype: npt.DTypeLike, like: Any) -> Any:
    """Return an uninitialised tensor where ``like`` is, in memory that PyTorch's current stream may use at once."""
    return torch.empty(shape, dtype=getattr(torch, str(dtype)), device=like.device)
