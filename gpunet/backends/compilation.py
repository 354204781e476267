"""Says that kernels for the CPU are being compiled, which takes seconds where they are not on disk yet."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LOGGER = logging.getLogger(__name__)
_said: list[str] = []


@contextmanager
def telling_of_compilation() -> Iterator[None]:
    """Log one line, at level INFO, when Numba first compiles something in such a context instead of loading it."""
    from numba.core import event

    class Listener(event.Listener):  # type: ignore[misc]
        def on_start(self, event: Any) -> None:
            if not _said:
                _said.append("compiling kernels for this processor, once: they are kept on disk")
                LOGGER.info(_said[0])

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:run_pass", Listener()):
        yield
