"""What is said beside the results, on standard error, and only where that is a terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from gpunet.backends.compilation import LOGGER
from gpunet.cli.streams import printable

_COUNT_BAR = 30


def is_watched(quiet: bool) -> bool:
    """Whether someone looks on, and wants to: only then does standard error get more than what went wrong."""
    return not quiet and sys.stderr.isatty()


def note(message: str) -> None:
    """Print a line beside the progress bar."""
    print(printable(message), file=sys.stderr, flush=True)


class _Noting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


@contextmanager
def telling(quiet: bool = False) -> Iterator[None]:
    """Print, where someone looks on, that kernels are being compiled."""
    if not is_watched(quiet):
        yield
        return
    handler, level = _Noting(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)


@contextmanager
def counting(total: int, quiet: bool = False) -> Iterator[Callable[[int, str], None]]:
    """Yield what shows how many pieces of work are done and which run, where someone looks on; gone at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    bar = Progress(
        TextColumn("{task.completed}/{task.total}"),
        BarColumn(_COUNT_BAR),
        TimeElapsedColumn(),
        TextColumn("{task.fields[running]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=Console(file=sys.stderr),
        transient=True,
    )
    task = bar.add_task("", total=total, running="")
    with bar if is_watched(quiet) else nullcontext():
        yield lambda done, running: bar.update(task, completed=done, running=running)
