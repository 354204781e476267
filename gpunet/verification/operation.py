"""One call of a backend's operation, and what the specification makes of the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial, update_wrapper
from typing import Any, Generic, ParamSpec

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.reference.training import Tally
from gpunet.verification.storage import Array, exact

Numbers = Mapping[str, Any]
# From the arguments in float64 and what the specification wrote, the allowed error of every output by its name.
Tolerance = Callable[[Numbers, Numbers], Mapping[str, Any]]

GUARD_BYTES = 256
P = ParamSpec("P")


@dataclass(frozen=True)
class Operation:
    """A call of one of the backends' operations.

    Attributes
    ----------
    method : str
        The backend's method; what it computes is said in :mod:`gpunet.backends.reference`.
    given : mapping of str to array
        The arrays that are read, on the host, by the names of the method's parameters, as they are stored.
    written : mapping of str to (shape, dtype)
        The arrays that are written. They hold NaN before.
    settings : mapping
        The other arguments.
    tolerance : callable
        See :data:`Tolerance`; an output that it does not name has to be equal.
    changed : tuple of str
        Those of ``given`` that are written too.
    shared : mapping of str to str
        Outputs that are written to the buffer of one of ``given``.
    counts : bool
        Whether it counts a step: those of the arrays that a tally has are one argument, ``tally``.
    """

    method: str
    given: Mapping[str, Array]
    written: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]
    settings: Numbers = field(default_factory=dict)
    tolerance: Tolerance = lambda arguments, expected: {}
    changed: tuple[str, ...] = ()
    shared: Mapping[str, str] = field(default_factory=dict)
    counts: bool = False

    @property
    def matrices(self) -> tuple[str, ...]:
        """The names of the arrays that may be moved to an unaligned address: all but single numbers."""
        sizes = {name: array.size for name, array in self.given.items()}
        sizes |= {name: math.prod(shape) for name, (shape, _) in self.written.items() if name not in self.shared}
        return tuple(name for name, size in sizes.items() if size > 2)

    def call(self, backend: Backend, arrays: Numbers) -> None:
        """Do the operation on arrays, by their names."""
        arguments = {**arrays, **self.settings}
        if self.counts:
            arguments["tally"] = Tally(**{name: arguments.pop(name) for name in Tally._fields if name in arguments})
        getattr(backend, self.method)(**arguments)

    def expected(self) -> tuple[Numbers, Numbers]:
        """Return the arguments in float64, and what the specification writes for them."""
        before = {name: exact(array) for name, array in self.given.items()}
        arrays = {name: array.copy() for name, array in before.items()}
        for name, (shape, dtype) in self.written.items():
            empty = exact(np.zeros(shape, dtype))
            arrays[name] = arrays[self.shared[name]] if name in self.shared else empty
        with np.errstate(all="ignore"):
            self.call(Backend(), arrays)
        outputs = {name: arrays[name] for name in (*self.written, *self.changed)}
        return {**before, **self.settings}, outputs


@dataclass(frozen=True)
class Later:
    """An operation whose numbers are made where it is done: those of thousands take longer to make than some to check.

    Attributes
    ----------
    method : str
        The operation's.
    make : callable
        Returns it.
    """

    method: str
    make: Callable[[], Operation]

    def then(self, change: Callable[..., Operation], *arguments: Any, **options: Any) -> Later:
        """Return what ``change`` makes of the operation, with these arguments behind it; the method stays."""
        return Later(self.method, lambda: change(self.make(), *arguments, **options))


class Maker(Generic[P]):
    """A function that makes operations of one method, now or later.

    Parameters
    ----------
    method : str
    make : callable
        Returns an operation.
    """

    def __init__(self, method: str, make: Callable[P, Operation]) -> None:
        self.method, self._make = method, make
        update_wrapper(self, make)

    def __call__(self, *arguments: P.args, **options: P.kwargs) -> Operation:
        return self._make(*arguments, **options)

    def later(self, *arguments: P.args, **options: P.kwargs) -> Later:
        """Return the operation of these arguments, not yet made."""
        return Later(self.method, partial(self._make, *arguments, **options))


def makes(method: str) -> Callable[[Callable[P, Operation]], Maker[P]]:
    """Decorate a function that makes operations of a method."""
    return partial(Maker, method)


@dataclass(frozen=True)
class Difference:
    """How far one output is from the specification.

    Attributes
    ----------
    name : str
        Of the array.
    error : float
        The largest, in units of what is allowed: above 1 is wrong.
    text : str
        Where it is, what was found and what was expected; empty where nothing is wrong.
    """

    name: str
    error: float
    text: str = ""


def difference(name: str, found: Array, expected: Array, allowed: Any = 0.0) -> Difference:
    """Compare an array with what it should be; NaN and infinities have to be the same ones."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return Difference(name, np.inf, f"{name}: has the shape {found.shape}. Expected {expected.shape}")
    if not found.size:
        return Difference(name, 0.0)
    with np.errstate(all="ignore"):
        distance = np.abs(found - expected)
        errors = np.where(distance == 0, 0.0, distance / np.broadcast_to(allowed, found.shape))
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    errors = np.where(same, 0.0, np.where(np.isnan(errors) | ~np.isfinite(expected), np.inf, errors))
    worst = np.unravel_index(int(errors.argmax()), errors.shape)
    error = float(errors[worst])
    if error <= 1:
        return Difference(name, error)
    count = int((errors > 1).sum())
    place = ", ".join(map(str, worst))
    limit = float(np.broadcast_to(allowed, found.shape)[worst])
    return Difference(
        name,
        error,
        f"{name}[{place}] is {found[worst]:.9g}. Expected {expected[worst]:.9g} within {limit:.3g}; "
        f"{count} of {found.size} elements are wrong",
    )


class _Buffer:
    """An array on a device between guard zones, and what was put there."""

    def __init__(self, backend: Backend, values: Array, offset: int) -> None:
        guard = GUARD_BYTES // values.itemsize
        self._backend = backend
        self._inside = slice(guard + offset, guard + offset + values.size)
        self._image = np.full((2 * guard + offset + values.size) * values.itemsize, 0xFF, np.uint8).view(values.dtype)
        self._image[self._inside] = values.reshape(-1)
        self._memory = backend.empty(self._image.size, values.dtype)
        self.reset()
        self.array = self._memory[self._inside].reshape(values.shape)

    def reset(self) -> None:
        self._backend.copy(self._image, self._memory)

    def values(self) -> Array:
        return np.array(self._backend.to_numpy(self._memory)[self._inside]).reshape(self.array.shape)

    def damage(self, name: str, is_written: bool) -> Iterator[Difference]:
        """Yield where a byte has changed that is none of an output."""
        found, before = (array.view(np.uint8) for array in (self._backend.to_numpy(self._memory), self._image))
        changed = np.flatnonzero(found != before)
        size = self._image.itemsize
        start, stop = self._inside.start * size, self._inside.stop * size
        outside = changed[(changed < start) | (changed >= stop)]
        if outside.size:
            yield Difference(name, np.inf, f"{name}: a write outside it, at byte {int(outside[0]) - start}")
        elif changed.size and not is_written:
            yield Difference(name, np.inf, f"{name}: is only to be read, and has changed")


class Placed:
    """An operation with its arrays on a backend's device.

    Parameters
    ----------
    backend : Backend
    operation : Operation
    offsets : mapping of str to int, optional
        Elements by which an array starts past an aligned address.
    """

    def __init__(self, backend: Backend, operation: Operation, offsets: Mapping[str, int] | None = None) -> None:
        offsets = offsets or {}
        buffers = {name: _Buffer(backend, array, offsets.get(name, 0)) for name, array in operation.given.items()}
        for name, (shape, dtype) in operation.written.items():
            if name in operation.shared:
                buffers[name] = buffers[operation.shared[name]]
            else:
                size = math.prod(shape) * np.dtype(dtype).itemsize
                poison = np.full(size, 0xFF, np.uint8).view(dtype).reshape(shape)
                buffers[name] = _Buffer(backend, poison, offsets.get(name, 0))
        self._backend, self._buffers, self._operation = backend, buffers, operation
        arrays = {name: buffer.array for name, buffer in buffers.items()}
        self.call: Callable[[], None] = partial(operation.call, backend, arrays)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the arrays that are written."""
        return (*self._operation.written, *self._operation.changed)

    def results(self) -> dict[str, Array]:
        """Fill every array as at the beginning, scratch memory with NaN, do the operation, and return what it wrote."""
        for buffer in self._buffers.values():
            buffer.reset()
        if isinstance(self._backend, CudaBackend):
            self._backend.launcher.poison_scratch()
        self.call()
        return {name: self._buffers[name].values() for name in self.outputs}

    def counters(self) -> Iterator[Difference]:
        """Yield that a kernel has left behind what the next one may wait for in vain."""
        if isinstance(self._backend, CudaBackend) and not self._backend.launcher.check_counters():
            yield Difference("counters", np.inf, "counters: blocks have left them other than 0")

    def damage(self) -> Iterator[Difference]:
        """Yield where something has changed that is not to be written."""
        writable = {*self.outputs, *self._operation.shared.values()}
        for name, buffer in self._buffers.items():
            yield from buffer.damage(name, name in writable)


def compare(
    backend: Backend, operation: Operation, offsets: Mapping[str, int] | None = None, repeats: int = 2
) -> Iterator[Difference]:
    """Run an operation on a backend and yield how far each output is from the specification.

    Parameters
    ----------
    backend : Backend
    operation : Operation
    offsets : mapping of str to int, optional
        See :class:`Placed`.
    repeats : int
        Calls in all; the later ones have to give the bits of the first, whatever it left behind.
    """
    placed = Placed(backend, operation, offsets)
    first = placed.results()
    if left := list(placed.counters()):
        yield from left
        return
    for _ in range(1, repeats):
        for name, again in placed.results().items():
            if again.tobytes() != first[name].tobytes():
                yield Difference(name, np.inf, f"{name}: the same call again gave other bits")
                return
    arguments, expected = operation.expected()
    allowed = operation.tolerance(arguments, expected)
    for name in placed.outputs:
        yield difference(name, exact(first[name]), expected[name], allowed.get(name, 0.0))
    yield from placed.damage()
