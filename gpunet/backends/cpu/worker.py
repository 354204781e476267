"""What the threads of the pool do, compiled: they take stripes of work until there are none, rest, and sleep.

Work is a program of phases; a phase is a kernel, the address of its arguments, and a number of stripes. Who calls
:func:`run_program` works too. A stripe belongs to whoever takes it first, so that a thread that the system has
suspended takes less, and the caller never waits for more than the stripes that are under way. Which thread does a
stripe changes no bit of its result.

One word says what there is to do: which phase (its number modulo 2^23), and which of its stripes are not taken, from
one to before another. To take one is to replace the word, which fails where anything about it has changed: a thread
that comes late can never do a stripe of another phase than the one whose arguments it reads. The caller takes the first
that is left and every second thread the last, so that in phases that are cut alike each finds in its core's cache what
it wrote there before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, int64, njit, void

from gpunet.backends.cpu.machine_code import (
    add,
    array_at,
    call_exchange,
    call_get,
    call_lock,
    call_stripe,
    call_unlock,
    exchange,
    flush_denormals,
    load,
    pause,
    replace,
    store,
    treat_denormals,
)

# Words of the control block; those that several threads write have a cache line of their own.
WORK, DONE, KERNEL, ARGUMENTS, STOP, SPINS, THREADS = 0, 16, 32, 33, 34, 35, 36
ACQUIRE, RELEASE, YIELD, SET_LOCAL_THREADS = 37, 38, 39, 40  # addresses of C functions
FIRST_WORKER, WORDS_PER_WORKER = 48, 16  # asleep, and the address of the lock that it sleeps on

_FIELD = 20
_MASK = (1 << _FIELD) - 1
MOST_STRIPES = _MASK
_PHASES = (1 << 23) - 1
# After so many pauses without the last stripe, whoever waits for it lets other threads have the core.
_PATIENCE = 2000


@njit(inline="always")
def _word(control: Any, index: Any) -> Any:
    return control + 8 * index


@njit(inline="always")
def _has_stripes(work: Any) -> Any:
    return (work & _MASK) < ((work >> _FIELD) & _MASK)


@njit(inline="always")
def _take(control: Any, is_last: Any) -> Any:
    """Return the number of a stripe to do, the first or last that is left, or -1."""
    while True:
        work = load(_word(control, WORK))
        if not _has_stripes(work):
            return -1
        if is_last:
            if replace(_word(control, WORK), work, work - (1 << _FIELD)):
                return ((work >> _FIELD) & _MASK) - 1
        elif replace(_word(control, WORK), work, work + 1):
            return work & _MASK


@njit(inline="always")
def _do_stripes(control: Any, is_last: Any) -> Any:
    """Do stripes, always the first or last that is left, until there are none; return how many."""
    count = 0
    while True:
        stripe = _take(control, is_last)
        if stripe < 0:
            return count
        call_stripe(load(_word(control, KERNEL)), (load(_word(control, ARGUMENTS)), stripe))
        add(_word(control, DONE), 1)
        count += 1


@cfunc(void(int64, int64), cache=True)
def work(control: Any, index: Any) -> Any:
    """Be worker ``index`` of the pool until it is stopped."""
    asleep = control + 8 * (FIRST_WORKER + WORDS_PER_WORKER * index)
    set_threads = load(_word(control, SET_LOCAL_THREADS))
    if set_threads != 0:
        call_exchange(set_threads, (1,))
    flush_denormals()
    idle = 0
    while load(_word(control, STOP)) == 0:
        if index + 1 < load(_word(control, THREADS)) and _do_stripes(control, index % 2 == 0) > 0:
            idle = 0
            continue
        idle += 1
        if idle < load(_word(control, SPINS)):
            pause()
            continue
        store(asleep, 1)
        has_work = _has_stripes(load(_word(control, WORK))) and index + 1 < load(_word(control, THREADS))
        if (not has_work and load(_word(control, STOP)) == 0) or exchange(asleep, 0) == 0:
            call_lock(load(_word(control, ACQUIRE)), (load(asleep + 8), 1))
        idle = 0


@njit(inline="always")
def wake(control: Any, index: Any) -> Any:
    """Wake worker ``index`` if it sleeps."""
    asleep = control + 8 * (FIRST_WORKER + WORDS_PER_WORKER * index)
    if load(asleep) != 0 and exchange(asleep, 0) == 1:
        call_unlock(load(_word(control, RELEASE)), (load(asleep + 8),))


@cfunc(void(int64, int64), cache=True)
def stop(control: Any, workers: Any) -> Any:
    """Make every worker return."""
    store(_word(control, STOP), 1)
    for index in range(workers):
        wake(control, index)


@cfunc(void(int64, int64, int64, int64), cache=True)
def run_program(control: Any, program: Any, phases: Any, threads: Any) -> Any:
    """Do one phase after the other, each whole before the next; denormal numbers are 0 meanwhile.

    Weights of inputs that are always zero shrink by L2 until they are denormal, moments of units that are never active
    by their beta; with such operands a product takes many times as long.

    Parameters
    ----------
    control : int
        Address of the pool's control block; 0 does all of it in the calling thread.
    program : int
        Address of (phases, 3) words: kernel, arguments, stripes.
    phases : int
    threads : int
        How many may work, the caller included.
    """
    steps = array_at(program, (phases, 3), np.int64)
    denormals = flush_denormals()
    if control != 0:
        store(_word(control, THREADS), threads)
    for number in range(phases):
        kernel, arguments, stripes = steps[number, 0], steps[number, 1], steps[number, 2]
        if control == 0 or stripes == 1 or threads == 1:
            for stripe in range(stripes):
                call_stripe(kernel, (arguments, stripe))
            continue
        store(_word(control, KERNEL), kernel)
        store(_word(control, ARGUMENTS), arguments)
        store(_word(control, DONE), 0)
        phase = ((load(_word(control, WORK)) >> (2 * _FIELD)) + 1) & _PHASES
        store(_word(control, WORK), (phase << (2 * _FIELD)) | (stripes << _FIELD))
        for index in range(min(threads, stripes) - 1):
            wake(control, index)
        _do_stripes(control, False)
        waited = 0
        while load(_word(control, DONE)) < stripes:
            pause()
            waited += 1
            if waited >= _PATIENCE:
                waited = 0
                call_get(load(_word(control, YIELD)), ())
    treat_denormals(denormals)


@cfunc(void(int64, int64), cache=True)
def rest(count: Any, _: Any) -> Any:
    """Pause so many times, for :class:`gpunet.backends.cpu.pool.Pool` to see how long one takes."""
    for _number in range(count):
        pause()
