"""Looking on while a network trains."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpunet.network import Network
from gpunet.training.history import EpochRecord, History


@dataclass
class Run:
    """What callbacks see.

    Attributes
    ----------
    network : Network
    epochs : int
        Epochs that were asked for.
    steps_per_epoch : int or None
        None where ``batches=`` have no length.
    epoch : int
        The current one, from 1.
    step_in_epoch : int
        Steps done in the current epoch.
    history : History
        The finished epochs.
    stop : bool
        A callback sets it to end training after the current epoch.
    """

    network: Network
    epochs: int
    steps_per_epoch: int | None
    epoch: int = 0
    step_in_epoch: int = 0
    history: History = field(default_factory=History)
    stop: bool = False


class Callback:
    """Override what you need; every method does nothing.

    What a callback changes counts from the next step on, on every device: the optimiser's hyperparameters, learning
    rate, moments and :meth:`~gpunet.Optimizer.reset`; the network's parameters and step count; rate and seed of dropout
    and momentum of batch norm among ``run.network.layers``.

    Attributes
    ----------
    every_step : bool
        Whether :meth:`on_step_end`, where it is overridden, is to be called between any two steps: it keeps a device
        from doing several at once. False calls it now and then, for those that only look on.
    """

    every_step = True

    def on_fit_start(self, run: Run) -> None:
        """Training is about to start."""

    def on_step_end(self, run: Run) -> None:
        """A step is done, or on a device: has been submitted."""

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        """An epoch is done and ``record`` is its result."""

    def on_fit_end(self, run: Run) -> None:
        """Training has ended, also by an error."""
