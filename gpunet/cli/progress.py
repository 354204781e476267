"""The progress bar, on standard error, and only where that is a terminal."""

from __future__ import annotations

import sys
import time

from gpunet.training import Callback, EpochRecord, Run

# Faster than an eye and slower than a step of a small network.
_SECONDS_BETWEEN_UPDATES = 0.1


def is_watched(quiet: bool) -> bool:
    """Whether someone looks on, and wants to: only then is there anything on standard error but errors."""
    return not quiet and sys.stderr.isatty()


def note(message: str) -> None:
    """Print a line beside the progress bar."""
    print(message, file=sys.stderr, flush=True)


class ProgressBar(Callback):
    """Epoch, loss, validation accuracy and samples per second while a network trains."""

    def on_fit_start(self, run: Run) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("{task.fields[result]}"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
        )
        self._task = self._bar.add_task(
            "",
            total=run.epochs * run.steps_per_epoch,
            completed=len(run.history) * run.steps_per_epoch,
            epoch=len(run.history),
            epochs=run.epochs,
            result="",
        )
        self._updated = 0.0
        self._bar.start()

    def on_step_end(self, run: Run) -> None:
        now = time.perf_counter()
        if now - self._updated < _SECONDS_BETWEEN_UPDATES:
            return
        self._updated = now
        done = len(run.history) * run.steps_per_epoch + run.step_in_epoch
        self._bar.update(self._task, completed=done, epoch=run.epoch)

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        parts = [f"loss {record.loss:.4f}"]
        if record.validation_accuracy is not None:
            parts.append(f"validation accuracy {record.validation_accuracy:.4f}")
        elif record.validation_loss is not None:
            parts.append(f"validation loss {record.validation_loss:.4f}")
        parts.append(f"{record.samples_per_second:,.0f} samples/s")
        done = len(run.history) * run.steps_per_epoch
        self._bar.update(self._task, completed=done, epoch=record.epoch, result="  ".join(parts))

    def on_fit_end(self, run: Run) -> None:
        self._bar.stop()
