"""The loss whose minimum is a quantile of the targets, or several of them."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from gpunet.errors import InvalidValueError, counted
from gpunet.layers.base import Memory, fixed
from gpunet.layers.loss import Loss
from gpunet.validation import check_number


class Quantile(Loss):
    """l = sum_j r_j(t_j - o_j), r_j(u) = max(q_j u, (q_j - 1) u): the output that costs least is the q-quantile.

    The gradient is 1 - q where an output is above its target, -q where it is below and 0 where both are equal (Koenker
    and Bassett 1978, "Regression quantiles"; scikit-learn's ``mean_pinball_loss``, whose mean over the outputs is a sum
    here).

    Parameters
    ----------
    *levels : float
        The q, above 0 and below 1; 0.5, the median, by default. One is that of every output. Several are those of as
        many outputs: with one target per row, each output learns another quantile of it.

    Raises
    ------
    InvalidValueError, InvalidTypeError
    """

    name = "quantile"
    most_numbers: ClassVar[float] = float("inf")
    levels = fixed("levels")

    def __init__(self, *levels: float) -> None:
        self._levels = tuple(check_number("quantile", level) for level in levels or (0.5,))
        for level in self._levels:
            if not 0 < np.float32(level) < 1:
                raise InvalidValueError(f"quantile: {level!r} is out of range. Expected a number above 0, below 1.")

    @property
    def numbers(self) -> tuple[float, ...]:
        return self._levels

    @property
    def shares_targets(self) -> bool:
        return len(self._levels) > 1

    def check_outputs(self, outputs: int) -> None:
        if len(self._levels) not in (1, outputs):
            raise InvalidValueError(
                f"loss: {str(self)!r} has {counted(len(self._levels), 'quantile')} for {counted(outputs, 'output')}. "
                "Expected one for each, or one for all."
            )

    def bind(self, memory: Memory) -> None:
        super().bind(memory)
        self._on_device = memory.backend.asarray(np.array(self._levels, memory.dtype))

    def _arguments(self) -> tuple[Any, ...]:
        return (self._on_device,)
