"""Watching the epochs of an estimator: when to stop, how the learning rate changes, and what is printed."""

from __future__ import annotations

import math

from sklearn.exceptions import ConvergenceWarning as SklearnConvergenceWarning

from gpunet.errors import ConvergenceWarning
from gpunet.optimizers import Optimizer
from gpunet.training import Callback, EpochRecord, Run


class NotConvergedWarning(ConvergenceWarning, SklearnConvergenceWarning):  # type: ignore[misc]
    """``max_iter`` epochs were over before the loss had stopped falling; scikit-learn's warning, and gpunet's."""


# What scikit-learn divides the learning rate by, and below which it ends training instead.
_DIVISOR, _SMALLEST_RATE = 5.0, 1e-6


class Plateau(Callback):
    """Acts when the cost has not improved by more than ``tolerance`` for more than ``patience`` epochs.

    Parameters
    ----------
    tolerance : float
    patience : int
    monitor : str or None
        ``"validation_loss"`` or ``"validation_accuracy"``, to look at that instead of the cost.
    divided : Optimizer or None
        Whose learning rate is divided by 5, as long as it is above 1e-6; otherwise, training ends.

    Attributes
    ----------
    is_over : bool
    """

    def __init__(
        self, tolerance: float, patience: int, monitor: str | None = None, divided: Optimizer | None = None
    ) -> None:
        self._monitor = monitor
        self._divided = divided
        self._tolerance = tolerance
        self._patience = patience
        self._best = math.inf
        self._waited = 0

    @property
    def is_over(self) -> bool:
        """Whether it has ended training."""
        return self._waited > self._patience

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        value = record.loss + record.penalty
        if self._monitor is not None:
            value = getattr(record, self._monitor) * (-1 if self._monitor == "validation_accuracy" else 1)
        self._waited = self._waited + 1 if value > self._best - self._tolerance else 0
        self._best = min(self._best, value)
        if self.is_over and self._divided is not None and self._divided.learning_rate > _SMALLEST_RATE:
            self._divided.learning_rate /= _DIVISOR
            self._waited = 0
        run.stop = run.stop or self.is_over


class InverseScaling(Callback):
    """Makes the learning rate ``initial / (rows + 1)^power`` after each epoch, with all rows that were gone over.

    Parameters
    ----------
    optimizer : Optimizer
    initial, power : float
    done : int
        Rows before this run.
    rows : int
        Rows of an epoch.
    """

    def __init__(self, optimizer: Optimizer, initial: float, power: float, done: int, rows: int) -> None:
        self._optimizer = optimizer
        self._initial = initial
        self._power = power
        self._done = done
        self._rows = rows

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        self._done += self._rows
        self._optimizer.learning_rate = self._initial * (self._done + 1.0) ** -self._power


class Printer(Callback):
    """Prints each epoch, as scikit-learn's ``verbose`` does.

    Parameters
    ----------
    done : int
        Epochs before this run.
    """

    def __init__(self, done: int) -> None:
        self._done = done

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        line = f"Iteration {record.epoch + self._done}, loss = {record.loss + record.penalty:.8f}"
        if record.validation_accuracy is not None:
            line += f", validation score = {record.validation_accuracy:.6f}"
        elif record.validation_loss is not None:
            line += f", validation loss = {record.validation_loss:.6f}"
        print(line)
