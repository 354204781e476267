"""The process's pool of threads: started at the first work, shared by all networks, started anew in a forked child."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import sys
import threading
import time
import weakref
from collections.abc import Hashable
from typing import Any

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cpu import worker
from gpunet.backends.cpu.blas import Blas, find_blas, one_thread
from gpunet.backends.cpu.threads import ThreadChoice
from gpunet.environment import usable_cores

# How long a worker waits awake for the next phase: longer than the Python between two operations of a step.
_AWAKE_SECONDS = 300e-6
_MOST_CHOICES = 64
_LATELY_SECONDS = 0.1
_address_of: Any = ctypes.addressof
_buffer_of: Any = ctypes.c_char.from_buffer
_CALL = ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * 2)
_RUN = ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * 4)


def address(array: Array) -> int:
    """Return where an array's first element is."""
    try:
        return int(_address_of(_buffer_of(array)))  # in a quarter of the time
    except (TypeError, ValueError):  # it is read-only, not contiguous, or empty
        return int(array.__array_interface__["data"][0])


class Pool:
    """Threads that do the stripes of phases; see :mod:`gpunet.backends.cpu.worker`.

    They start with the first program that is for several, also in a forked child, which has none of its parent's.

    Parameters
    ----------
    threads : int
        How many there are, the caller's included.
    blas : Blas or None

    Attributes
    ----------
    chosen : int
        How many work; what the caller lets NumPy's BLAS library have is a limit at each call.
    times_refused : int
        How often a caller did a program with fewer threads than were chosen, because other threads of Python had some.
    """

    def __init__(self, threads: int, blas: Blas | None) -> None:
        self.threads = self.chosen = threads
        self.times_refused = 0
        self._blas = blas
        self._one_thread = one_thread(blas)
        self._run = _RUN(worker.run_program.address)
        self._work = _CALL(worker.work.address)
        self._choices: dict[Hashable, ThreadChoice] = {}
        self._last_calls: dict[int, float] = {}
        self._forget_threads()
        _pools.add(self)

    def _forget_threads(self) -> None:
        self._lock = threading.Lock()
        self._workers: list[threading.Thread] = []
        words = worker.FIRST_WORKER + worker.WORDS_PER_WORKER * self.threads + 8
        memory = np.zeros(words, np.int64)
        self._control = memory[(-address(memory) % 64) // 8 :]
        # Threads read and write the control block: it outlives them, whatever becomes of the pool.
        self._end_threads = weakref.finalize(self, _end_threads, self._control, self._workers)
        self._end_threads.atexit = False

    def _start(self) -> None:
        api = ctypes.pythonapi
        api.PyThread_allocate_lock.restype = ctypes.c_void_p
        self._control[worker.SPINS] = int(_AWAKE_SECONDS / _pause_seconds())
        self._control[worker.YIELD] = _yield_address()
        self._control[worker.ACQUIRE] = _address(api.PyThread_acquire_lock)
        self._control[worker.RELEASE] = _address(api.PyThread_release_lock)
        if self._blas is not None and self._blas.is_thread_local:
            self._control[worker.SET_LOCAL_THREADS] = self._blas.set_threads
        for index in range(self.threads - 1):
            lock = api.PyThread_allocate_lock()
            api.PyThread_acquire_lock(ctypes.c_void_p(lock), 1)
            self._control[worker.FIRST_WORKER + worker.WORDS_PER_WORKER * index + 1] = lock
            thread = threading.Thread(
                target=self._work, args=(address(self._control), index), name=f"gpunet-{index}", daemon=True
            )
            thread.start()
            self._workers.append(thread)

    def run(self, program: Array) -> None:
        """Do a program; where several threads of Python have some, each with its part of the pool, or alone.

        Parameters
        ----------
        program : ndarray of int64, (phases, 3)
            Kernel, arguments, stripes.
        """
        threads, own = min(self.chosen, self.threads), max(1, self.threads // self._callers())
        if threads > own:
            threads = own
            self.times_refused += 1
        limit = self._one_thread.limit
        if limit is not None:
            threads = min(threads, limit)
        has_pool = threads > 1 and self._lock.acquire(blocking=False)
        if threads > 1 and not has_pool:
            self.times_refused += 1
        try:
            if has_pool and not self._workers:
                self._start()
            control = address(self._control) if has_pool else 0
            with self._one_thread:
                self._run(control, address(program), len(program), threads)
        finally:
            if has_pool:
                self._lock.release()

    def _callers(self) -> int:
        """Return how many threads of Python, this one included, have called of late: they share the cores."""
        now = time.perf_counter()
        self._last_calls[threading.get_ident()] = now
        if len(self._last_calls) > 1:
            calls = list(self._last_calls.items())  # at once: others may add theirs
            self._last_calls = {caller: last for caller, last in calls if now - last <= _LATELY_SECONDS}
        return len(self._last_calls)

    def choice(self, work: Hashable) -> ThreadChoice:
        """Return what chooses the number of threads for some work: the same object for the same work, call by call.

        So a call of ``fit`` begins with the number that was best in the one before.
        """
        if work not in self._choices and len(self._choices) >= _MOST_CHOICES:
            self._choices.pop(next(iter(self._choices)))
        return self._choices.setdefault(work, ThreadChoice(self.threads))

    def stop(self) -> None:
        """End the threads; what comes later runs in its caller's."""
        with self._lock:
            self._end_threads()
            self.threads, self._workers = 1, []


def _end_threads(control: Array, workers: list[threading.Thread]) -> None:
    _CALL(worker.stop.address)(address(control), len(workers))
    for thread in workers:
        thread.join()


@functools.cache
def _pause_seconds() -> float:
    count = 2000
    started = time.perf_counter()
    _CALL(worker.rest.address)(count, 0)
    return max((time.perf_counter() - started) / count, 1e-10)


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _yield_address() -> int:
    c: Any = ctypes
    function = c.windll.kernel32.SwitchToThread if sys.platform == "win32" else ctypes.CDLL(None).sched_yield
    return _address(function)


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_shared: list[Pool] = []
_making = threading.Lock()


def shared_pool() -> Pool:
    """Return this process's pool: as many threads as it may use cores, and no more than ``OMP_NUM_THREADS`` says."""
    with _making:
        if not _shared:
            asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
            most = int(asked) if asked.isdigit() else 0
            _shared.append(Pool(min(usable_cores(), most or usable_cores()), find_blas()))
        return _shared[0]


def _forget_threads() -> None:
    global _making
    _making = threading.Lock()
    for pool in _pools:
        pool._end_threads.detach()
        pool._forget_threads()


@atexit.register
def _end() -> None:
    for pool in _pools:
        pool.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
