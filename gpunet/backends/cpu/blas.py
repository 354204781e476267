"""A BLAS library's matrix products, as addresses that compiled code calls, each call with one thread."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import itertools
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from gpunet.backends.switches import MKL

# Prefixes and suffixes that builds of OpenBLAS give its symbols, and whether their integers have 64 bits.
_OPENBLAS_NAMES = [
    (prefix, suffix, suffix.startswith("64"))
    for prefix, suffix in itertools.product(("scipy_", ""), ("64_", "_64", ""))
    if (prefix, suffix) != ("", "_64")
]


@dataclass(frozen=True)
class Blas:
    """Where a library's functions are.

    Attributes
    ----------
    name, version : str
    sgemm, dgemm : int
        Addresses of ``cblas_sgemm`` and ``cblas_dgemm``.
    has_long_integers : bool
        Whether sizes are 64-bit integers.
    set_threads : int
        Address of what sets the number of threads.
    get_threads : int
        Address of what tells it; 0 where ``set_threads`` sets that of the calling thread alone and returns what it was
        before.
    get_limit : int
        Address of what tells how many threads the user lets NumPy's library have, or 0.
    """

    name: str
    version: str
    sgemm: int
    dgemm: int
    has_long_integers: bool
    set_threads: int
    get_threads: int
    get_limit: int

    @property
    def is_thread_local(self) -> bool:
        """Whether each thread has a number of threads of its own."""
        return self.get_threads == 0


@functools.cache
def find_blas() -> Blas | None:
    """Return MKL where it is installed and on, otherwise the OpenBLAS that NumPy has loaded; None without either."""
    return (_mkl() if MKL.is_on() else None) or _openblas()


def _address(library: ctypes.CDLL, name: str) -> int:
    function = getattr(library, name, None)
    return 0 if function is None else ctypes.cast(function, ctypes.c_void_p).value or 0


def _mkl() -> Blas | None:
    """Return MKL from the package ``mkl``, which puts it into the environment's folder of libraries."""
    folders = (Path(sys.prefix, "lib"), Path(sys.prefix, "Library", "bin"))
    for path in sorted(path for folder in folders for path in folder.glob("*mkl_rt*")):
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        names = ("cblas_sgemm", "cblas_dgemm", "MKL_Set_Num_Threads_Local")
        sgemm, dgemm, set_threads = (_address(library, name) for name in names)
        if sgemm and dgemm and set_threads:
            numpys = _openblas()
            limit = 0 if numpys is None else numpys.get_threads
            return Blas("mkl", _version("mkl"), sgemm, dgemm, False, set_threads, 0, limit)
    return None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _openblas() -> Blas | None:
    from threadpoolctl import threadpool_info

    found_libraries = [found for found in threadpool_info() if found["internal_api"] == "openblas"]
    for found in sorted(found_libraries, key=lambda found: "numpy" not in Path(found["filepath"]).parent.name):
        library = ctypes.CDLL(found["filepath"])  # loaded already: another handle of the same
        for prefix, suffix, has_long_integers in _OPENBLAS_NAMES:
            sgemm, dgemm = (_address(library, f"{prefix}cblas_{kind}gemm{suffix}") for kind in "sd")
            set_threads, get_threads = (
                _address(library, f"{prefix}openblas_{verb}_num_threads{suffix}") for verb in ("set", "get")
            )
            if sgemm and dgemm and set_threads and get_threads:
                addresses = (sgemm, dgemm, has_long_integers, set_threads, get_threads, get_threads)
                return Blas("openblas", str(found["version"]), *addresses)
    return None


class OneThread:
    """For ``with``: a library has one thread meanwhile, and those that it had before when the last user is gone.

    The number is one for the whole process, or, in MKL, for the thread that asks. What the user sets meanwhile stays as
    it is.

    Parameters
    ----------
    blas : Blas or None
    """

    def __init__(self, blas: Blas | None) -> None:
        # These return at once: to give Python's lock away for them would take longer than they do.
        integer = ctypes.PYFUNCTYPE(ctypes.c_int)
        self._get = None if blas is None or not blas.get_threads else integer(blas.get_threads)
        self._limit = None if blas is None or not blas.get_limit else integer(blas.get_limit)
        self._set = None if blas is None else ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int)(blas.set_threads)
        self._lock = threading.Lock()
        self._users = 0
        self._before = 1
        self._own = threading.local()

    def __enter__(self) -> None:
        if self._set is None:
            return
        if self._get is None:
            self._own.before = self._set(1)
            return
        with self._lock:
            if self._users == 0:
                self._before = self._get()
                if self._before != 1:
                    self._set(1)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        if self._set is None:
            return
        if self._get is None:
            self._set(self._own.before)
            return
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._restore()

    def _restore(self) -> None:
        if self._set is not None and self._get is not None and self._before != 1 and self._get() == 1:
            self._set(self._before)

    @property
    def limit(self) -> int | None:
        """How many threads the user lets NumPy's library have; None where that is not known."""
        if self._limit is None:
            return None
        return self._before if self._users and self._get is not None else self._limit()

    def forget_users(self) -> None:
        """Go on in a child, in which the threads of its parent do not run."""
        self._lock = threading.Lock()
        if self._users:
            self._users = 0
            self._restore()


@functools.cache
def one_thread(blas: Blas | None) -> OneThread:
    """Return what all users of a library share in a process."""
    guard = OneThread(blas)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=guard.forget_users)
    return guard
