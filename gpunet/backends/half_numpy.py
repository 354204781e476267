"""Half precision on the CPU, emulated: NumPy's operations in float32, each result rounded as a kernel stores it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.backend import Backend, as_method
from gpunet.backends.half import run_on_numbers
from gpunet.backends.notices import say_once
from gpunet.backends.numpy import NumpyBackend

_OPERATIONS = (
    "bias_activation_forward",
    "bias_activation_backward",
    "batch_norm_activation_forward",
    "batch_norm_activation_backward",
    "batch_norm_activation_inference",
    "batch_norm_statistics",
    "batch_norm_activation_apply",
    "batch_norm_activation_sums",
    "batch_norm_activation_input_gradient",
    "dropout_forward",
)


class HalfNumpyBackend(NumpyBackend):
    """Gives a network of half precision the numbers that it has on CUDA, but for the order of sums; slowly."""

    has_half = True

    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
    ) -> None:
        say_once(
            "on the CPU, half precision is emulated",
            "it gives the numbers that CUDA gives, and precision='float32' is faster here",
        )
        run_on_numbers(NumpyBackend.gemm, np, self, a, b, out, transpose_a, transpose_b, accumulate)

    dropout_backward = Backend.dropout_backward  # which knows of rows that are padded


def _on_numbers(name: str) -> Callable[..., None]:
    operation: Callable[..., None] = getattr(NumpyBackend, name)

    def method(self: NumpyBackend, /, *args: Any, **kwargs: Any) -> None:
        run_on_numbers(operation, np, self, *args, **kwargs)

    return as_method(method, operation)


for _name in _OPERATIONS:
    setattr(HalfNumpyBackend, _name, _on_numbers(_name))
