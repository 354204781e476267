"""Starting real ranks."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_BESIDE_PYTHON = Path(sys.executable).with_name("mpiexec")
MPIEXEC = str(_BESIDE_PYTHON) if _BESIDE_PYTHON.exists() else shutil.which("mpiexec")
ROOT = Path(__file__).resolve().parents[2]
# What MPICH's mpiexec says on standard output if it sees a process dead before it hears of the abort that killed it.
_NOTICE = re.compile(r"\n=+\n=   BAD TERMINATION.*?suggestions\n", re.DOTALL)

needs_mpi = pytest.mark.skipif(
    (MPIEXEC is None or importlib.util.find_spec("mpi4py") is None) and os.environ.get("GPUNET_REQUIRE_MPI") != "1",
    reason="needs mpi4py and mpiexec: pip install 'gpunet[mpi]'",
)


def start_ranks(size: int, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start ``python ...`` on so many ranks, each with one thread."""
    assert MPIEXEC is not None
    return subprocess.Popen(
        [MPIEXEC, "-n", str(size), sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_under_mpi(size: int, *arguments: str, seconds: float = 300, **environment: str) -> tuple[int, str, str]:
    """Return exit status, output and errors of ``python ...`` on so many ranks; mpiexec's notices are errors."""
    process = start_ranks(size, *arguments, **environment)
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        pytest.fail(f"the ranks hang:\n{output}\n{errors}")
    return process.returncode, _NOTICE.sub("", output), errors + "".join(_NOTICE.findall(output))
