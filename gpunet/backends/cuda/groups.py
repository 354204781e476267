"""Everything that the CUDA backend may compile, for checks of all of it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from gpunet.backends.cuda.instantiation import Variants
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.sources import names


def all_groups(variants: Variants) -> Iterator[tuple[str, Group]]:
    """Yield (file, kernels compiled together) for every kernel file, from the Python file of the same name."""
    for name in names():
        for group in import_module(f"gpunet.backends.cuda.{name}").groups(variants):
            yield name, group
