"""What the benchmarks ran on."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from gpunet.environment import cpu_name, usable_cores

ROOT = Path(__file__).parents[1]
_GPU_FIELDS = ("name", "driver_version", "memory.total", "clocks.max.sm", "clocks.max.mem", "power.limit")


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """Return name, processor, cores, memory, cache, system; and for a run on ``"cuda"`` the GPU's state."""
    cpu, cores = cpu_name(), usable_cores()
    machine: dict[str, Any] = {
        "cpu": cpu,
        "cores": cores,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cache_bytes": cache_bytes(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if device == "cuda":
        machine |= describe_gpu()
    model = machine.get("gpu", f"{cpu} {cores} cores")
    machine["name"] = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    return machine


def cache_bytes() -> int:
    """Return the size of the last-level cache that the first core uses, 0 where the system does not say."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        sizes.append(int(text.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1], 1))
    return max(sizes)


def describe_gpu() -> dict[str, Any]:
    """Return model, driver, memory and limits of the first GPU; nothing where there is none."""
    answer = _ask_gpu(*_GPU_FIELDS)
    if answer is None:
        return {}
    name, driver, memory, sm, memory_clock, power = answer
    return {
        "gpu": name,
        "driver": driver,
        "gpu_cache_bytes": _gpu_cache_bytes(),
        "gpu_memory_bytes": int(float(memory)) * 2**20 if memory.replace(".", "", 1).isdigit() else 0,
        "clocks": f"SM up to {sm} MHz, memory up to {memory_clock} MHz, power limit {power} W",
    }


def gpu_clock() -> int:
    """Return the present clock of the first GPU's multiprocessors in MHz, 0 where nobody tells."""
    answer = _ask_gpu("clocks.sm")
    return int(answer[0]) if answer is not None and answer[0].isdigit() else 0


def _ask_gpu(*fields: str) -> list[str] | None:
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    values = [part.strip() for part in answer.partition("\n")[0].split(",")]
    return values if len(values) == len(fields) else None


def _gpu_cache_bytes() -> int:
    """Return the size of the first GPU's level-2 cache, 0 where CuPy cannot say."""
    try:
        import cupy

        return int(cupy.cuda.Device(0).attributes["L2CacheSize"])
    except Exception:  # CuPy missing or broken in any way: the benchmarks of CPU libraries need none
        return 0


def commit() -> str:
    """Return gpunet's commit, ``+changes`` where a tracked file outside the results differs from it.

    Where the checkout came without its history, the variable ``GPUNET_COMMIT`` says which it is.
    """
    if name := os.environ.get("GPUNET_COMMIT"):
        return name
    try:
        name = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!*.md")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{name}+changes" if changed else name


def now() -> str:
    """Return date and time, ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
