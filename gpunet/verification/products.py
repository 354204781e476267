"""Matrix products: cuBLAS behind ``gemm``, in every layout and precision."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from gpunet.verification.check import Check, alignments, operation_check, shape_text
from gpunet.verification.operation import Numbers, Operation
from gpunet.verification.storage import FLOAT32, Storage
from gpunet.verification.subject import Subject

# (rows, inner, columns): none equal; square, where swapped factors would fit too; a single row, column, product.
SHAPES = ((33, 65, 17), (32, 32, 32), (1, 20, 9), (24, 7, 1), (5, 1, 6), (128, 256, 64))
# TF32 keeps 10 bits of the mantissas, and may cut off what is below.
TF32_FACTOR = 2.0**-10


def gemm(
    storage: Storage,
    shape: tuple[int, int, int],
    transpose_a: bool,
    transpose_b: bool,
    accumulate: bool,
    precision: str = "float32",
) -> Operation:
    """Return a product of random matrices of (rows, inner, columns), once transposed."""
    rows, inner, columns = shape
    rng = np.random.default_rng(shape)
    a = storage.store(rng.standard_normal((inner, rows) if transpose_a else (rows, inner)))
    b = storage.store(rng.standard_normal((columns, inner) if transpose_b else (inner, columns)))
    start = {"out": storage.store(rng.standard_normal((rows, columns)))} if accumulate else {}

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        left, right = np.abs(arguments["a"]), np.abs(arguments["b"])
        # Every sum of products, in whatever order: Higham 2002, "Accuracy and stability of numerical algorithms", 3.5.
        size = np.matmul(left.T if transpose_a else left, right.T if transpose_b else right)
        allowed = (inner + 1) * storage.unit / 2 * (size + (np.abs(arguments["out"]) if accumulate else 0))
        if precision == "tf32":
            allowed = allowed + 2 * TF32_FACTOR * size
        return {"out": allowed + storage.rounding * np.abs(expected["out"])}

    return Operation(
        "gemm",
        {"a": a, "b": b, **start},
        {} if accumulate else {"out": ((rows, columns), storage.dtype)},
        {"transpose_a": transpose_a, "transpose_b": transpose_b, "accumulate": accumulate},
        tolerance,
        changed=("out",) if accumulate else (),
    )


def checks(subject: Subject) -> Iterator[Check]:
    """Yield every layout of every shape in every type and precision, and every alignment."""
    kinds = [(storage, precision) for storage in subject.storages for precision in subject.precisions]
    for storage, precision in kinds:
        if precision == "tf32" and storage is not FLOAT32:
            continue
        kind = precision if precision == "tf32" else storage.name
        check = partial(operation_check, subject.operations(precision), kind, ())
        for shape in SHAPES:
            for a, b, accumulate in itertools.product((False, True), repeat=3):
                layout = f"{'A^T' if a else 'A'} {'B^T' if b else 'B'}{', added' if accumulate else ''}"
                operation = gemm(storage, shape, a, b, accumulate, precision)
                yield check(operation, f"{shape_text(shape)}, {layout}")
        operation = gemm(storage, SHAPES[0], False, True, False, precision)
        for words, offsets in alignments(operation, storage):
            yield check(operation, f"{shape_text(SHAPES[0])}, {words}", offsets)
