"""Rows cut into batches."""

from __future__ import annotations


def batch_slices(rows: int, batch_size: int, minimum: int) -> list[slice]:
    """Cut ``rows`` into batches; a remainder of fewer than ``minimum`` rows joins the batch before it."""
    starts = list(range(0, rows, batch_size))
    if len(starts) > 1 and rows - starts[-1] < minimum:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], rows], strict=True)]
