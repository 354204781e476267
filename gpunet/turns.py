"""Who may use a network now: threads take turns, and a second run of training is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from gpunet.errors import InUseError

_Owner = TypeVar("_Owner", bound=Any)
_P = ParamSpec("_P")
_R = TypeVar("_R")


class TurnLock:
    """A lock for ``with`` that its holder may take again; who waits gets it before who gives it back and asks again.

    ``threading.RLock`` alone would let training, which gives it back after a step and takes it at once for the next,
    keep everybody else waiting to its end. A copy, also a pickled one, is a new lock.
    """

    def __init__(self) -> None:
        self._queue = threading.Lock()
        self._lock = threading.RLock()
        self._holder: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        if self._holder == threading.get_ident():
            self._depth += 1
            return
        with self._queue:
            self._lock.acquire()
        self._holder, self._depth = threading.get_ident(), 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._holder = None
            self._lock.release()

    def __reduce__(self) -> tuple[type[TurnLock], tuple[()]]:
        return TurnLock, ()


class SoleUse:
    """For ``with``: refuses a second user, of whatever thread, where a :class:`TurnLock` would let it wait.

    Parameters
    ----------
    what : str
        What is used, for the error message. A copy is free.

    Raises
    ------
    InUseError
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise InUseError(
                f"{self._what}: another call of fit is using it. Expected one at a time: wait for that call, or use a "
                "copy (copy.deepcopy)."
            )

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[SoleUse], tuple[str]]:
        return SoleUse, (self._what,)


def in_turn(method: Callable[Concatenate[_Owner, _P], _R]) -> Callable[Concatenate[_Owner, _P], _R]:
    """Let a method run while its object's ``lock`` is held."""

    @wraps(method)
    def run(self: _Owner, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with self.lock:
            return method(self, *args, **kwargs)

    return cast("Callable[Concatenate[_Owner, _P], _R]", run)
