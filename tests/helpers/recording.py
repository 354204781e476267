"""A backend that records steps as a CUDA device does, at the speed of NumPy."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any

from gpunet.activations import Activation
from gpunet.backends import Backend, NumpyBackend

Operation = tuple[Callable[..., None], tuple[Any, ...], dict[str, Any]]


class _Replay:
    def __init__(self, operations: list[Operation]) -> None:
        self.operations = operations

    def __call__(self) -> None:
        for operation, args, kwargs in self.operations:
            operation(*args, **kwargs)


def _frozen(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, Activation) else value


def _recordable(name: str) -> Any:
    def method(self: RecordingBackend, *args: Any, **kwargs: Any) -> None:
        operation = getattr(super(RecordingBackend, self), name)
        if self._operations is None:
            operation(*args, **kwargs)
        else:
            frozen = {key: _frozen(value) for key, value in kwargs.items()}
            self._operations.append((operation, tuple(map(_frozen, args)), frozen))

    return method


class RecordingBackend(NumpyBackend):
    """NumPy, whose recordings hold the operations of a step with the numbers and the arrays that they had.

    Attributes
    ----------
    recordings : int
        How many were made.
    kept : WeakSet
        Those that somebody can still replay.
    """

    not_recorded = frozenset({"recordings"})

    def __init__(self) -> None:
        super().__init__()
        self._operations: list[Operation] | None = None
        self.recordings = 0
        self.kept: weakref.WeakSet[_Replay] = weakref.WeakSet()

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        self._operations = operations = []
        try:
            step()
        finally:
            self._operations = None
        replay = _Replay(operations)
        self.recordings += 1
        self.kept.add(replay)
        return replay


_NOT_OPERATIONS = {
    "capture",
    "asarray",
    "empty",
    "zeros",
    "feed",
    "free_bytes",
    "is_compiled_for",
    "working",
    "to_numpy",
    "upload",
    "synchronize",
    "mark",
    "seconds_between",
    "beside",
    "join",
}
for _name, _member in vars(Backend).items():
    if _name[0] != "_" and callable(_member) and _name not in _NOT_OPERATIONS:
        setattr(RecordingBackend, _name, _recordable(_name))
