"""How an operation is cut into stripes: by its shape and the machine, so that bits do not depend on who does them."""

from __future__ import annotations

import os

# A product is cut in tiles of so many operations, in two from the second number on, and further as long as they stay
# large: what BLAS packs for a tile pays with its size, and the threads of a machine share what there is.
_TILE_WORK, _SMALL_WORK = 16_000_000, 4_000_000
_FEW_TILES, _MANY_TILES = 4, 8
_SMALL_SIDE, _LARGE_SIDE = 64, 256
# Elements of a block of rows: at most what the passes over it find in a core's cache, at least what is worth handing
# over.
_BLOCK = 262_144
_SMALL_BLOCK, _FEW_BLOCKS = 8192, 4
_FEWEST_ROWS, _MOST_ROWS = 64, 512
# Weights of at most so many elements are read by each block of rows, which stays in the cache from layer to layer.
# In small batches, few rows to a block, only smaller ones are.
_SMALL_BATCH, _SMALL_WEIGHTS, _TINY_WEIGHTS = 512, 65_536, 16_384
_CHUNK, _SMALL_CHUNK, _FEW_CHUNKS = 65_536, 8192, 16
_LINE = 16


def most_tiles(cores: int | None) -> int:
    """Return in how many tiles a large product is cut on a machine with so many cores."""
    return min(_MANY_TILES, 1 << ((cores or 1).bit_length() - 1))


# More tiles than cores cost OpenBLAS up to a seventh of its rate. All cores of the machine count, whichever of them a
# process may use, so that ranks and processes that are bound to some of them have the bits of those that are not.
MOST_TILES = most_tiles(os.cpu_count())


def tile(m: int, n: int, k: int) -> tuple[int, int]:
    """Return the rows and columns of a product's tiles, (m, k) times (k, n)."""
    if n * k <= (_SMALL_WEIGHTS if m > _SMALL_BATCH else _TINY_WEIGHTS):
        return block_rows(m, max(n, k)), n
    work = 2 * m * n * k
    wanted = max(work // _TILE_WORK, min(work // _SMALL_WORK, 2))
    rows, columns, count = m, n, 1
    while count < min(wanted, MOST_TILES):
        if max(rows, columns) < 2 * (_SMALL_SIDE if count < _FEW_TILES else _LARGE_SIDE):
            break
        if rows > min(columns, 2 * _LARGE_SIDE):  # long rows are better for BLAS than short ones
            rows = _half(rows)
        else:
            columns = _half(columns)
        count *= 2
    if columns == n and m > _SMALL_BATCH and rows <= _MOST_ROWS and block_rows(m, n) >= _LARGE_SIDE:
        rows = block_rows(m, n)  # those of the passes before and after it
    return rows, columns


def product_rows(m: int, n: int, k: int) -> int:
    """Return over how many rows at a time a product (k, m)^T times (k, n) is summed, 0 for all of them."""
    return block_rows(k, m) if k > _SMALL_BATCH and m * n <= _SMALL_WEIGHTS else 0


def _half(length: int) -> int:
    """Return half of a length, in whole cache lines."""
    return -(-length // (2 * _LINE)) * _LINE


def block_rows(rows: int, columns: int) -> int:
    """Return how many rows a block has."""
    fewest = max(_FEWEST_ROWS, _SMALL_BLOCK // columns // _LINE * _LINE)
    share = -(-rows // (_FEW_BLOCKS * _LINE)) * _LINE
    return min(rows, max(fewest, min(share, _BLOCK // columns // _LINE * _LINE)), _MOST_ROWS)


def chunk(size: int) -> int:
    """Return how many elements of a flat vector a stripe has."""
    return min(size, max(_SMALL_CHUNK, min(_CHUNK, size // (_FEW_CHUNKS * _LINE) * _LINE)))
