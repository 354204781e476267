"""Ctrl-C, and the signals that ask a process to end: handled alike, at any moment, and without a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

# What a shell reports for a program that a signal ended is this and the signal's number.
EXIT_SIGNAL = 128
_SIGNALS = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
# Reminds of a KeyboardInterrupt that got lost. Windows has no such signal; there, Ctrl-C has to be pressed again.
_ALARM = getattr(signal, "SIGALRM", None)
_SECONDS_TO_INSIST = 0.2


@dataclass
class Interruption:
    """Which signal has come, if any.

    Attributes
    ----------
    number : int
        Ctrl-C's until another one comes.
    has_come : bool
    is_awaited : bool
        Whether what runs asks for a first Ctrl-C between its steps (:meth:`raise_if_come`), and is not to be stopped
        within one.
    """

    number: int = signal.SIGINT
    has_come: bool = False
    is_awaited: bool = False

    def raise_if_come(self) -> None:
        """Raise the KeyboardInterrupt that was waited with."""
        if self.has_come:
            raise KeyboardInterrupt


def end_quietly_while_importing() -> None:
    """Let the signals end this process at once, if it is the shell command: nothing is to be put away yet.

    Without effect in a program that uses the package.
    """
    name = (sys.argv or [""])[0]
    # Python has "-m" there as long as it imports the package of the module to run.
    is_module = name == "-m" and any(argument.endswith("gpunet") for argument in sys.orig_argv[1:])
    if is_module or Path(name).stem == "gpunet":
        for number in _unhandled(_SIGNALS):
            signal.signal(number, _end)


@contextlib.contextmanager
def interrupts() -> Iterator[Interruption]:
    """Let each of the signals raise KeyboardInterrupt in the block, once: what follows must not disturb the end.

    While Ctrl-C is awaited, the first is only noted.

    Where it gets lost, in a destructor or an import that takes it for something else, it is raised again. A second
    Ctrl-C ends the process at once. Signals that the parent process wants ignored, as ``nohup`` does, or that the
    program handles in its own way, are left alone.
    """
    interruption = Interruption()
    hook = sys.unraisablehook

    def interrupt(number: int, frame: FrameType | None) -> None:
        interruption.number, interruption.has_come = number, True
        for one in before:
            signal.signal(one, {signal.SIGINT: _end, _ALARM: insist}.get(one, _ignore))
        if not (interruption.is_awaited and number == signal.SIGINT):
            insist(number, frame)

    def insist(_: int, __: FrameType | None) -> None:
        if _ALARM in before:
            signal.setitimer(signal.ITIMER_REAL, _SECONDS_TO_INSIST)
        if not _is_being_handled():
            raise KeyboardInterrupt

    def tell(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            hook(lost)

    before = {number: signal.getsignal(number) for number in _unhandled([*_SIGNALS, _ALARM])}
    for number in before:
        signal.signal(number, interrupt)
    sys.unraisablehook = tell
    try:
        yield interruption
    finally:
        if _ALARM in before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
        # A KeyboardInterrupt in code that is text (dataclasses are made of such) lets Python end by SIGINT and with no
        # status of ours, however it was handled, until other such code has run.
        exec("")


def _is_being_handled() -> bool:
    """Return whether a ``finally`` or ``except`` for a KeyboardInterrupt runs."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _unhandled(numbers: Iterable[int | None]) -> list[int]:
    """Return the signals that there are on this system and that nobody else has asked for."""
    if threading.current_thread() is not threading.main_thread():  # Python lets no other one change them
        return []
    free = (signal.SIG_DFL, signal.default_int_handler, _end)
    return [one for one in numbers if one is not None and signal.getsignal(one) in free]


def _ignore(number: int, _: FrameType | None) -> None:
    """Do nothing. Of signals that came together, Python would complain about one with SIG_IGN."""


def _end(number: int, _: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"gpunet: interrupted\n")
    os._exit(EXIT_SIGNAL + number)
