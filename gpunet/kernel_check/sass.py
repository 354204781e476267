"""Whether the machine code moves memory in accesses as wide as the source asks for: counted in the disassembly.

A compiler may split a wide access, or see a reason why an address might not be aligned. The numbers stay right then,
and the kernel takes twice the time.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gpunet.errors import DeviceError, require_package
from gpunet.kernel_check.budgets import VectorAccess
from gpunet.kernel_check.check import Result
from gpunet.kernel_check.nvrtc import toolkit_folders

_DISASSEMBLER = "nvdisasm.exe" if sys.platform == "win32" else "nvdisasm"
_KERNEL = re.compile(r"^\.text\.(\S+):")
# The suffix is the width in bits. LDGSTS loads straight to shared memory.
_LOAD = re.compile(r"\bLDG(?:STS)?\.E[.\w]*?\.(64|128|256)\b")
_STORE = re.compile(r"\bSTG\.E[.\w]*?\.(64|128|256)\b")


@dataclass(frozen=True)
class AccessCount:
    """Wide accesses in the machine code of one kernel.

    Attributes
    ----------
    module, expression : str
    architecture : int
    wanted : VectorAccess
        What the budgets ask for.
    loads, stores : int
        Instructions of at least that width.
    """

    module: str
    expression: str
    architecture: int
    wanted: VectorAccess
    loads: int
    stores: int

    @property
    def problem(self) -> str:
        """What is wrong with it, in one line; empty if nothing is."""
        if self.loads >= self.wanted.loads and self.stores >= self.wanted.stores:
            return ""
        return (
            f"{self.module}, sm_{self.architecture}: {self.expression} has {self.loads} loads and {self.stores} stores"
            f" of {self.wanted.bytes} bytes. Expected at least {self.wanted.loads} and {self.wanted.stores}"
        )


def find_disassembler() -> Path:
    """Return where nvdisasm is.

    Raises
    ------
    MissingDependencyError
    """
    for folder in toolkit_folders():
        for path in (folder / "bin").rglob(_DISASSEMBLER):
            return path
    raise require_package("nvidia-cuda-nvdisasm", extra="kernels", purpose="--sass")


def count_accesses(
    disassembler: Path, results: Sequence[Result], vectorized: Mapping[str, Mapping[str, VectorAccess]], workers: int
) -> list[AccessCount]:
    """Count the wide accesses of those of the compiled kernels that must be vectorised.

    Parameters
    ----------
    disassembler : Path
        Of :func:`find_disassembler`.
    results : sequence of Result
    vectorized : mapping
        What the budgets ask for, by module and kernel.
    workers : int
        Threads, each with a disassembler of its own.

    Raises
    ------
    DeviceError
        The disassembler failed.
    """

    def count(result: Result) -> list[AccessCount]:
        module, architecture = result.unit.module, result.unit.architecture
        entries = vectorized.get(module, {})
        wanted = {name: entries[name] for name in result.symbols if name in entries}
        listings = split_listing(_disassemble(disassembler, result.cubin)) if wanted else {}
        return [
            AccessCount(
                module,
                name,
                architecture,
                access,
                count_loads(listings[result.symbols[name]], access.bytes),
                count_stores(listings[result.symbols[name]], access.bytes),
            )
            for name, access in wanted.items()
        ]

    with ThreadPoolExecutor(workers) as pool:
        return [one for counts in pool.map(count, results) for one in counts]


def split_listing(listing: str) -> dict[str, list[str]]:
    """Return the lines of a disassembly by the kernel that they belong to."""
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in listing.splitlines():
        if match := _KERNEL.match(line):
            lines = parts[match[1]] = []
        lines.append(line)
    return parts


def count_loads(lines: Sequence[str], least_bytes: int) -> int:
    """Count the instructions that load at least so many bytes for a thread, to registers or to shared memory."""
    return _count(_LOAD, lines, least_bytes)


def count_stores(lines: Sequence[str], least_bytes: int) -> int:
    """Count the instructions that store at least so many bytes for a thread."""
    return _count(_STORE, lines, least_bytes)


def _count(pattern: re.Pattern[str], lines: Sequence[str], least_bytes: int) -> int:
    matches = filter(None, map(pattern.search, lines))
    return sum(int(match[1]) >= 8 * least_bytes for match in matches)


def _disassemble(disassembler: Path, cubin: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernels.cubin")
        path.write_bytes(cubin)
        finished = subprocess.run([disassembler, "-c", path], capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise DeviceError(f"nvdisasm failed: {finished.stderr.strip() or finished.returncode}")
    return finished.stdout
