"""Programs: phases with their arguments, laid out in memory as the threads of the pool read them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cpu.pool import Pool

Argument: TypeAlias = "Array | float | int | None"


def address(array: Array) -> int:
    """Return where an array's first element is."""
    return int(array.__array_interface__["data"][0])


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
    """

    kernel: Any
    arguments: Sequence[Argument]
    stripes: int


class Program:
    """Phases that are done one after the other. It keeps their arrays.

    Parameters
    ----------
    pool : Pool
    phases : sequence of Phase
    """

    def __init__(self, pool: Pool, phases: Sequence[Phase]) -> None:
        self._pool = pool
        self._phases = phases
        words = [_word(argument) for phase in phases for argument in phase.arguments]
        self._words = np.array(words, np.int64)
        place = address(self._words)
        steps = []
        for phase in phases:
            steps.append((phase.kernel.address, place, phase.stripes))
            place += 8 * len(phase.arguments)
        self._steps = np.array(steps, np.int64)

    def __call__(self) -> None:
        self._pool.run(self._steps)


class Recording:
    """What a step does, in order: phases, and calls of Python for operations that have no kernel."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._calls: list[Callable[[], None]] = []
        self._phases: list[Phase] = []

    def add_phases(self, phases: Sequence[Phase]) -> None:
        """Add phases after what is there."""
        self._phases += phases

    def add_call(self, call: Callable[[], None]) -> None:
        """Add a call after what is there."""
        self._close()
        self._calls.append(call)

    def finish(self) -> Callable[[], None]:
        """Return a function that does all of it."""
        self._close()
        calls = tuple(self._calls)

        def replay() -> None:
            for call in calls:
                call()

        return replay

    def _close(self) -> None:
        if self._phases:
            self._calls.append(Program(self._pool, self._phases))
            self._phases = []


def _word(argument: Argument) -> int:
    if isinstance(argument, np.ndarray):
        return address(argument)
    if argument is None:
        return 0
    if isinstance(argument, (float, np.floating)):
        return int(struct.unpack("q", struct.pack("d", argument))[0])
    return int(argument)
