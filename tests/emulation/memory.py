"""Memory of the emulated device: NumPy arrays between guard zones, with a register of what is alive."""

from __future__ import annotations

import bisect
import ctypes
import math
import weakref
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from .compiler import EmulationError

ALIGNMENT = 256  # of cudaMalloc
POISON = 0xFF  # reads as NaN in every floating-point type

_c_library = ctypes.CDLL(None)
_c_library.posix_memalign.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]
_c_library.free.argtypes = [ctypes.c_void_p]


@dataclass(frozen=True)
class Allocation:
    """One buffer. `serial` is never used twice, though `address` may be once the buffer is freed."""

    serial: int
    address: int
    size: int
    guard: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def damage(self) -> str | None:
        """Say where a byte of the guard zones has changed; None when all are as they were."""
        expected = bytes([POISON]) * self.guard
        for offset in (-self.guard, self.size):
            found = ctypes.string_at(self.address + offset, self.guard)
            if found != expected:
                first = offset + next(i for i in range(self.guard) if found[i] != POISON)
                return (
                    f"write outside a buffer: array of shape {self.shape}, {self.dtype}, {self.size} bytes, "
                    f"was overrun at byte offset {first}"
                )
        return None


@dataclass(frozen=True)
class View:
    """Where a device array lies, without keeping its memory alive: what a recorded operation knows of it."""

    allocation: Allocation
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    def array(self) -> np.ndarray:
        """Return an array over the memory, which must be alive."""
        room = self.allocation.address + self.allocation.size - self.address
        memory = (ctypes.c_char * room).from_address(self.address)
        return np.ndarray(self.shape, self.dtype, buffer=memoryview(memory), strides=self.strides)

    @property
    def span(self) -> tuple[int, int]:
        """Its first address, and the first behind it."""
        last = sum((extent - 1) * stride for extent, stride in zip(self.shape, self.strides, strict=True))
        empty = 0 in self.shape
        return self.address, self.address if empty else self.address + last + self.dtype.itemsize


class Allocator:
    """Allocator of the emulated device.

    Parameters
    ----------
    guard : int
        Bytes of guard zone before and after each buffer, a multiple of ``ALIGNMENT``; 0 leaves the edges to the
        address sanitizer, which has guard zones of its own around each exact allocation.
    """

    def __init__(self, guard: int) -> None:
        if guard < 0 or guard % ALIGNMENT:
            raise ValueError(f"guard_bytes must be a multiple of {ALIGNMENT}, got {guard}")
        self._guard = guard
        self._alive: dict[int, Allocation] = {}  # by address
        self._addresses: list[int] = []  # in order
        self._last_serial = 0

    def allocate(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return an array of poisoned memory that is freed when no array or view of it is left."""
        dtype = np.dtype(dtype)
        shape = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(extent) for extent in shape)
        size = math.prod(shape) * dtype.itemsize
        room = 2 * self._guard + max(size, 1)
        start = self.reserve(room)
        if start is None:
            raise MemoryError(f"cannot allocate an array of shape {shape}, {dtype}")
        self._last_serial += 1
        allocation = Allocation(self._last_serial, start + self._guard, size, self._guard, shape, dtype)
        # NumPy keeps the object that lends the memory as the base of the array and of all its views.
        owner = (ctypes.c_char * max(size, 1)).from_address(allocation.address)
        weakref.finalize(owner, self._free, allocation).atexit = False
        self._alive[allocation.address] = allocation
        bisect.insort(self._addresses, allocation.address)
        return np.ndarray(shape, dtype, buffer=memoryview(owner))

    def reserve(self, size: int) -> int | None:
        """Return the address of `size` poisoned bytes."""
        start = ctypes.c_void_p()
        if _c_library.posix_memalign(ctypes.byref(start), ALIGNMENT, size) != 0 or start.value is None:
            return None
        ctypes.memset(start.value, POISON, size)
        return start.value

    def release(self, start: int, size: int) -> None:
        """Give back what :meth:`reserve` returned."""
        _c_library.free(start)

    def _free(self, allocation: Allocation) -> None:
        del self._alive[allocation.address]
        self._addresses.pop(bisect.bisect_left(self._addresses, allocation.address))
        self.release(allocation.address - allocation.guard, 2 * self._guard + max(allocation.size, 1))

    def find(self, array: np.ndarray) -> Allocation | None:
        """Return the buffer that `array` lies in, or None for an array that is not on the device."""
        address = array.__array_interface__["data"][0]
        position = bisect.bisect_right(self._addresses, address) - 1
        if position < 0:
            return None
        allocation = self._alive[self._addresses[position]]
        # An empty view may stand at the very end of its buffer.
        return allocation if address <= allocation.address + allocation.size else None

    def view(self, array: np.ndarray, what: str) -> View:
        """Describe the device array `array`; TypeError, naming it `what`, when it is not one."""
        allocation = self.find(array)
        if allocation is None:
            raise TypeError(f"{what} is not in the memory of the device")
        address = array.__array_interface__["data"][0]
        return View(allocation, address, array.shape, array.strides, array.dtype)

    def is_alive(self, allocation: Allocation) -> bool:
        """Whether the buffer has not been freed."""
        return self._alive.get(allocation.address) is allocation

    def check_guards(self) -> None:
        """Check the guard zones of every buffer that is alive."""
        for allocation in list(self._alive.values()):
            damage = allocation.damage()
            if damage is not None:
                raise EmulationError(damage)
