"""A step that a device may record, and that follows all the same what is changed between two calls."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Iterator
from operator import is_
from typing import Any

from gpunet.activations import Activation
from gpunet.backends import Backend


class RecordedStep:
    """Does a step, by a recording of it where the backend makes one (:meth:`gpunet.backends.Backend.capture`).

    A recording goes on with the numbers and arrays that it was made with, whatever becomes of the attributes that held
    them. So it counts only as long as every public attribute of the objects that the step reads is what it was; a
    class whose attributes are read anew at each step, or do not matter to it, names those in ``not_recorded``. Where
    one is another, the step runs operation by operation, and it is recorded when the next call finds all as it was
    left: there is one recording at a time, and none of a step that finds something else each time.

    Parameters
    ----------
    backend : Backend
    is_warm : bool
        Whether whatever it consists of has always run just so before a call: then it is recorded at once.
    may_record : bool
        False where it does more than operations of the backend: it runs operation by operation.
    """

    def __init__(self, backend: Backend, *, is_warm: bool = False, may_record: bool = True) -> None:
        self._backend = backend
        self._is_warm = is_warm
        self._replay: Callable[[], None] | None = None
        self._is_recorded = may_record  # until the backend has said that it records no such step
        self._attributes: Attributes | None = None

    def __call__(self, step: Callable[[], None], objects: Callable[[], Iterable[object]]) -> None:
        """Do ``step``.

        Parameters
        ----------
        step : callable
            The same at every call: all that differs is in the attributes of the objects, or in arrays.
        objects : callable
            Returns what the step reads attributes of; they are kept.
        """
        if not self._is_recorded:
            step()
        elif self.holds:
            assert self._replay is not None
            self._replay()
        elif self._attributes is not None and self._replay is None and self._attributes.are_as_they_were():
            self._record(step)
        else:
            self._replay = None  # first: its memory is free then
            if not self._is_warm:
                step()
            self._attributes = Attributes(objects())
            if self._is_warm:
                self._record(step)

    @property
    def holds(self) -> bool:
        """Whether there is a recording, and all is as it was when it was made."""
        return self._replay is not None and self._attributes is not None and self._attributes.are_as_they_were()

    def _record(self, step: Callable[[], None]) -> None:
        replay = self._backend.capture(step)
        if replay is step:  # which is not to be kept: it belongs to whoever has this object
            self._is_recorded, self._attributes = False, None
        else:
            self._replay = replay
        replay()


class Attributes:
    """The public attributes of objects, as they are when this is made.

    Parameters
    ----------
    objects : iterable of object
        They are kept.
    """

    def __init__(self, objects: Iterable[object]) -> None:
        # Three lists side by side: whether all is as it was is asked at every step.
        self._objects: list[object] = []
        self._names: list[str] = []
        for one in objects:
            for name in _attributes(one):
                self._objects.append(one)
                self._names.append(name)
        self._values = list(map(getattr, self._objects, self._names))

    def are_as_they_were(self) -> bool:
        """Say whether each is the same object, or an equal number or text."""
        try:
            if all(map(is_, map(getattr, self._objects, self._names), self._values)):
                return True
            found = list(map(getattr, self._objects, self._names))
        except AttributeError:
            return False
        if not all(map(_is_same, found, self._values)):
            return False
        self._values = found
        return True


def with_activations(parts: Iterable[object]) -> Iterator[object]:
    """Yield layers and losses, and the activations that they have."""
    for part in parts:
        yield part
        yield from (value for value in vars(part).values() if isinstance(value, Activation))


def _is_same(one: object, other: object) -> bool:
    """Say whether two values are one object, or equal numbers or texts."""
    return one is other or (isinstance(one, (int, float, str)) and type(one) is type(other) and one == other)


def _attributes(one: object) -> list[str]:
    """Return the names of an object's public attributes that a recording depends on.

    Those of its class are among them: an object may get a value of its own.
    """
    kind: Any = type(one)  # which mypy does not take for hashable
    names = dict.fromkeys([*_attributes_of_class(kind), *vars(one)])
    omitted = getattr(one, "not_recorded", ())
    return [name for name in names if name[0] != "_" and name not in omitted]


@functools.lru_cache(maxsize=256)
def _attributes_of_class(kind: type) -> tuple[str, ...]:
    """Return the names of what a class has besides methods and properties."""
    members = {name: value for base in reversed(kind.__mro__) for name, value in vars(base).items()}
    computed = (types.FunctionType, property, classmethod, staticmethod)
    return tuple(name for name, value in members.items() if not isinstance(value, computed))
