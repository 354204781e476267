"""Programs: phases with their arguments, laid out in memory as the threads of the pool read them."""

from __future__ import annotations

import bisect
import functools
import itertools
import struct
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.array_utils import byte_bounds

from gpunet.backends.arrays import Array
from gpunet.backends.cpu.kernels.chain import run_chain
from gpunet.backends.cpu.pool import Pool, address

# More than a deep network has operations.
_MOST_OPERATIONS = 512
Work: TypeAlias = tuple[tuple[int, ...], ...]
Argument: TypeAlias = "Array | float | int | None"


@dataclass(frozen=True)
class Phase:
    """A kernel, and how many stripes of it are to be done.

    Attributes
    ----------
    kernel : numba CFunc
        Takes the address of the arguments, and the number of a stripe.
    arguments : sequence of ndarray, int, float or None
        As words of 64 bits: arrays as addresses, None as 0.
    stripes : int
    rows : (int, int) or None
        How many rows the batch has and each stripe takes, the last one the rest, where a stripe touches no other rows
        of the arguments that have as many.
    """

    kernel: Any
    arguments: Sequence[Argument]
    stripes: int
    rows: tuple[int, int] | None = None

    @functools.cached_property
    def words(self) -> list[int]:
        """The arguments as kernels read them."""
        return [_word(argument) for argument in self.arguments]


def chained(phases: Sequence[Phase]) -> list[list[Phase]]:
    """Return the phases in chains: a stripe goes through all of a chain, its rows hot, and waits for no other.

    Phases are chained whose stripes are the same rows, if those are all that they share.
    """
    chains: list[list[Phase]] = []
    memory: _Memory | None = None  # of the last chain, once it matters
    for phase in phases:
        if chains and phase.rows is not None and phase.rows == chains[-1][-1].rows:
            if memory is None:
                memory = _Memory()
                memory.takes(chains[-1][0])
            if memory.takes(phase):
                chains[-1].append(phase)
                continue
        chains.append([phase])
        memory = None
    return chains


class _Memory:
    """The memory that the phases of a chain read and write."""

    def __init__(self) -> None:
        self._starts: list[int] = []  # ascending
        self._spans: dict[int, tuple[int, int]] = {}  # where each ends, and the bytes of its rows or 0
        self._is_closed = False

    def takes(self, phase: Phase) -> bool:
        """Add what a phase reads and writes, and say whether it shares but the same rows of the same arrays."""
        rows = 0 if phase.rows is None else phase.rows[0]
        own: dict[int, tuple[int, int]] = {}
        for array, start in zip(phase.arguments, phase.words, strict=True):
            if isinstance(array, np.ndarray) and array.size:
                size = array.nbytes
                span = start + size, size // rows if rows and array.shape[0] == rows else 0
                self._is_closed |= own.setdefault(start, span) != span
        self._is_closed |= any(own[one][0] > other for one, other in itertools.pairwise(sorted(own)))
        if self._is_closed or not all(itertools.starmap(self._is_free, own.items())):
            return False
        for start in own.keys() - self._spans.keys():
            bisect.insort(self._starts, start)
        self._spans |= own
        return True

    def _is_free(self, start: int, span: tuple[int, int]) -> bool:
        known = self._spans.get(start)
        if known is not None:
            return span == known and span[1] > 0
        place = bisect.bisect(self._starts, start)
        left, right = self._starts[place - 1 : place], self._starts[place : place + 1]
        return not (left and self._spans[left[0]][0] > start) and not (right and right[0] < span[0])


class Program:
    """Phases that are done one after the other. It keeps their arrays.

    Parameters
    ----------
    pool : Pool
    phases : sequence of Phase
    """

    def __init__(self, pool: Pool, phases: Sequence[Phase]) -> None:
        self._pool = pool
        self._phases: Sequence[Phase] = phases
        chains = chained(phases)
        words = [word for phase in phases for word in phase.words]
        # Of a chain of several: how many, and of each its kernel and arguments.
        self._words = np.array(words + [0] * sum(1 + 2 * len(chain) for chain in chains), np.int64)
        start = address(self._words)
        place, end = start, len(words)
        steps = []
        for chain in chains:
            calls = []
            for phase in chain:
                calls += [phase.kernel.address, place]
                place += 8 * len(phase.arguments)
            if len(chain) == 1:
                steps.append((*calls, chain[0].stripes))
                continue
            steps.append((run_chain.address, start + 8 * end, chain[0].stripes))
            self._words[end : end + 1 + len(calls)] = [len(chain), *calls]
            end += 1 + len(calls)
        self._steps = np.array(steps, np.int64)

    @property
    def work(self) -> Work:
        """Kernels, stripes and sizes: what is equal where programs do the same to other arrays."""
        return tuple(
            (phase.kernel.address, phase.stripes, *(one for one in phase.arguments if isinstance(one, int)))
            for phase in self._phases
        )

    def let_go(self, x: Array) -> None:
        """Let each call give another array, which takes the place of x: x is kept no longer."""
        arguments = itertools.chain.from_iterable(phase.arguments for phase in self._phases)
        self._given = [index for index, one in enumerate(arguments) if one is x]
        self._phases = [
            replace(phase, arguments=[None if one is x else one for one in phase.arguments]) for phase in self._phases
        ]

    def let_all_go(self) -> None:
        """Keep no array: whoever calls this has them."""
        self._phases = ()

    @property
    def arrays(self) -> list[Array]:
        """Those that it keeps."""
        arguments = itertools.chain.from_iterable(phase.arguments for phase in self._phases)
        return [one for one in arguments if isinstance(one, np.ndarray)]

    def __call__(self, x: Array | None = None) -> None:
        if x is not None:
            self._words[self._given] = address(x)
        self._pool.run(self._steps)


class NumpyCall:
    """A call of an operation that has no kernel.

    Parameters
    ----------
    function : callable
    args : tuple
    kwargs : dict
    """

    def __init__(self, function: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._function, self._args, self._kwargs = function, args, kwargs
        self._given: frozenset[int] = frozenset()

    def let_go(self, x: Array) -> None:
        """As :meth:`Program.let_go`."""
        self._given = frozenset(index for index, one in enumerate(self._args) if one is x)
        self._args = tuple(None if one is x else one for one in self._args)

    @property
    def arrays(self) -> list[Array]:
        """Those that it keeps."""
        return [one for one in (*self._args, *self._kwargs.values()) if isinstance(one, np.ndarray)]

    def __call__(self, x: Array | None = None) -> None:
        args = (x if index in self._given else one for index, one in enumerate(self._args))
        self._function(*args, **self._kwargs)


class Recording:
    """What a step does, in order: phases, and calls of Python for operations that have no kernel."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._calls: list[Program | NumpyCall] = []
        self._phases: list[Phase] = []

    def add_phases(self, phases: Sequence[Phase]) -> None:
        """Add phases after what is there."""
        self._phases += phases

    def add_call(self, call: NumpyCall) -> None:
        """Add a call after what is there."""
        self._close()
        self._calls.append(call)

    @property
    def calls(self) -> list[Program | NumpyCall]:
        """What does all of it, one after the other."""
        self._close()
        return self._calls

    def _close(self) -> None:
        if self._phases:
            self._calls.append(Program(self._pool, self._phases))
            self._phases = []


class Operations:
    """Keeps what operations consist of, for the next time that the same is to be done to the same arrays.

    To lay one out takes longer than small operations do. The arrays are not kept.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[list[Program], list[weakref.ref[Array]]]] = {}

    def __call__(
        self, name: str, args: tuple[object, ...], kwargs: dict[str, object], lay_out: Callable[[], Recording]
    ) -> Sequence[Program | NumpyCall]:
        """Return what an operation on arguments consists of. Its arrays have to live until it has been done."""
        given = (*args, *kwargs.values())
        key = (name, *kwargs, *[id(one) if type(one) is np.ndarray else one for one in given])
        try:
            known = self._known.get(key)
        except TypeError:  # there are arrays within an argument
            return lay_out().calls
        if known is not None:
            return known[0]
        calls = lay_out().calls
        programs = [call for call in calls if isinstance(call, Program)]
        if len(programs) == len(calls):
            self._keep(key, programs, given)
        return calls

    def _keep(self, key: Hashable, programs: list[Program], given: tuple[object, ...]) -> None:
        def forget(_: weakref.ref[Array]) -> None:  # before another array has the address, or is the object
            self._known.pop(key, None)

        arrays = itertools.chain(given, *(program.arrays for program in programs))
        refs = {id(one): weakref.ref(one, forget) for one in arrays if isinstance(one, np.ndarray)}
        for program in programs:
            program.let_all_go()
        if len(self._known) >= _MOST_OPERATIONS:
            self._known.pop(next(iter(self._known)), None)
        self._known[key] = programs, list(refs.values())


class Replay:
    """Does what was recorded, with a number of threads that is chosen by how long that takes.

    Parameters
    ----------
    pool : Pool
    calls : sequence of Program or NumpyCall
    x : ndarray or None
        Each call gives another array like it, which takes its place.
    """

    def __init__(self, pool: Pool, calls: Sequence[Program | NumpyCall], x: Array | None = None) -> None:
        self._pool, self._calls = pool, tuple(calls)
        self._choice = pool.choice(tuple(call.work for call in calls if isinstance(call, Program)))
        self._spans: list[tuple[int, int]] = []
        if x is not None:
            for call in calls:
                call.let_go(x)
            self._spans = _merged(array for call in calls for array in call.arrays)

    def accepts(self, x: Array) -> bool:
        """Say whether an array of the same shape and dtype may be given: a contiguous one apart from those it keeps."""
        start, stop = address(x), address(x) + x.nbytes
        place = bisect.bisect(self._spans, (stop,))
        return x.flags.c_contiguous and not (place and self._spans[place - 1][1] > start)

    def __call__(self, *given: Array) -> None:
        pool, choice = self._pool, self._choice
        pool.chosen, refused = choice.threads, pool.times_refused
        started = time.perf_counter()
        for call in self._calls:
            call(*given)
        if pool.times_refused == refused:  # with as many threads as were chosen
            choice.note(time.perf_counter() - started)


def _merged(arrays: Iterable[Array]) -> list[tuple[int, int]]:
    """Return from where to before where there is memory of arrays, in order, each byte once."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(map(byte_bounds, arrays)):
        if merged and start <= merged[-1][1]:
            start, stop = merged[-1][0], max(stop, merged.pop()[1])
        merged.append((start, stop))
    return merged


def _word(argument: Argument) -> int:
    if type(argument) is int:  # most of them
        return argument
    if isinstance(argument, np.ndarray):
        return address(argument)
    if argument is None:
        return 0
    if isinstance(argument, (float, np.floating)):
        return int(struct.unpack("q", struct.pack("d", argument))[0])
    return int(argument)
