"""Huber's loss: squared error that outliers do not rule."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from gpunet.layers.base import fixed
from gpunet.layers.loss import Loss
from gpunet.validation import check_number

_FLOAT32 = np.finfo(np.float32)


class Huber(Loss):
    """l = sum_j h(o_j - t_j), h(e) = e^2 / 2 where abs(e) <= delta and delta (abs(e) - delta / 2) elsewhere.

    The gradient is o - t, limited to -delta ... delta: a row far off pulls no harder than one that is off by delta
    (Huber 1964, "Robust estimation of a location parameter"; ``torch.nn.HuberLoss``, whose mean over the outputs is a
    sum here).

    Parameters
    ----------
    delta : float
        In the unit of the targets, a normal float32 above 0.

    Raises
    ------
    InvalidValueError, InvalidTypeError
    """

    name = "huber"
    most_numbers: ClassVar[float] = 1
    delta = fixed("delta")

    def __init__(self, delta: float = 1.0) -> None:
        self._delta = check_number("delta", delta, minimum=float(_FLOAT32.tiny), maximum=float(_FLOAT32.max))

    @property
    def numbers(self) -> tuple[float, ...]:
        return (self._delta,)

    def _arguments(self) -> tuple[Any, ...]:
        return self.numbers
