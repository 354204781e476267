"""What computes here: the processor, and the library that multiplies matrices for NumPy."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np


def cpu_name() -> str:
    """Return the processor's model."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def blas_libraries() -> list[dict[str, Any]]:
    """Return the libraries that multiply matrices for NumPy: name, version, threads, and kernels for which processor.

    Without the package threadpoolctl, threads and kernels are None. Libraries of other packages (SciPy brings one) are
    left out where NumPy has its own.
    """
    try:
        from threadpoolctl import threadpool_info
    except ModuleNotFoundError:
        built: Any = np.show_config(mode="dicts")
        blas = built.get("Build Dependencies", {}).get("blas", {})
        return [{"name": blas.get("name", "unknown"), "version": blas.get("version"), "threads": None, "kernels": None}]
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    package = Path(np.__file__).resolve().parent
    places = (package, package.with_name("numpy.libs"))  # a wheel puts its libraries beside the package
    own = [library for library in libraries if any(map(Path(library["filepath"]).resolve().is_relative_to, places))]
    return [
        {
            "name": library["internal_api"],
            "version": library["version"],
            "threads": library["num_threads"],
            "kernels": library.get("architecture"),
        }
        for library in own or libraries
    ]


def cpu_arithmetic() -> dict[str, str | None]:
    """Return what the bits of NumPy's results depend on, beside the numbers; None for what nobody can tell."""
    libraries = blas_libraries()
    named = [" ".join(str(part) for part in (one["name"], one["version"], one["kernels"]) if part) for one in libraries]
    threads = [library["threads"] for library in libraries]
    return {
        "device": "cpu",
        "CPU backend": "NumPy",
        "NumPy": np.__version__,
        "processor": f"{platform.machine()}, {cpu_name()}",
        "BLAS": ", ".join(named),
        "BLAS threads": None if None in threads else ", ".join(map(str, threads)),
    }
