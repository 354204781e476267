"""Whether the machine code moves memory in accesses as wide as the source asks for: counted in the disassembly.

A compiler may split a wide access, or see a reason why an address might not be aligned. The numbers stay right then,
and the kernel takes twice the time.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpunet.backends.cuda.sources import source_for
from gpunet.errors import DeviceError, require_package
from gpunet.kernel_check.budgets import VectorAccess
from gpunet.kernel_check.nvrtc import Nvrtc, toolkit_folders

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
    nvrtc: Nvrtc, disassembler: Path, module: str, wanted: dict[str, VectorAccess], architectures: Sequence[int]
) -> list[AccessCount]:
    """Compile the kernels of one file that must be vectorised, and count their wide accesses.

    Raises
    ------
    KernelCompileError
    DeviceError
        The disassembler failed.
    """
    counts = []
    for architecture in architectures:
        compiled = nvrtc.compile(source_for(module, wanted), tuple(wanted), architecture, f"{module}.cu")
        listings = split_listing(_disassemble(disassembler, compiled.cubin))
        for expression, access in wanted.items():
            listing = listings[compiled.symbols[expression]]
            loads, stores = count_loads(listing, access.bytes), count_stores(listing, access.bytes)
            counts.append(AccessCount(module, expression, architecture, access, loads, stores))
    return counts


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
