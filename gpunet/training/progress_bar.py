"""The progress bar of a training run: in a terminal, on standard error, and in a notebook, below the cell."""

from __future__ import annotations

import sys
import time

from gpunet.errors import optional_package
from gpunet.training.callbacks import Callback, Run
from gpunet.training.history import EpochRecord, format_score

# Faster than an eye and slower than a step of a small network.
_SECONDS_BETWEEN_UPDATES = 0.1
_SHORTEST_BAR, _LONGEST_BAR = 10, 40
# "0:00:00", and the spaces between the columns.
_TIME_WIDTH = 7
_GAPS = 3


class ProgressBar(Callback):
    """Epoch, loss, validation accuracy and samples per second while a network trains; gone when it has.

    In a notebook it needs the package ipywidgets (extra ``notebook``). Where standard error is neither a terminal nor
    that of a notebook, nothing is shown.

    Raises
    ------
    MissingDependencyError
        The package rich is not installed.
    """

    every_step = False

    def __init__(self) -> None:
        with optional_package("rich", extra="cli", purpose="a progress bar"):
            import rich.progress  # noqa: F401

    def on_fit_start(self, run: Run) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(file=sys.stderr)
        self._console.quiet = not (self._console.is_terminal or self._console.is_jupyter)
        self._bar_column = BarColumn(_LONGEST_BAR)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            self._bar_column,
            TextColumn("{task.fields[result]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(
            "",
            total=run.epochs * (run.steps_per_epoch or 1),
            completed=_done(run),
            epoch=len(run.history),
            epochs=run.epochs,
            result=self._fit_columns(run.epochs, []),
        )
        self._updated = 0.0
        self._bar.start()

    def on_step_end(self, run: Run) -> None:
        now = time.perf_counter()
        if now - self._updated < _SECONDS_BETWEEN_UPDATES:
            return
        self._updated = now
        inside = 0 if run.steps_per_epoch is None else run.step_in_epoch
        self._bar.update(self._task, completed=_done(run) + inside, epoch=run.epoch)

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        parts = [f"loss {format_score(record.loss)}"]
        if record.validation_accuracy is not None:
            parts.append(f"validation accuracy {record.validation_accuracy:.4f}")
        elif record.validation_loss is not None:
            parts.append(f"validation loss {format_score(record.validation_loss)}")
        parts.append(f"{record.samples_per_second:,.0f} samples/s")
        result = self._fit_columns(run.epochs, parts)
        self._bar.update(self._task, completed=_done(run), epoch=record.epoch, result=result)

    def on_fit_end(self, run: Run) -> None:
        self._bar.stop()

    def _fit_columns(self, epochs: int, parts: list[str]) -> str:
        """Set the length of the bar, and return what of an epoch's result fits beside it in the terminal's width."""
        width = self._console.width - len(f"epoch {epochs}/{epochs}") - _TIME_WIDTH - _GAPS
        result = _fitting(parts, width - _SHORTEST_BAR)
        self._bar_column.bar_width = max(_SHORTEST_BAR, min(_LONGEST_BAR, width - len(result)))
        return result


def _done(run: Run) -> int:
    """Return the steps of the finished epochs; where nobody knows how many an epoch has, the epochs."""
    return len(run.history) * (run.steps_per_epoch or 1)


def _fitting(parts: list[str], width: int) -> str:
    """Return the first parts, as many as fit into ``width`` characters."""
    text = ""
    for part in parts:
        longer = f"{text}  {part}" if text else part
        if len(longer) > width:
            break
        text = longer
    return text
