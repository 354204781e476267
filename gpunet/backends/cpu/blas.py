"""A BLAS library's matrix products, as addresses that compiled code calls, each call with one thread."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import itertools
import sys
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
    """

    name: str
    version: str
    sgemm: int
    dgemm: int
    has_long_integers: bool
    set_threads: int
    get_threads: int

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
            return Blas("mkl", _version("mkl"), sgemm, dgemm, False, set_threads, 0)
    return None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _openblas() -> Blas | None:
    from threadpoolctl import threadpool_info

    for found in threadpool_info():
        if found["internal_api"] != "openblas":
            continue
        library = ctypes.CDLL(found["filepath"])  # loaded already: another handle of the same
        for prefix, suffix, has_long_integers in _OPENBLAS_NAMES:
            sgemm, dgemm = (_address(library, f"{prefix}cblas_{kind}gemm{suffix}") for kind in "sd")
            set_threads, get_threads = (
                _address(library, f"{prefix}openblas_{verb}_num_threads{suffix}") for verb in ("set", "get")
            )
            if sgemm and dgemm and set_threads and get_threads:
                return Blas(
                    "openblas", str(found["version"]), sgemm, dgemm, has_long_integers, set_threads, get_threads
                )
    return None
