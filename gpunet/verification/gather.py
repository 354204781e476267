"""Batches from a data set: the operation of ``gather.cu``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from gpunet.backends.cuda.gather import gather_group
from gpunet.verification.check import Check, Unit, alignments, operation_check
from gpunet.verification.operation import Operation, makes
from gpunet.verification.storage import STORAGES, Array
from gpunet.verification.subject import Subject

Others = Mapping[str, tuple[int | None, npt.DTypeLike]]

COLUMNS = (None, 1, 2, 3, 4, 6, 31, 32, 33, 784, 1023, 1025)


@makes("gather_batch")
def gather_batch(
    dtype: npt.DTypeLike,
    columns: int | None,
    rows: int,
    examples: int = 97,
    others: Others | None = None,
    first: int | None = None,
) -> Operation:
    """Return the operation on data of whole numbers; ``columns`` of None stands for a vector.

    ``others`` has columns and dtype of targets and weights, where the data have them.
    """
    rng = np.random.default_rng(rows)
    given: dict[str, Array] = {"index": rng.integers(0, examples, rows + 2 * (first or 0), np.int32)}
    if first is not None:
        given["first"] = np.array([first], np.int64)
    written: dict[str, tuple[tuple[int, ...], npt.DTypeLike]] = {}
    for name, (width, kind) in {"features": (columns, dtype), **(others or {})}.items():
        tail = () if width is None else (width,)
        given[name] = rng.integers(-1000, 1000, (examples, *tail)).astype(kind)
        written[f"batch_{name}"] = (rows, *tail), kind
    return Operation("gather_batch", given, written)


def checks(subject: Subject) -> Iterator[Check]:
    """Yield every width of rows and of words, and every alignment."""
    backend, units = subject.operations(), (Unit("gather", gather_group()),)

    for dtype in ("float32", "float64", "int32", "float16"):
        check = partial(operation_check, backend, dtype, units)
        labels, numbers, weights = (None, "int32"), (7, dtype), (None, "float64" if dtype == "float64" else "float32")
        for columns in COLUMNS:
            text = f"45 x {columns or 1}"
            yield check(gather_batch.later(dtype, columns, 45), f"{text} alone")
            yield check(gather_batch.later(dtype, columns, 45, others={"targets": labels}), f"{text}, targets")
            both: Others = {"targets": numbers, "weights": weights}
            yield check(gather_batch.later(dtype, columns, 45, others=both), f"{text}, targets and weights")
    check = partial(operation_check, backend, "float32", units)
    for rows in (1, 255, 256, 257, 1025):
        wide: Others = {"targets": (1025, "float32"), "weights": (None, "float32")}
        yield check(gather_batch.later("float32", 5, rows, others=wide), f"{rows} x 5, wide targets and weights")
    for first in (0, 1, 1000):
        text = f"300 x 5, targets, from the row {first} of an order"
        yield check(gather_batch.later("float32", 5, 300, others={"targets": (None, "int32")}, first=first), text)
    for storage in STORAGES[:3]:
        both = {"targets": (8, storage.dtype), "weights": (None, storage.arithmetic)}
        operation = gather_batch.later(storage.dtype, 64, 20, others=both)
        for words, offsets in alignments(operation.make(), storage):
            yield operation_check(backend, storage.name, units, operation, f"20 x 64, {words}", offsets)
