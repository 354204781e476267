"""What the CUDA backend may compile, for checks of it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from gpunet.backends.cuda.instantiation import Variants
from gpunet.backends.cuda.kernel_library import Group


def groups_of(module: str, variants: Variants) -> Iterator[Group]:
    """Yield the kernels of a file that are compiled together, as the Python file of the same name lists them."""
    yield from import_module(f"gpunet.backends.cuda.{module}").groups(variants)
