"""Stop when validation no longer improves, and go back to the best weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from gpunet.errors import unknown_name
from gpunet.network import Network
from gpunet.schedules import MONITORED
from gpunet.training.history import EpochRecord
from gpunet.training.snapshot import Snapshot
from gpunet.validation import check_integer, check_number

Array = npt.NDArray[Any]

_SIGNS = {name: sign for name, sign in MONITORED.items() if name != "loss"}


@dataclass(frozen=True)
class EarlyStopping:
    """When to stop.

    Parameters
    ----------
    patience : int
        Epochs without improvement before training stops.
    minimum_change : float
        What counts as an improvement is more than this.
    monitor : str
        ``"validation_loss"`` or ``"validation_accuracy"``.
    """

    patience: int = 10
    minimum_change: float = 0.0
    monitor: str = "validation_loss"

    def __post_init__(self) -> None:
        check_integer("patience", self.patience, 1)
        check_number("minimum_change", self.minimum_change)
        if not isinstance(self.monitor, str) or self.monitor not in _SIGNS:
            raise unknown_name("monitor", self.monitor, _SIGNS)


@dataclass(frozen=True)
class BestRecord:
    """The best epoch of an interrupted run, as a checkpoint has it.

    Attributes
    ----------
    value, epoch, waited
        See :class:`BestWeights`.
    steps : int
        The network's step count there.
    parameters, state : ndarray
        Flat vectors, on the host.
    """

    value: float
    epoch: int
    waited: int
    steps: int
    parameters: Array
    state: Array


class BestWeights:
    """The weights of the best epoch so far, and how long ago that was.

    Attributes
    ----------
    value : float
        The monitored quantity there, its sign turned so that lower is better.
    epoch : int or None
    waited : int
        Epochs since.
    """

    def __init__(self, network: Network, rule: EarlyStopping) -> None:
        self.rule = rule
        self.value = math.inf
        self.epoch: int | None = None
        self.waited = 0
        self.snapshot = Snapshot(network)

    @property
    def is_over(self) -> bool:
        """Whether training should stop."""
        return self.waited >= self.rule.patience

    def consider(self, record: EpochRecord) -> None:
        """Take note of an epoch."""
        value = _SIGNS[self.rule.monitor] * getattr(record, self.rule.monitor)
        if value < self.value - self.rule.minimum_change:
            self.value, self.epoch, self.waited = value, record.epoch, 0
            self.snapshot.take()
        else:
            self.waited += 1

    def continue_from(self, record: BestRecord) -> None:
        """Go on from where an interrupted run stood."""
        self.value, self.epoch, self.waited = record.value, record.epoch, record.waited
        self.snapshot.set(record.parameters, record.state, record.steps)

    def restore(self) -> bool:
        """Put the best weights back, if there was an epoch to choose from; return whether that changed them."""
        if self.epoch is None:
            return False
        changed = self.snapshot.steps != self.snapshot.network.steps
        self.snapshot.restore()
        return changed
