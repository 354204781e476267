"""What computes here: the processor, and the library that multiplies matrices for NumPy."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np


def cpu_name() -> str:
    """Return the processor's model."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_affinity() -> tuple[int, ...]:
    """Return the numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """Return the cores that this process may use: by its affinity, and by the share of time that its group may have."""
    return min([len(usable_affinity()), *_group_quotas()])


def _group_quotas(root: str = "/") -> list[int]:
    """Return what Linux's control groups, version 1 or 2, and those around them allow: in cores, rounded up."""
    quotas = []
    for group in _read(Path(root, "proc/self/cgroup")).splitlines():
        _, controllers, path = group.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = Path(root, "sys/fs/cgroup", "cpu" if controllers else "")
        folder = base / path.strip("/")
        for place in (folder, *folder.parents):
            if place.is_relative_to(base):
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
                numbers = " ".join(_read(place / name) for name in names).split()
                if len(numbers) == 2 and all(map(str.isdigit, numbers)):  # "max" and -1 stand for no limit
                    quotas.append(max(1, -(-int(numbers[0]) // int(numbers[1]))))
    return quotas


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


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
