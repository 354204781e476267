"""What goes to standard output: results, as tables or as one JSON object."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from gpunet.backends import Backend
from gpunet.cli.streams import printable
from gpunet.errors import optional_package


def require(package: str, *, extra: str, purpose: str) -> None:
    """Raise MissingDependencyError unless a package is there that results need; before the work rather than after."""
    with optional_package(package, extra=extra, purpose=purpose):
        import_module(package)


def require_rich() -> None:
    """Raise MissingDependencyError unless the package that prints tables and bars is there."""
    require("rich", extra="cli", purpose="the shell command")


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object on one line; NaN and infinity, which JSON lacks, become null."""
    print(json.dumps(_finite(content), allow_nan=False))


def print_lines(*lines: str) -> None:
    """Print lines of text; see :func:`gpunet.cli.streams.printable`."""
    for line in lines:
        print(printable(line))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print a table; the first column is aligned to the left, the others to the right.

    Nothing is shortened to fit a narrow terminal.
    """
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.measure import Measurement
    from rich.table import Table

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would end the process by itself, with another status than other output has

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, title=title and escape(printable(title)), title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(escape(printable(column)), justify="left" if place == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    # Names of classes are not to be read as codes of emoji either.
    console = Console(file=sys.stdout, highlight=False, emoji=False, width=10_000)
    needed = Measurement.get(console, console.options, table).maximum
    _Console(file=sys.stdout, highlight=False, emoji=False, width=needed).print(table)


def device_name(backend: Backend) -> str:
    """Return where a backend computes: ``"cpu"`` or ``"cuda"``; every backend but CUDA's runs on the CPU."""
    return backend.name if backend.name.startswith("cuda") else "cpu"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
