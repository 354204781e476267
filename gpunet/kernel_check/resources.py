"""What a compiled kernel needs of a multiprocessor, read from the assembler's messages."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ENTRY = re.compile(r"Compiling entry function '([^']+)' for 'sm_\w+'")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+)(?:\+\d+)? bytes smem")


@dataclass(frozen=True)
class Resources:
    """Registers of a thread, and bytes.

    Attributes
    ----------
    registers : int
    shared_bytes : int
        Static shared memory of a block; what a launch adds is not known to the compiler.
    stack_bytes : int
        Local memory of a thread that the source asks for: an array that is indexed at run time.
    spill_store_bytes, spill_load_bytes : int
        Local memory traffic of a thread for which there were too few registers.
    """

    registers: int
    shared_bytes: int = 0
    stack_bytes: int = 0
    spill_store_bytes: int = 0
    spill_load_bytes: int = 0


def parse_log(log: str) -> dict[str, Resources]:
    """Read the log of ``--ptxas-options=-v``.

    Parameters
    ----------
    log : str
        Lines of other kinds (warnings, compile times) may stand between those that count.

    Returns
    -------
    dict
        By the symbol of the kernel. Frame and spills include those of the functions that were not inlined, which the
        assembler lists after a kernel that calls them.
    """
    found: dict[str, Resources] = {}
    entry: str | None = None
    frame = (0, 0, 0)
    for line in log.splitlines():
        if match := _ENTRY.search(line):
            entry, frame = match[1], (0, 0, 0)
        elif match := _FRAME.search(line):
            frame = (frame[0] + int(match[1]), frame[1] + int(match[2]), frame[2] + int(match[3]))
            if entry in found:
                found[entry] = Resources(found[entry].registers, found[entry].shared_bytes, *frame)
        elif entry is not None and (match := _REGISTERS.search(line)):
            shared = _SHARED.search(line)
            found[entry] = Resources(int(match[1]), int(shared[1]) if shared else 0, *frame)
    return found
