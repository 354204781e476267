"""What users are told once in a process: that something runs otherwise than it could, and why."""

from __future__ import annotations

import logging

_said: set[str] = set()


def say_once(what: str, why: object) -> None:
    """Log a warning, unless there has been one of ``what`` before.

    Parameters
    ----------
    what : str
    why : object
        The reason found the first time, often an error.
    """
    if what not in _said:
        _said.add(what)
        logging.getLogger(__name__).warning("%s: %s", what, why)
