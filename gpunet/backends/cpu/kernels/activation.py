"""Activations in compiled code: ``activate(source, s, parameter)`` is the function of a source text, known to Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from gpunet.backends.cpu import elementary


def activate(source: str, x: Any, parameter: Any) -> Any:
    """Return ``function(x, parameter)``, which ``source`` defines."""
    raise NotImplementedError


@overload(activate, jit_options=elementary.OPTIONS)
def _activate(source: Any, x: Any, parameter: Any) -> Any:
    if not isinstance(source, types.StringLiteral):
        return None
    names: dict[str, Any] = {
        name: getattr(elementary, name)
        for name in (
            "exponential",
            "exponential_minus_one",
            "hyperbolic_tangent",
            "logarithm_of_one_plus",
            "clamped",
            "multiply_rounded",
            "fused_multiply_add",
            "error_function",
            "select",
        )
    }
    names |= {"sqrt": np.sqrt, "log": np.log, "sin": np.sin, "cos": np.cos, "atan": np.arctan}
    names |= {"A": np.float32, "size": 4} if x == types.float32 else {"A": np.float64, "size": 8}
    exec(source.literal_value, names)
    function = njit(**elementary.INLINED)(names["function"])

    def implementation(source: Any, x: Any, parameter: Any) -> Any:
        return function(x, parameter)

    return implementation
