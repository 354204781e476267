"""What launch plans are made of: alignment, widths of accesses, grids; pure functions of shapes and the device."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from gpunet.backends.devices.device import Device

Array = npt.NDArray[Any]

# Fits every device that gpunet runs on, registers included: `gpunet kernels check` counts those.
THREADS = 256
WIDEST_ACCESS = 16  # bytes of one instruction, on every architecture
WARP_LANES = 32  # likewise, and known to the kernels


def ceiling(number: int, divisor: int) -> int:
    """Return ``number / divisor``, rounded up."""
    return -(-number // divisor)


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least ``number`` (at least 1)."""
    return 1 << max(number - 1, 0).bit_length()


def address(array: Array) -> int:
    """Return where the first element of a host or device array lies."""
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(interface["data"][0])


def is_aligned(bytes_: int, *arrays: Array) -> bool:
    """Return whether every array starts at a multiple of ``bytes_``."""
    return all(address(array) % bytes_ == 0 for array in arrays)


def flat_vector_width(*vectors: Array) -> int:
    """Return how many neighbouring elements one access can move: those of 16 bytes, or 1 where one is not aligned."""
    return WIDEST_ACCESS // vectors[0].itemsize if is_aligned(WIDEST_ACCESS, *vectors) else 1


def resident_blocks(device: Device, threads: int = THREADS) -> int:
    """Return how many blocks of so many threads the device has at once, as far as threads go."""
    return device.multiprocessor_count * (device.threads_per_multiprocessor // threads)


def flat_grid(items: int, device: Device, waves: int = 1, threads: int = THREADS) -> int:
    """Return the blocks for one item per thread, but no more than fill the device ``waves`` times over.

    The kernel goes round for the rest. One wave suits reductions, whose last block adds the results of all the others.
    """
    return max(1, min(ceiling(items, threads), waves * resident_blocks(device, threads)))
