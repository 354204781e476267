"""How many blocks of how many threads: the grids of the kernels, as pure functions of shapes and the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

THREADS = 256
# What a multiprocessor holds at once, on most devices.
THREADS_PER_MULTIPROCESSOR = 2048
# How often the blocks of an element-wise kernel fill the device: few long-lived blocks would all end at once.
STREAMING_WAVES = 4
WIDEST_ACCESS = 16  # bytes
ROWS_IN_FLIGHT = 4  # of activation.cu
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


def vector_width(columns: int, *matrices: Array) -> int:
    """Return the same for matrices: 1 also where a row does not hold a whole number of accesses."""
    widest = flat_vector_width(*matrices)
    return widest if columns % widest == 0 else 1


def flat_grid(items: int, multiprocessors: int, waves: int = 1, threads: int = THREADS) -> int:
    """Return the blocks for one item per thread, but no more than fill the device ``waves`` times over.

    The kernel goes round for the rest. One wave suits reductions, whose last block adds the results of all the others.
    """
    return max(1, min(ceiling(items, threads), multiprocessors * waves * THREADS_PER_MULTIPROCESSOR // threads))


@dataclass(frozen=True)
class ColumnTiles:
    """A grid over a matrix for kernels that go down its columns.

    Attributes
    ----------
    grid : tuple of two ints
        Tiles of columns, parts of the rows.
    block : tuple of two ints
        Threads along a row, rows.
    """

    grid: tuple[int, int]
    block: tuple[int, int]


def column_tiles(rows: int, columns: int, width: int, multiprocessors: int) -> ColumnTiles:
    """Plan for a (rows, columns) matrix of which a thread takes ``width`` neighbouring columns.

    A row of a block is at most a warp wide: 512 neighbouring bytes at the widest. Rows are split until the device is
    full, but not so far that a thread is left with less than one round of rows.
    """
    packs = columns // width
    along = min(power_of_two(packs), WARP_LANES)
    down = THREADS // along
    tiles = ceiling(packs, along)
    wanted = ceiling(multiprocessors * 8, tiles)
    parts = max(1, min(wanted, ceiling(rows, down * ROWS_IN_FLIGHT)))
    return ColumnTiles((tiles, parts), (along, down))


@dataclass(frozen=True)
class RowCopy:
    """How ``gather_rows`` moves rows: words of so many bytes, so many of them per row."""

    word_bytes: int
    words: int
    grid: int
    block: tuple[int, int]


def row_copy(source: Array, out: Array) -> RowCopy:
    """Plan a copy of rows of ``source`` to the rows of ``out``."""
    row_bytes = out.nbytes // out.shape[0]
    word = next(size for size in (16, 8, 4, 2) if row_bytes % size == 0 and is_aligned(size, source, out))
    words = row_bytes // word
    # At most four words per thread, while a warp still touches neighbouring words.
    along = max(min(power_of_two(words), WARP_LANES), min(power_of_two(ceiling(words, 4)), THREADS))
    down = THREADS // along
    return RowCopy(word, words, ceiling(out.shape[0], down), (along, down))
