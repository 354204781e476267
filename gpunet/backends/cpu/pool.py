"""The process's pool of threads: made at the first work, shared by all networks, made anew in a forked child."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import sys
import threading
import time
from typing import Any

import numpy as np

from gpunet.backends.arrays import Array
from gpunet.backends.cpu import worker
from gpunet.backends.cpu.blas import Blas
from gpunet.environment import usable_cores

# How long a worker waits awake for the next phase: longer than the Python between two operations of a step.
_AWAKE_SECONDS = 100e-6
_CALL = ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * 2)
_RUN = ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * 6)


class Pool:
    """Threads that do the stripes of phases; see :mod:`gpunet.backends.cpu.worker`.

    Parameters
    ----------
    threads : int
        How many work, the caller's included.
    blas : Blas or None
    """

    def __init__(self, threads: int, blas: Blas | None) -> None:
        self.threads = threads
        self._blas = blas
        self._lock = threading.Lock()
        self._workers: list[threading.Thread] = []
        words = worker.FIRST_WORKER + worker.WORDS_PER_WORKER * threads + 8
        memory = np.zeros(words, np.int64)
        self._control = memory[(-memory.ctypes.data % 64) // 8 :]
        self._run = _RUN(worker.run_program.address)
        self._work = _CALL(worker.work.address)
        if threads > 1:
            self._start()

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
                target=self._work, args=(self._control.ctypes.data, index), name=f"gpunet-{index}", daemon=True
            )
            thread.start()
            self._workers.append(thread)

    def run(self, program: Array, threads: int | None = None) -> None:
        """Do a program; where another thread of Python has the pool, in the calling thread alone.

        Parameters
        ----------
        program : ndarray of int64, (phases, 3)
            Kernel, arguments, stripes.
        """
        get_threads, set_threads = (0, 0) if self._blas is None else (self._blas.get_threads, self._blas.set_threads)
        threads = self.threads if threads is None else min(threads, self.threads)
        has_pool = threads > 1 and self._lock.acquire(blocking=False)
        try:
            control = self._control.ctypes.data if has_pool else 0
            self._run(control, program.ctypes.data, len(program), threads, get_threads, set_threads)
        finally:
            if has_pool:
                self._lock.release()

    def stop(self) -> None:
        """End the threads; what comes later runs in its caller's."""
        with self._lock:
            _CALL(worker.stop.address)(self._control.ctypes.data, len(self._workers))
            for thread in self._workers:
                thread.join()
            self.threads, self._workers = 1, []


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


_pool: Pool | None = None
_making = threading.Lock()


def shared_pool() -> Pool:
    """Return this process's pool."""
    global _pool
    with _making:
        if _pool is None:
            from gpunet.backends.cpu.blas import find_blas

            _pool = Pool(usable_cores(), find_blas())
        return _pool


def _forget() -> None:
    """Make the pool anew in a child, which has none of its parent's threads, at its first work."""
    global _pool, _making
    _pool, _making = None, threading.Lock()


@atexit.register
def _end() -> None:
    if _pool is not None:
        _pool.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
