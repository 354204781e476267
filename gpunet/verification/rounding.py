"""Copies in half precision: the operations of ``rounding.cu``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpunet.backends.cuda.instantiation import storage_type
from gpunet.backends.cuda.rounding import rounding_group
from gpunet.backends.half import padded
from gpunet.verification.check import Check, Unit, alignments, operation_check, shape_text
from gpunet.verification.operation import Numbers, Operation, makes
from gpunet.verification.storage import Storage
from gpunet.verification.subject import Subject

# (rows, columns, columns of the copy): whole words of 16 bytes in the source, none, one beyond; no padding at all.
SHAPES = ((1, 1, 8), (33, 500, 504), (65, 10, 16), (7, 784, 784), (5, 13, 16), (257, 9, 16), (7, 5, 5), (1, 2049, 2056))
MATRICES = ((33, 13), (20, 33), (5, 20), (1, 1), (64, 64))


@makes("round_rows")
def round_rows(storage: Storage, shape: tuple[int, int, int], factor: float | None = None) -> Operation:
    """Return the operation on random numbers, some too large and some too small for the storage."""
    rows, columns, wide = shape
    source = _numbers(rows * columns).reshape(rows, columns)
    given = {"source": source} | ({} if factor is None else {"factor": np.array([factor, 0, 0], np.float32)})
    return Operation("round_rows", given, {"out": ((rows, wide), storage.dtype)}, {}, partial(_tolerance, storage))


@makes("round_matrices")
def round_matrices(storage: Storage, shapes: Sequence[tuple[int, int]], multiple: int) -> Operation:
    """Return the operation on matrices of these shapes; between copies and behind them, nothing is written."""
    table, start, out = [], 0, 0
    for rows, columns in shapes:
        table.append((start, rows, columns, out, padded(columns, multiple)))
        start, out = padded(start + rows * columns, 32), out + padded(rows, multiple) * padded(columns, multiple)
    given = {
        "source": _numbers(start),
        "out": storage.store(np.zeros(out)),
        "table": np.array(table, np.int64),
    }
    return Operation(
        "round_matrices", given, {}, {"multiple": multiple}, partial(_tolerance, storage), changed=("out",)
    )


def _numbers(count: int) -> Any:
    rng = np.random.default_rng(count)
    return (rng.standard_normal(count) * 2.0 ** rng.integers(-30, 16, count)).astype(np.float32)


def _tolerance(storage: Storage, arguments: Numbers, expected: Numbers) -> dict[str, Any]:
    """Return half a unit in the last place; what is too large for the storage is infinite there and not here."""
    exact = expected["out"]
    if storage.name == "float16":
        exact[np.abs(exact) >= 65520] *= np.inf
    return {"out": np.maximum(storage.rounding * np.abs(exact), storage.smallest)}


def checks(subject: Subject) -> Iterator[Check]:
    """Yield every shape and alignment in half precision, which a CPU stores nothing in."""
    backend = subject.operations()
    for storage in subject.storages:
        if storage.dtype.itemsize != 2:
            continue
        units = (Unit("rounding", rounding_group(storage_type(storage.dtype))),)
        check = partial(operation_check, backend, storage.name, units)
        for shape in SHAPES:
            yield check(round_rows.later(storage, shape), shape_text(shape))
        yield check(round_rows.later(storage, (33, 10, 16), 1024.0), "33 x 10 x 16, scaled")
        operation = round_rows.later(storage, (33, 500, 504))
        for words, offsets in alignments(operation.make(), storage):
            yield check(operation, f"33 x 500 x 504, {words}", offsets)
        for multiple in (8, 1):
            yield check(round_matrices.later(storage, MATRICES, multiple), f"{len(MATRICES)}, padded to {multiple}")
