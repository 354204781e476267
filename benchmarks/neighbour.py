"""A program that keeps cores busy, for cases that are measured beside one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

# Ends with the process that started it, however that ends.
_BUSY = "import os\nparent = {}\nwhile os.getppid() == parent:\n    sum(range(10_000))"


@contextlib.contextmanager
def busy_neighbour(threads: int) -> Iterator[None]:
    """Keep as many of this process's cores busy as a peer is given: the same ones."""
    command = [sys.executable, "-c", _BUSY.format(os.getpid())]
    processes = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(threads)]
    try:
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))[:threads]
            for process in processes:
                os.sched_setaffinity(process.pid, cores)
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
