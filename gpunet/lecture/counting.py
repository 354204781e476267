"""Arrays that count what NumPy is asked to do with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass
class Counts:
    """What NumPy was asked to do.

    Attributes
    ----------
    calls : Counter of str
        Element-wise functions, sums and matrix products of whole arrays, by the name of NumPy's function.
    multiplications : int
        Multiplications within matrix products.
    """

    calls: Counter[str] = field(default_factory=Counter)
    multiplications: int = 0

    @property
    def operations(self) -> int:
        """All calls."""
        return self.calls.total()


class CountingArray(np.ndarray[Any, Any]):
    """An array that counts what is computed with it; its views and results count on."""

    counts: Counts

    @classmethod
    def wrap(cls, array: Array, counts: Counts) -> CountingArray:
        """Return a view of an array that adds to ``counts``."""
        view = array.view(cls)
        view.counts = counts
        return view

    def __array_finalize__(self, source: Any) -> None:
        if isinstance(source, CountingArray):
            self.counts = source.counts

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        plain = [_plain(value) for value in inputs]
        self.counts.calls[ufunc.__name__] += 1
        if ufunc is np.matmul:
            columns = plain[1].shape[1] if plain[1].ndim > 1 else 1
            self.counts.multiplications += int(plain[0].size * columns)
        if out is not None:
            options["out"] = tuple(map(_plain, out))
        result = getattr(ufunc, method)(*plain, **options)
        if out is not None:
            return out[0]
        return CountingArray.wrap(result, self.counts) if isinstance(result, np.ndarray) else result


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, CountingArray) else value
