"""Batches from a data set: the operation of ``gather.cu``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from gpunet.backends.cuda.gather import gather_group
from gpunet.verification.check import Check, Unit, alignments, operation_check
from gpunet.verification.operation import Operation
from gpunet.verification.storage import STORAGES
from gpunet.verification.subject import Subject

COLUMNS = (None, 1, 2, 3, 4, 6, 31, 32, 33, 784, 1023, 1025)


def gather_rows(
    dtype: npt.DTypeLike, columns: int | None, rows: int, examples: int = 97, first: int | None = None
) -> Operation:
    """Return the operation on a data set of whole numbers; ``columns`` of None stands for a vector."""
    rng = np.random.default_rng(rows)
    tail = () if columns is None else (columns,)
    return Operation(
        "gather_rows",
        {
            "source": rng.integers(-1000, 1000, (examples, *tail)).astype(dtype),
            "index": rng.integers(0, examples, rows + 2 * (first or 0), np.int32),
            **({} if first is None else {"first": np.array([first], np.int64)}),
        },
        {"out": ((rows, *tail), dtype)},
    )


def checks(subject: Subject) -> Iterator[Check]:
    """Yield every width of rows and of words, and every alignment."""
    backend, units = subject.operations(), (Unit("gather", gather_group()),)

    def check(operation: Operation, detail: str, offsets: Mapping[str, int] | None = None) -> Check:
        return operation_check(backend, operation.given["source"].dtype.name, units, operation, detail, offsets)

    for dtype in ("float32", "float64", "int32", "float16"):
        for columns in COLUMNS:
            yield check(gather_rows(dtype, columns, 45), f"45 x {columns or 1}")
    for rows in (1, 255, 256, 257, 1025):
        yield check(gather_rows("float32", 5, rows), f"{rows} x 5")
    for first in (0, 1, 1000):
        yield check(gather_rows("float32", 5, 300, first=first), f"300 x 5, from the row {first} of an order")
    for storage in STORAGES[:3]:
        operation = gather_rows(storage.dtype, 64, 20)
        for words, offsets in alignments(operation, storage):
            yield check(operation, f"20 x 64, {words}", offsets)
