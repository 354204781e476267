"""Array expressions of the stand-in for CuPy: NumPy computes them, when their stream gets there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

METHODS = ("all", "any", "argmax", "max", "min", "round", "sum")


class LateExpressions(np.lib.mixins.NDArrayOperatorsMixin):
    """What CuPy's arrays do with operators, NumPy's functions and methods: a result has its values later.

    Attributes
    ----------
    values : ndarray
        What is in the memory now.
    """

    values: Any

    @classmethod
    @abstractmethod
    def new(cls, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array in new memory of the current stream."""

    @classmethod
    @abstractmethod
    def later(cls, operation: Callable[[], Any]) -> None:
        """Let the current stream run this."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (None,), **options: Any) -> Any:
        return self._evaluate(getattr(ufunc, method), inputs, options, out[0])

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        return self._evaluate(function, arguments, options)

    def _evaluate(self, function: Any, arguments: Any, options: Any, out: Any = None) -> Any:
        if any(isinstance(argument, np.ndarray) for argument in arguments):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        operands = [argument.values if isinstance(argument, LateExpressions) else argument for argument in arguments]

        def compute(operands: Any) -> Any:
            with np.errstate(all="ignore"):
                return function(*operands, **options)

        if out is None:
            blank = [np.zeros_like(operand) if isinstance(operand, np.ndarray) else operand for operand in operands]
            sample = np.asarray(compute(blank))
            out = self.new(sample.shape, sample.dtype)
        target = out.values
        self.later(lambda: np.copyto(target, compute(operands)))
        return out

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> Any:
        as_wanted = self.values.dtype == np.dtype(dtype) and (order == "K" or self.values.flags.c_contiguous)
        return self if as_wanted and not copy else self._evaluate(np.ndarray.astype, (self, dtype, order), {})

    def item(self) -> Any:
        return self.get().item()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    @abstractmethod
    def get(self) -> Any:
        """Return a copy on the host, once the current stream has got here."""


def _method(name: str) -> Any:
    def method(self: LateExpressions, *arguments: Any, **options: Any) -> Any:
        return self._evaluate(getattr(np.ndarray, name), (self, *arguments), options)

    return method


for _name in METHODS:
    setattr(LateExpressions, _name, _method(_name))
