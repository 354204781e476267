"""Going over examples, epoch after epoch: in which order, and from one mistake to the next."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.random import Purpose, host_generator

Array = npt.NDArray[Any]

_FIRST_BLOCK = 8


def epoch_orders(rows: int, epochs: int | None, *, seed: int, shuffle: bool = True, stride: int = 1) -> Iterator[Array]:
    """Yield the order of the rows in each epoch, int32 (rows,).

    Parameters
    ----------
    rows : int
    epochs : int or None
        How many; None never ends.
    seed : int
    shuffle : bool
        Whether each epoch has an order of its own; False keeps that of the rows.
    stride : int
        Epoch e, from 0, is drawn from the stream e ``stride``.
    """
    for epoch in itertools.count() if epochs is None else range(epochs):
        order = np.arange(rows, dtype=np.int32)
        if shuffle:
            host_generator(seed, Purpose.SHUFFLE, epoch * stride).shuffle(order)
        yield order


def mistakes(rows: int, is_wrong: Callable[[slice], Array]) -> Iterator[int]:
    """Yield, in order, the rows that are wrong when their turn comes; the weights may change at each.

    Parameters
    ----------
    rows : int
    is_wrong : callable
        Says for a slice of the rows, bool (n,), which of them are wrong as the weights stand.
    """
    start, block = 0, _FIRST_BLOCK
    while start < rows:
        # Weights change at mistakes only: look for the next one in blocks, larger ones where mistakes are rare.
        wrong = is_wrong(slice(start, start + block))
        first = int(wrong.argmax())
        if wrong[first]:
            yield start + first
            start, block = start + first + 1, _FIRST_BLOCK
        else:
            start, block = start + block, 2 * block
