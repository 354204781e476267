"""What happened in each epoch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.errors import counted
from gpunet.files import write_text
from gpunet.plotting import label, look, panels, save_figure
from gpunet.validation import check_flag, check_integer, check_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of training.

    Attributes
    ----------
    epoch : int
        From 1.
    step : int
        Batches that the network was trained on since it was made.
    loss : float
        Mean of the data term over the epoch's batches, in training mode, weighted like the loss.
    penalty : float
        lambda sum ||W_i||^2 after the epoch; the cost J of the lecture is loss + penalty.
    learning_rate : float
        Of the epoch's last update.
    samples_per_second : float
        Training examples over training time; validation is not counted.
    seconds : float
        Duration of the epoch, validation included.
    validation_loss, validation_accuracy : float or None
        After the epoch, in inference mode; None without validation data (accuracy: without labels).
    """

    epoch: int
    step: int
    loss: float
    penalty: float
    learning_rate: float
    samples_per_second: float
    seconds: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


@dataclass(repr=False)
class History:
    """The records of a run, oldest first.

    ``history["loss"]`` is the list of one quantity over the epochs; iterating gives the records.

    Attributes
    ----------
    records : list of EpochRecord
    best_epoch : int or None
        The epoch whose weights early stopping restored.
    stopped_early : bool
    """

    records: list[EpochRecord] = field(default_factory=list)
    best_epoch: int | None = None
    stopped_early: bool = False

    def __getitem__(self, quantity: str) -> list[Any]:
        if quantity not in EpochRecord.__dataclass_fields__:
            raise KeyError(quantity)
        return [getattr(record, quantity) for record in self.records]

    def __iter__(self) -> Iterator[EpochRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        if not self.records:
            return "History(no epochs)"
        last = self.records[-1]
        shown = {"loss": last.loss, "validation_loss": last.validation_loss}
        shown["validation_accuracy"] = last.validation_accuracy
        numbers = ", ".join(f"{name}={value:.4g}" for name, value in shown.items() if value is not None)
        best = "" if self.best_epoch is None else f", best_epoch={self.best_epoch}"
        return f"History({counted(len(self), 'epoch')}, {numbers}{best})"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; a validation loss that is not finite, which JSON lacks, becomes null."""
        return {
            "epochs": [{name: _or_null(value) for name, value in asdict(record).items()} for record in self.records],
            "best_epoch": self.best_epoch,
            "stopped_early": self.stopped_early,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> History:
        """Return the history that :meth:`to_dict` described.

        Raises
        ------
        KeyError, TypeError, ValueError
            It did not describe this.
        """
        records = [_record(place, record) for place, record in enumerate(content["epochs"], start=1)]
        best_epoch = content["best_epoch"]
        if best_epoch is not None:
            check_integer("best_epoch", best_epoch, 1)
        return cls(records, best_epoch, check_flag("stopped_early", content["stopped_early"]))

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw loss and validation accuracy over the epochs; the ending (.png, .svg, .pdf) says the format.

        Raises
        ------
        MissingDependencyError
            The package matplotlib is not installed.
        InvalidValueError
            It does not know the ending.
        OSError
            The file cannot be written; an older one is still there then.
        """
        return save_figure(self.figure()[0], path)

    def figure(self, beside: int = 0) -> tuple[Figure, list[Any]]:
        """Return a figure of loss and, where there is one, accuracy over the epochs, and axes for more beside them.

        Parameters
        ----------
        beside : int
            How many axes.

        Raises
        ------
        MissingDependencyError
            The package matplotlib is not installed.
        """
        curves: list[tuple[tuple[str, ...], str]] = [(("loss", "validation_loss"), "loss")]
        if any(accuracy is not None for accuracy in self["validation_accuracy"]):
            curves.append((("validation_accuracy",), "accuracy"))
        figure, (axes,) = panels(1, len(curves) + beside, title="")
        for place, (quantities, name) in enumerate(curves):
            for number, quantity in enumerate(quantities):
                values = [float("nan") if value is None else value for value in self[quantity]]
                if not np.isnan(values).all() or number == 0:
                    axes[place].plot(self["epoch"], values, label=quantity.replace("_", " "), **look(number, None))
            label(axes[place], x="epoch", y=name)
            axes[place].xaxis.get_major_locator().set_params(integer=True)
            axes[place].legend(fontsize=8)
        return figure, list(axes[len(curves) :])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write :meth:`to_dict` as JSON, whole or not at all; missing folders are created.

        Raises
        ------
        InvalidTypeError, InvalidValueError
            It is no path.
        OSError
        """
        return write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")


def format_score(value: float | None) -> str:
    """Return four decimals of a number of ordinary size, four digits of a huge one."""
    if value is None:
        return "undefined"
    return f"{value:.4f}" if abs(value) < 10_000 else f"{value:.3e}"


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _record(epoch: int, content: dict[str, Any]) -> EpochRecord:
    """Return the record of an epoch that :meth:`History.to_dict` described; null stands for what is not finite."""
    record = EpochRecord(**content)
    check_integer("epoch", record.epoch, epoch, epoch)
    check_integer("step", record.step, 0)
    for name, value in content.items():
        if value is not None:
            check_number(name, value, minimum=-math.inf)
    return record
