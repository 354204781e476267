"""Matrix products: cuBLAS behind ``gemm``, in every layout and precision, and what may be done together with one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from gpunet.activations import Activation, Identity, ReLU
from gpunet.backends.cuda.activation import activation_group
from gpunet.backends.cuda.instantiation import storage_type
from gpunet.backends.switches import CUBLAS_LT
from gpunet.verification.check import NAMES, Check, NotDoneError, Unit, alignments, operation_check, shape_text
from gpunet.verification.operation import Difference, Later, Numbers, Operation, compare, makes
from gpunet.verification.storage import FLOAT32, NETWORK_DTYPES, Storage
from gpunet.verification.subject import Cuda, Subject

# (rows, inner, columns): none equal; square, where swapped factors would fit too; a single row, column, product.
SHAPES = ((33, 65, 17), (32, 32, 32), (1, 20, 9), (24, 7, 1), (5, 1, 6), (128, 256, 64))
ACTIVATIONS = (Identity(), ReLU())  # that cublasLt has
# TF32 keeps 10 bits of the mantissas, and may cut off what is below.
TF32_FACTOR = 2.0**-10


@makes("gemm")
def gemm(
    storage: Storage,
    shape: tuple[int, int, int],
    transpose_a: bool,
    transpose_b: bool,
    accumulate: bool,
    precision: str = "float32",
    out_storage: Storage | None = None,
) -> Operation:
    """Return a product of random matrices of (rows, inner, columns), once transposed; stored as its factors, or not."""
    out_storage = out_storage or storage
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
        return {"out": allowed + out_storage.rounding * np.abs(expected["out"])}

    return Operation(
        "gemm",
        {"a": a, "b": b, **start},
        {} if accumulate else {"out": ((rows, columns), out_storage.dtype)},
        {"transpose_a": transpose_a, "transpose_b": transpose_b, "accumulate": accumulate},
        tolerance,
        changed=("out",) if accumulate else (),
    )


@makes("linear_activation_forward")
def linear_activation(
    storage: Storage,
    shape: tuple[int, int, int],
    activation: Activation,
    precision: str = "float32",
    *,
    out: Storage | None = None,
    has_nan: bool = False,
) -> Operation:
    """Return ``linear_activation_forward`` on random numbers: x of (rows, inner), out of (rows, columns).

    Parameters
    ----------
    out : Storage, optional
        Of the output, where not that of the factors.
    has_nan : bool
        Whether a number of x is none.
    """
    rows, inner, columns = shape
    rng = np.random.default_rng(shape)
    stored = storage if out is None else out
    x = rng.standard_normal((rows, inner))
    if has_nan:
        x[-1, 0] = np.nan

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        x, weight = np.abs(arguments["x"]), np.abs(arguments["weight"])
        size = np.matmul(x, weight.T) + np.abs(arguments["bias"])
        allowed = (inner + 3) * storage.unit / 2 * size
        if precision == "tf32":
            allowed = allowed + 2 * TF32_FACTOR * size
        # In two operations, the sums are stored before the bias is added.
        sums = np.abs(np.matmul(arguments["x"], arguments["weight"].T))
        return {"out": allowed + stored.rounding * (sums + np.abs(expected["out"]))}

    return Operation(
        "linear_activation_forward",
        {
            "x": storage.store(x),
            "weight": storage.store(rng.standard_normal((columns, inner))),
            "bias": rng.standard_normal(columns).astype(storage.arithmetic),
        },
        {"out": ((rows, columns), stored.dtype)},
        {"activation": activation},
        tolerance,
    )


def differences(
    subject: Subject, operation: Operation, precision: str, together: bool, offsets: Mapping[str, int] | None = None
) -> Iterator[Difference]:
    """Do a product with bias and activation in one operation of the device or in two, and yield how far off it is."""
    if not isinstance(subject, Cuda):
        yield from compare(subject.operations(precision), operation, offsets)
        return
    with subject.products(precision, together) as (backend, done):
        yield from compare(backend, operation, offsets)
    if together and not any(done):
        raise NotDoneError("cublasLt has nothing for it: cuBLAS and a kernel do it")


def linear_activation_checks(subject: Subject) -> Iterator[Check]:
    """Yield every activation that cublasLt has, of every shape, type and alignment, with cublasLt and without."""
    kinds: list[tuple[Storage, Storage | None, str]]
    kinds = [(storage, None, precision) for storage in subject.storages for precision in subject.precisions]
    kinds += [(storage, FLOAT32, "float32") for storage in subject.storages if storage.name not in NETWORK_DTYPES]

    def check(
        kind: str,
        stored: Storage,
        precision: str,
        together: bool,
        activation: Activation,
        operation: Later,
        detail: str,
        offsets: Any = None,
    ) -> Check:
        group = activation_group(storage_type(stored.dtype), activation)
        return Check(
            f"{NAMES[operation.method]}{', cublasLt' if together else ''}",
            kind,
            f"{activation}, {detail}",
            lambda: differences(subject, operation.make(), precision, together, offsets),
            (Unit("activation", group, activation),),
            CUBLAS_LT.variable if together else "",
        )

    for storage, out, precision in kinds:
        if precision == "tf32" and storage is not FLOAT32:
            continue
        kind = precision if precision == "tf32" else storage.name
        into = "" if out is None else f", into {out}"
        # A bias is stored in the arithmetic's type, and cublasLt takes one of the output's.
        has_epilogues = isinstance(subject, Cuda) and (out or storage).dtype == storage.arithmetic
        for together, activation in itertools.product((True, False) if has_epilogues else (False,), ACTIVATIONS):
            one = partial(check, kind, out or storage, precision, together, activation)
            for shape in SHAPES:
                operation = linear_activation.later(storage, shape, activation, precision, out=out)
                yield one(operation, f"{shape_text(shape)}{into}")
            shape = SHAPES[0]
            operation = linear_activation.later(storage, shape, activation, precision, out=out, has_nan=True)
            yield one(operation, f"{shape_text(shape)}{into}, NaN")
            if into or activation != ReLU():
                continue
            operation = linear_activation.later(storage, shape, activation, precision)
            for words, offsets in alignments(operation.make(), storage):
                if not (together and "bias" in offsets):  # which cublasLt is not asked for
                    yield one(operation, f"{shape_text(shape)}, {words}", offsets)


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
                operation = gemm.later(storage, shape, a, b, accumulate, precision)
                yield check(operation, f"{shape_text(shape)}, {layout}")
            if storage.dtype.itemsize == 2:
                operation = gemm.later(storage, shape, True, False, False, precision, FLOAT32)
                yield check(operation, f"{shape_text(shape)}, A^T B, in float32")
        operation = gemm.later(storage, SHAPES[0], False, True, False, precision)
        for words, offsets in alignments(operation.make(), storage):
            yield check(operation, f"{shape_text(SHAPES[0])}, {words}", offsets)
    yield from linear_activation_checks(subject)
