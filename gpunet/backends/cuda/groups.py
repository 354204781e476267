"""Everything that the CUDA backend may compile, for checks of all of it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from gpunet.activations import Activation
from gpunet.backends.cuda.instantiation import Variants
from gpunet.backends.cuda.kernel_library import Group
from gpunet.backends.cuda.sources import names


def all_groups(variants: Variants) -> Iterator[tuple[str, Group, Activation | None]]:
    """Yield (file, kernels compiled together, the activation among their template arguments) for every kernel file.

    The kernels are those that the Python file of the same name lists.
    """
    for name in names():
        for group in import_module(f"gpunet.backends.cuda.{name}").groups(variants):
            among = (activation for activation in variants.activations if f", {activation.cuda_name}" in group[0])
            yield name, group, next(among, None)
