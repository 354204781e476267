"""Standard output and error in every state in which a shell may hand them over."""

from __future__ import annotations

import os
import re
import sys
from typing import TextIO

_COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def open_missing() -> None:
    """Let what is written to a stream that the shell has closed (``>&-``) go nowhere.

    Python has None in its place, and the next file that is opened would get its number.
    """
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()


def escape_what_the_terminal_lacks() -> None:
    """Print characters that the encoding of standard output lacks, in a class name or a path, as escapes."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    r"""Return one line that a terminal only shows, with escapes for what else it would do (``\x1b``, ``\n``).

    Names of classes, columns and files come from elsewhere, and may hold commands to the terminal, line breaks, and
    characters that turn the direction of what follows.
    """
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def complain(message: str) -> None:
    """Print a message as one line, whatever it holds, where standard error takes it."""
    try:
        print("gpunet:", printable(" ".join(message.split())), file=sys.stderr, flush=True)
    except OSError:  # a full disk, or a reader that has gone
        abandon_output()


def abandon_output() -> None:
    """Keep the interpreter from trying to flush standard output and error again when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _nowhere() -> TextIO:
    # closefd: it lives as long as the process, and an open file would be warned of at the end.
    return open(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8", closefd=False)
