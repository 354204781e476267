"""Ctrl-C, and the signals that ask a process to end: handled alike, at any moment, and without a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

# What a shell reports for a program that a signal ended is this and the signal's number.
EXIT_SIGNAL = 128
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@dataclass
class Interruption:
    """Which signal has come, if any.

    Attributes
    ----------
    number : int
        Ctrl-C's until another one comes.
    """

    number: int = signal.SIGINT


def end_quietly_while_importing() -> None:
    """Let the signals end this process at once, if it is the shell command: nothing is to be put away yet.

    Without effect in a program that uses the package.
    """
    name = (sys.argv or [""])[0]
    # Python has "-m" there as long as it imports the package of the module to run.
    is_module = name == "-m" and any(argument.endswith("gpunet") for argument in sys.orig_argv[1:])
    if is_module or Path(name).stem == "gpunet":
        for number in _unhandled():
            signal.signal(number, _end)


@contextlib.contextmanager
def interrupts() -> Iterator[Interruption]:
    """Let each of the signals raise KeyboardInterrupt in the block, once: what follows must not disturb the end.

    A second Ctrl-C ends the process at once. Signals that the parent process wants ignored, as ``nohup`` does, or that
    the program handles in its own way, are left alone.
    """
    interruption = Interruption()

    def interrupt(number: int, _: FrameType | None) -> None:
        interruption.number = number
        for one in before:
            signal.signal(one, _end if one == signal.SIGINT else _ignore)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _unhandled()}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _unhandled() -> list[int]:
    """Return the signals that nobody else has asked for."""
    if threading.current_thread() is not threading.main_thread():  # Python lets no other one change them
        return []
    return [one for one in _SIGNALS if signal.getsignal(one) in (signal.SIG_DFL, signal.default_int_handler, _end)]


def _ignore(number: int, _: FrameType | None) -> None:
    """Do nothing. Of signals that came together, Python would complain about one with SIG_IGN."""


def _end(number: int, _: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"gpunet: interrupted\n")
    os._exit(EXIT_SIGNAL + number)
