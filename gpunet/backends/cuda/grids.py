"""What launch plans are made of: alignment, widths of accesses, grids; pure functions of shapes and the device."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

THREADS = 256
# What a multiprocessor holds at once, on most devices.
THREADS_PER_MULTIPROCESSOR = 2048
# How often the blocks of an element-wise kernel fill the device: few long-lived blocks would all end at once.
STREAMING_WAVES = 4
WIDEST_ACCESS = 16  # bytes
WARP_LANES = 32


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


def flat_grid(items: int, multiprocessors: int, waves: int = 1, threads: int = THREADS) -> int:
    """Return the blocks for one item per thread, but no more than fill the device ``waves`` times over.

    The kernel goes round for the rest. One wave suits reductions, whose last block adds the results of all the others.
    """
    return max(1, min(ceiling(items, threads), multiprocessors * waves * THREADS_PER_MULTIPROCESSOR // threads))
