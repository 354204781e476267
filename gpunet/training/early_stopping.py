"""Stop when validation no longer improves, and go back to the best weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpunet.errors import unknown_name
from gpunet.network import Network
from gpunet.training.history import EpochRecord
from gpunet.training.snapshot import Snapshot
from gpunet.validation import check_integer, check_number

_SIGNS = {"validation_loss": 1.0, "validation_accuracy": -1.0}


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
        if self.monitor not in _SIGNS:
            raise unknown_name("monitor", self.monitor, _SIGNS)


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

    def consider(self, record: EpochRecord) -> bool:
        """Take note of an epoch and return whether training should stop."""
        value = _SIGNS[self.rule.monitor] * getattr(record, self.rule.monitor)
        if value < self.value - self.rule.minimum_change:
            self.value, self.epoch, self.waited = value, record.epoch, 0
            self.snapshot.take()
            return False
        self.waited += 1
        return self.waited >= self.rule.patience

    def restore(self) -> None:
        """Put the best weights back, if there was an epoch to choose from."""
        if self.epoch is not None:
            self.snapshot.restore()
