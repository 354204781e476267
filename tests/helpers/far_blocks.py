"""One block of a huge launch on arrays of terabytes, of which only the pages exist that it touches."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunet.backends.cuda.sources import source_for
from tests.emulation import EmulatedDevice
from tests.emulation.memory import Allocator

# Where a 32-bit offset of 16 bytes an element leads, below the array: there it damages nothing and finds nothing.
BELOW = 2**31 * 16
NO_RESERVE = 0x4000  # of Linux

_c_library = ctypes.CDLL(None)
_c_library.mmap.restype = ctypes.c_void_p
_c_library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_c_library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

# A kernel as a function that takes the place of its block and the size of its grid before its arguments.
PLACED = """
template <auto kernel> struct Placed;
template <typename... Types, void (*kernel)(Types...)> struct Placed<kernel> {
    static void run(unsigned int x, unsigned int y, unsigned int across, unsigned int down, Types... arguments) {
        emulation::block_index = emulation::scheduler.current->block->index = {x, y, 0};
        emulation::grid_dimensions = {across, down, 1};
        kernel(arguments...);
    }
};
"""


class SparseMemory(Allocator):
    """Zeros that take no room until they are written."""

    def reserve(self, size: int) -> int | None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
        start = _c_library.mmap(None, BELOW + size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        return None if start == ctypes.c_void_p(-1).value else start + BELOW

    def release(self, start: int, size: int) -> None:
        _c_library.munmap(start - BELOW, BELOW + size)


class FarDevice(EmulatedDevice):
    """An emulated device with sparse memory that runs single blocks.

    Parameters
    ----------
    replacement : (old, new), optional
        A piece of the kernels' text that occurs once, and what stands there instead.
    """

    def __init__(self, replacement: tuple[str, str] | None = None) -> None:
        super().__init__()
        self._memory = SparseMemory(0)
        self._replacement = replacement

    def run_block(
        self,
        module: str,
        expression: str,
        block: int | tuple[int, int],
        grid: int | tuple[int, int],
        threads: int | tuple[int, int],
        arguments: Sequence[Any],
        shared_memory: int = 0,
    ) -> None:
        """Run one block of a launch; an argument that is None is a null pointer."""
        text = source_for(module, [expression])
        if self._replacement is not None:
            old, new = self._replacement
            assert text.count(old) == 1, f"{module} has {text.count(old)} times: {old}"
            text = text.replace(old, new)
        name = f"Placed<(&{expression})>::run"
        kernel = self.load(text + PLACED, (), [name], f"{module}.cu")[name]
        place = [np.uint32(number) for pair in (block, grid) for number in _pair(pair)]
        place[1] = place[1] if isinstance(block, tuple) else np.uint32(0)
        given = [np.uint64(0) if argument is None else argument for argument in arguments]
        self.launch(kernel, 1, threads, [*place, *given], shared_memory)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, 1)
