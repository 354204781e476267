"""How an operation is cut into stripes: by its shape alone, so that its bits do not depend on who does them."""

from __future__ import annotations

# Of a product's tile: below this it costs more to hand it over and to pack its operands than another thread saves.
_TILE_WORK = 16_000_000
_MOST_TILES = 16
_LARGEST_TILE_WORK = 256_000_000
_SMALLEST_SIDE = 64
# Elements of a block of rows: what the passes over it find in a core's cache.
_BLOCK = 131_072
_FEWEST_ROWS, _MOST_ROWS = 64, 512
# Batches of at most so many rows are cut into columns, each of them normalised by one thread.
_SMALL_BATCH = 512
_COLUMNS = 64
_CHUNK = 65_536
_LINE = 16


def tile(m: int, n: int, k: int) -> tuple[int, int]:
    """Return the rows and columns of a product's tiles, (m, k) times (k, n)."""
    work = 2 * m * n * k
    wanted = max(min(work // _TILE_WORK, _MOST_TILES), work // _LARGEST_TILE_WORK)
    rows, columns, count = m, n, 1
    while count < wanted:
        if max(rows, columns) < 2 * _SMALLEST_SIDE:
            break
        if rows >= columns:
            rows = _half(rows)
        else:
            columns = _half(columns)
        count *= 2
    return rows, columns


def _half(length: int) -> int:
    """Return half of a length, in whole cache lines."""
    return -(-length // (2 * _LINE)) * _LINE


def block_rows(rows: int, columns: int) -> int:
    """Return how many rows a block has."""
    return min(rows, max(_FEWEST_ROWS, min(_MOST_ROWS, _BLOCK // columns // _LINE * _LINE)))


def block_columns(rows: int, columns: int) -> int:
    """Return how many columns a block has that takes all rows, 0 where blocks of rows are better."""
    return _COLUMNS if rows <= _SMALL_BATCH else 0


def chunk(size: int) -> int:
    """Return how many elements of a flat vector a stripe has."""
    return min(size, _CHUNK)
