"""What both initialisers do with data: check them, send them through the layers, undo everything after an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.errors import GpunetError, InvalidValueError, ShapeError
from gpunet.layers import Linear
from gpunet.network import Network
from gpunet.training.snapshot import Snapshot

Array = npt.NDArray[Any]


def check_sample(network: Network, X: npt.ArrayLike) -> Array:
    """Return X as the network takes it, on the host; at least two rows that differ.

    Raises
    ------
    ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
    """
    inputs = network.check_inputs(network.on_host("X", X))
    if inputs.shape[0] < 2:
        raise ShapeError("X: got 1 row. Expected at least 2: one row has no variance.")
    if (inputs == inputs[0]).all():
        raise InvalidValueError("X: every row is the same. Expected rows that differ: these have no variance.")
    return inputs


@contextmanager
def unless_it_fails(network: Network) -> Iterator[None]:
    """Keep what is done to a network; after an error, put parameters, running averages and step count back."""
    before = Snapshot(network)
    try:
        yield
    except (GpunetError, KeyboardInterrupt):
        before.restore()
        raise


def linear_layers(network: Network, inputs: Array) -> Iterator[tuple[Linear, Array]]:
    """Send rows through the network and stop before each linear layer: yield it with what it is about to read.

    Batch norm takes the statistics of these rows, and dropout passes everything on. A layer runs after it was yielded,
    with the weights that it has then.

    Parameters
    ----------
    network : Network
    inputs : ndarray, (n, d)
        On the host, checked.
    """
    x = network.backend.asarray(inputs)
    with network.kept_averages():
        outputs = (output for _, output in network.forward_layers(x, dropout=False))
        for layer, incoming in zip(network.layers, chain([x], outputs), strict=False):
            if isinstance(layer, Linear):
                yield layer, incoming


def linear_output(network: Network, layer: Linear, x: Array) -> Array:
    """Return W x for every row, (n, m), as float64 on the host."""
    network.copy_weights()
    return layer.numbers(layer.forward(x, training=True)).astype(np.float64)


def spread(outputs: Array, dtype: np.dtype[Any]) -> Array:
    """Return each unit's standard deviation over the rows, (m,); 0 where it is no more than rounding.

    Parameters
    ----------
    outputs : ndarray, (n, m)
    dtype : dtype
        What they were computed in.
    """
    deviation = (outputs - outputs[0]).std(axis=0)  # of numbers that are all the same, exactly 0
    # Equal rows can differ by this: a product adds up its terms in another order for the last rows of a block.
    rounding = 16 * np.finfo(dtype).eps * np.sqrt(np.mean(outputs**2))
    return np.where(deviation > rounding, deviation, 0.0)
