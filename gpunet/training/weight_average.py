"""The exponential moving average of a network's weights while it trains (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.network import Network
from gpunet.training.snapshot import Snapshot
from gpunet.validation import check_rate

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class WeightAverage:
    """Train as ever, and validate and keep the moving average of the weights after each update.

    average += (1 - decay) (weights - average), beginning with the weights after the first update: the numbers of
    PyTorch's ``AveragedModel`` with ``get_ema_multi_avg_fn(decay)`` and ``use_buffers=True``. The running averages of
    batch norm are averaged in the same way. An average reaches back over about 1 / (1 - decay) updates: after fewer, it
    still holds on to the first.

    Parameters
    ----------
    decay : float
        0 to 1, 1 excluded.
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        check_rate("decay", self.decay)


@dataclass(frozen=True)
class AverageRecord:
    """An average of an interrupted run, as a checkpoint has it.

    Attributes
    ----------
    updates : int
    parameters, state : ndarray
        Flat vectors, on the host.
    """

    updates: int
    parameters: Array
    state: Array


class AveragedWeights:
    """The average of a network's weights, on its device.

    Parameters
    ----------
    network : Network
    rule : WeightAverage

    Attributes
    ----------
    decay : float
    average : Snapshot
        Before the first update, of the weights there were then.
    """

    def __init__(self, network: Network, rule: WeightAverage) -> None:
        self.decay = rule.decay
        self.average = Snapshot(network)
        self._trained = Snapshot(network)
        self._network = network
        self._updates = network.backend.zeros(1, np.int64)

    @property
    def updates(self) -> int:
        """How many there have been."""
        return int(self._network.backend.to_numpy(self._updates)[0])

    def add(self, loss: Array) -> None:
        """Let the weights after an update count; ``loss`` is what the update took for it."""
        network, average = self._network, self.average
        network.backend.average_weights(
            network.flat_parameters,
            average.parameters,
            network.flat_state,
            average.state,
            self._updates,
            loss,
            decay=self.decay,
        )

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the network have the average in a block; all of it may be recorded."""
        self.exchange()
        try:
            yield
        finally:
            self.take_back()

    def exchange(self) -> None:
        """Let the network have the average until :meth:`take_back`."""
        self._trained.take()
        self.put()

    def take_back(self) -> None:
        """Let the network have the weights that are trained."""
        self._trained.put()

    def put(self) -> None:
        """Let the network have the average."""
        self.average.put()

    def continue_from(self, record: AverageRecord) -> None:
        """Go on from where an interrupted run stood."""
        self.average.set(record.parameters, record.state, self._network.steps)
        self._network.backend.copy(np.array([record.updates], np.int64), self._updates)
