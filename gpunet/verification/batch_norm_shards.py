"""Batch norm and activation in parts, for a batch in shards: the operations of ``batch_norm_shards.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from gpunet.activations import ACTIVATIONS, Activation, get_activation
from gpunet.backends.cuda.batch_norm_shards import MODULE, expression, statistics_group
from gpunet.backends.cuda.instantiation import storage_type
from gpunet.verification import batch_norm
from gpunet.verification.batch_norm import EPSILON, FAR_MEAN, LARGE_REPEATS, MOMENTUM
from gpunet.verification.check import NAMES, Check, Unit, alignments, shape_text
from gpunet.verification.operation import Later, Numbers, Operation, Tolerance, compare, makes
from gpunet.verification.storage import FLOAT32, NETWORK_DTYPES, Storage
from gpunet.verification.subject import Subject

SHAPES = ((1, 1), (1, 40), (8, 1), (31, 33), (257, 36), (1025, 3))
ALIGNED_SHAPE = batch_norm.ALIGNED_SHAPE
LARGE_SHAPES = ((4096, 1024), (65536, 64))
# How many times the rows of a shard the batch has.
SHARDS = 3


@makes("batch_norm_statistics")
def statistics(storage: Storage, shape: tuple[int, int], mean: float = 0.0) -> Operation:
    """Return ``batch_norm_statistics`` on random numbers of a mean."""

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        means, squares = expected["statistics"]
        deviation = np.sqrt(squares / shape[0])
        of_squares = 64 * squares + 4 * np.abs(means) * np.sqrt(squares)
        return {"statistics": storage.unit * np.array([4 * (np.abs(means) + deviation), of_squares])}

    s = batch_norm.forward(storage, shape, get_activation("relu"), mean=mean).given["s"]
    return Operation(
        "batch_norm_statistics", {"s": s}, {"statistics": ((2, shape[1]), storage.arithmetic)}, {}, tolerance
    )


@makes("batch_norm_merge")
def merge(storage: Storage, columns: int, counts: tuple[int, ...], mean: float = 0.0) -> Operation:
    """Return ``batch_norm_merge`` for shards of so many rows; where there are none, the statistics are NaN."""
    rng = np.random.default_rng((columns, *counts))
    rows = np.array(counts, np.int32)[:, None]
    means = mean + rng.standard_normal((len(counts), columns))
    parts = np.stack([means, rows * rng.uniform(0.5, 2, means.shape)], axis=1)
    parts[rows[:, 0] == 0] = np.nan
    vector = (columns,), storage.arithmetic

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        ratio, inverse_std = 1 + np.abs(expected["mean"]) * expected["inverse_std"], expected["inverse_std"]
        relative = (16 + 2 * ratio) * storage.unit
        return {
            "mean": 3 * storage.unit * ratio / inverse_std,
            "inverse_std": relative * inverse_std,
            "running_mean": 4 * storage.unit * (ratio / inverse_std + 2),
            "running_variance": 2 * relative * (expected["running_variance"] + inverse_std**-2),
        }

    running = {"running_mean": rng.standard_normal(columns), "running_variance": rng.uniform(0.5, 2, columns)}
    return Operation(
        "batch_norm_merge",
        {"statistics": parts.astype(storage.arithmetic), "counts": rows[:, 0]}
        | {name: values.astype(storage.arithmetic) for name, values in running.items()},
        {"mean": vector, "inverse_std": vector},
        {"momentum": MOMENTUM, "epsilon": EPSILON},
        tolerance,
        changed=("running_mean", "running_variance"),
    )


@makes("batch_norm_activation_apply")
def apply(storage: Storage, shape: tuple[int, int], activation: Activation, *, affine: bool = True) -> Operation:
    """Return ``batch_norm_activation_apply`` on random numbers."""
    whole = batch_norm.backward(storage, shape, activation, affine=affine)

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        ratio = 1 + np.abs(arguments["mean"]) * arguments["inverse_std"]
        largest = np.abs(expected["out"]).max(axis=0) + (np.abs(arguments["gamma"]) if affine else 1.0)
        return {"out": (storage.rounding + 8 * storage.unit * ratio) * largest}

    return Operation(
        "batch_norm_activation_apply",
        {name: array for name, array in whole.given.items() if name not in ("dy", "y")},
        {"out": (shape, storage.dtype)},
        _settings(whole),
        tolerance,
    )


@makes("batch_norm_activation_sums")
def sums(storage: Storage, shape: tuple[int, int], activation: Activation, *, affine: bool = True) -> Operation:
    """Return ``batch_norm_activation_sums`` on random numbers."""
    whole = batch_norm.backward(storage, shape, activation, affine=affine)
    return replace(
        whole,
        method="batch_norm_activation_sums",
        written=dict.fromkeys(("dgamma", "dbeta"), ((shape[1],), storage.arithmetic)),
        settings=_settings(whole),
        tolerance=_only(whole, "dgamma", "dbeta"),
    )


@makes("batch_norm_activation_input_gradient")
def input_gradient(
    storage: Storage, shape: tuple[int, int], activation: Activation, *, affine: bool = True, in_place: bool = False
) -> Operation:
    """Return ``batch_norm_activation_input_gradient`` on random numbers, for shards whose sums are alike."""
    whole = batch_norm.backward(storage, shape, activation, affine=affine, in_place=in_place)
    _, of_shard = sums(storage, shape, activation, affine=affine).expected()
    return replace(
        whole,
        method="batch_norm_activation_input_gradient",
        given={**whole.given, **{name: (SHARDS * v).astype(storage.arithmetic) for name, v in of_shard.items()}},
        written={"ds": (shape, storage.dtype)},
        settings=_settings(whole) | {"rows": SHARDS * shape[0]},
        tolerance=_only(whole, "ds"),
    )


def _settings(whole: Operation) -> dict[str, Any]:
    """Return the settings of a part of the backward pass: those of the whole without where its sums are written."""
    return {name: value for name, value in whole.settings.items() if name not in ("dgamma", "dbeta")}


def _only(whole: Operation, *names: str) -> Tolerance:
    """Return how far those outputs of the whole backward pass may be off."""

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        allowed = whole.tolerance(arguments, expected)
        return {name: allowed[name] for name in names}

    return tolerance


WITH_ACTIVATION = (apply, sums, input_gradient)
KERNELS = {make.method: make.method.replace("_activation", "") for make in WITH_ACTIVATION}


def checks(subject: Subject) -> Iterator[Check]:
    """Yield every part and type, at every shape and alignment, and every activation."""
    backend, relu = subject.operations(), get_activation("relu")

    def check(
        storage: Storage,
        operation: Later,
        detail: str,
        columns: int = 0,
        activation: Activation | None = None,
        offsets: Any = None,
        repeats: int = 2,
    ) -> Check:
        name, units = storage_type(storage.dtype), (Unit(MODULE, statistics_group(storage_type(storage.dtype))),)
        if activation is not None:
            width = batch_norm.width_of(columns, storage.dtype.itemsize, offsets or {})
            units = (Unit(MODULE, (expression(KERNELS[operation.method], name, width, activation),), activation),)
        what = NAMES[operation.method]
        return Check(what, storage.name, detail, lambda: compare(backend, operation.make(), offsets, repeats), units)

    aligned, columns = shape_text(ALIGNED_SHAPE), ALIGNED_SHAPE[1]
    for storage in subject.storages:
        for shape in SHAPES:
            yield check(storage, statistics.later(storage, shape), shape_text(shape))
        operation = statistics.later(storage, ALIGNED_SHAPE)
        for words, offsets in alignments(operation.make(), storage):
            yield check(storage, operation, f"{aligned}, {words}", offsets=offsets)
        for make in WITH_ACTIVATION:
            for shape in SHAPES:
                yield check(storage, make.later(storage, shape, relu), shape_text(shape), shape[1], relu)
            operation = make.later(storage, ALIGNED_SHAPE, relu)
            for words, offsets in alignments(operation.make(), storage):
                yield check(storage, operation, f"{aligned}, {words}", columns, relu, offsets)
        for make in WITH_ACTIVATION:
            operation = make.later(storage, ALIGNED_SHAPE, relu, affine=False)
            yield check(storage, operation, f"{aligned}, without scale and shift", columns, relu)
        # Of a derivative that shows when it is applied twice.
        tanh = get_activation("tanh")
        in_place = input_gradient.later(storage, ALIGNED_SHAPE, tanh, in_place=True)
        yield check(storage, in_place, f"{aligned}, in place", columns, tanh)
        if storage is FLOAT32:  # in float64 the specification is as far off
            yield check(storage, statistics.later(storage, (257, 36), FAR_MEAN), f"257 x 36, a mean of {FAR_MEAN:g}")
        if storage.name in NETWORK_DTYPES:
            for counts in ((2,), (1, 1), (5, 5, 4), (128, 0, 7, 0)):
                for width in (1, 33, 300):
                    words = f"{width} columns, shards of {' + '.join(map(str, counts))}"
                    yield check(storage, merge.later(storage, width, counts), words)
            far = merge.later(storage, 33, (64, 50), FAR_MEAN)
            yield check(storage, far, f"33 columns, a mean of {FAR_MEAN:g}")
    for activation in map(get_activation, ACTIVATIONS):
        for make in WITH_ACTIVATION:
            operation = make.later(FLOAT32, (130, 36), activation)
            yield check(FLOAT32, operation, f"{activation}, 130 x 36", 36, activation)
    if subject.is_large:
        for shape in LARGE_SHAPES:
            words = f"{shape_text(shape)}, {LARGE_REPEATS} times"
            yield check(FLOAT32, statistics.later(FLOAT32, shape), words, repeats=LARGE_REPEATS)
            yield check(FLOAT32, sums.later(FLOAT32, shape, relu), words, shape[1], relu, repeats=LARGE_REPEATS)
