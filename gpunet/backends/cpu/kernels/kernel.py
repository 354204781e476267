"""What all kernels have in common: how they are called, and where they are kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from numba import cfunc, int64, void


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function of the address of its arguments and the number of a stripe, and keep it on disk.

    Numba keeps one list of what it has compiled from functions of one name, and processes that add to a list at once
    may write over each other's code. So each kernel has a name, and a list, of its own: by the constants that its
    factory was given, but not the stamp, whose old versions are to go.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        constants = {name: cell.cell_contents for name, cell in cells if name != "stamp"}
        digest = hashlib.blake2b(repr(constants).encode(), digest_size=8)
        function.__qualname__ += f"_{digest.hexdigest()}"
        return cfunc(void(int64, int64), cache=True, **options)(function)

    return compiled
