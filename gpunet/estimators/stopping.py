"""Watching the epochs of an estimator: when the loss no longer falls, and what is printed."""

from __future__ import annotations

import math

from sklearn.exceptions import ConvergenceWarning as SklearnConvergenceWarning

from gpunet.errors import ConvergenceWarning
from gpunet.training import Callback, EpochRecord, Run


class NotConvergedWarning(ConvergenceWarning, SklearnConvergenceWarning):  # type: ignore[misc]
    """``max_iter`` epochs were over before the loss had stopped falling; scikit-learn's warning, and gpunet's."""


class Plateau(Callback):
    """Ends training when the cost has not fallen by more than ``tolerance`` for more than ``patience`` epochs.

    Parameters
    ----------
    tolerance : float
    patience : int

    Attributes
    ----------
    is_over : bool
    """

    def __init__(self, tolerance: float, patience: int) -> None:
        self._tolerance = tolerance
        self._patience = patience
        self._best = math.inf
        self._waited = 0

    @property
    def is_over(self) -> bool:
        """Whether it has ended training."""
        return self._waited > self._patience

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        cost = record.loss + record.penalty
        self._waited = self._waited + 1 if cost > self._best - self._tolerance else 0
        self._best = min(self._best, cost)
        run.stop = run.stop or self.is_over


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
