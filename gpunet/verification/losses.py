"""The losses: the operations of the kernel files of their names."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gpunet.backends.cuda.groups import groups_of
from gpunet.backends.cuda.instantiation import Variants, storage_type
from gpunet.verification.activation import SHAPES
from gpunet.verification.check import Check, Unit, alignments, operation_check, shape_text
from gpunet.verification.operation import Maker, Numbers, Operation, makes
from gpunet.verification.storage import LOST_UNITS, NETWORK_DTYPES, Array, Storage
from gpunet.verification.subject import Subject
from gpunet.verification.training import COUNTED, STEPS, tally

# Columns for every number of lanes and of columns per lane, below, at and above; and for the kernel of long rows.
SOFTMAX_SHAPES = (
    *((1, 2), (130, 10), (33, 8), (7, 9), (5, 16), (5, 17), (40, 31), (40, 32), (40, 33), (9, 64), (9, 65), (3, 129)),
    *((3, 257), (3, 513), (2, 1023), (5, 1024), (5, 1025), (2, 1500), (1100, 3), (2, 9_000), (2, 12_000), (2, 70_000)),
)
# Of a loss that counts its step: every kernel, one block and several, a gradient too large for the last block.
COUNTED_SHAPES = ((2, 3), (1640, 10), (5, 1025), (2, 70_000))
SCALARS = 3
# Steps of an epoch, and what came before.
COUNTS: tuple[tuple[int, dict[str, Any]], ...] = (
    (0, {}),
    (STEPS - 1, {"skipped": 7}),
    *((1, {"before": lost}) for lost in (np.nan, np.inf, -np.inf)),
)
ZERO, GIVEN = "zero", "given"
EXTREME_LOGITS = (-1e4, -100.0, -50.0, -0.0, 0.0, 30.0, 80.0, 1e4)


# Gradients whose rows the last block of the loss adds, and one too large for that.
BIAS_SHAPES = (*SHAPES, (40, 33), (5, 129), (3, 1500), (64, 256), (1640, 10))


@makes("softmax_cross_entropy")
def softmax_cross_entropy(
    storage: Storage, shape: tuple[int, int], weights: str = "", *, has_bias: bool = False
) -> Operation:
    """Return the operation on random logits and labels, and ``"given"`` or ``"zero"`` weights."""
    rng = np.random.default_rng(shape)
    logits = 3 * rng.standard_normal(shape)
    return _loss(
        "softmax_cross_entropy", storage, logits, rng.integers(0, shape[1], shape[0], np.int32), weights, has_bias
    )


@makes("soft_cross_entropy")
def soft_cross_entropy(
    storage: Storage, shape: tuple[int, int], weights: str = "", *, has_bias: bool = False
) -> Operation:
    """Return the operation on random logits: an odd number of rows has labels, even columns have class weights."""
    rng = np.random.default_rng(shape)
    logits, targets = 3 * rng.standard_normal(shape), rng.dirichlet(np.full(shape[1], 0.3), shape[0])
    labels = rng.integers(0, shape[1], shape[0], np.int32)
    operation = _loss(
        "soft_cross_entropy", storage, logits, labels if shape[0] % 2 else storage.store(targets), weights, has_bias
    )
    arguments: dict[str, Any] = {"label_smoothing": 0.125}
    if shape[1] % 2:
        return replace(operation, settings={**operation.settings, **arguments, "class_weights": None})
    class_weights = rng.uniform(0.25, 2, shape[1])
    class_weights[0] = 0
    given = {**operation.given, "class_weights": class_weights.astype(storage.arithmetic)}
    return replace(operation, given=given, settings={**operation.settings, **arguments})


@makes("sigmoid_cross_entropy")
def sigmoid_cross_entropy(
    storage: Storage, shape: tuple[int, int], weights: str = "", *, has_bias: bool = False
) -> Operation:
    """Return the operation on logits, some of them far out, and targets in [0, 1], most of them 0 or 1."""
    rng = np.random.default_rng(shape)
    logits, targets = 4 * rng.standard_normal(shape), rng.uniform(-1, 2, shape).clip(0, 1)
    logits[rng.uniform(size=shape) < 0.05] *= 1000
    return _loss("sigmoid_cross_entropy", storage, logits, storage.store(targets), weights, has_bias)


@makes("sigmoid_cross_entropy")
def extreme(storage: Storage, logit: float, target: float) -> Operation:
    """Return ``sigmoid_cross_entropy`` of one logit, exact to relative precision where 1 - sigmoid would be 0."""

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        relative = LOST_UNITS * storage.unit
        return {name: relative * np.abs(values) + storage.smallest for name, values in expected.items()}

    return Operation(
        "sigmoid_cross_entropy",
        {name: np.full((1, 1), value, storage.dtype) for name, value in (("outputs", logit), ("targets", target))},
        {"doutputs": ((1, 1), storage.dtype), "loss": ((2,), storage.arithmetic)},
        {"weights": None},
        tolerance,
    )


@makes("squared_error")
def squared_error(storage: Storage, shape: tuple[int, int], weights: str = "", *, has_bias: bool = False) -> Operation:
    """Return the operation on random outputs and targets."""
    rng = np.random.default_rng(shape)
    outputs, targets = (rng.standard_normal(shape) for _ in range(2))
    return _loss("squared_error", storage, outputs, storage.store(targets), weights, has_bias)


@makes("huber")
def huber(storage: Storage, shape: tuple[int, int], weights: str = "", *, has_bias: bool = False) -> Operation:
    """Return the operation on random outputs and targets; half of the errors are beyond delta, some are delta."""
    rng = np.random.default_rng(shape)
    outputs, targets = (rng.standard_normal(shape) for _ in range(2))
    delta, at_delta = 0.75, rng.uniform(size=shape) < 0.1
    outputs[at_delta], targets[at_delta] = 0.5, np.where(targets[at_delta] > 0, 0.5 + delta, 0.5 - delta)
    operation = _loss("huber", storage, outputs, storage.store(targets), weights, has_bias)
    return _with_equal_gradients(replace(operation, settings={**operation.settings, "delta": delta}))


@makes("quantile")
def quantile(storage: Storage, shape: tuple[int, int], weights: str = "", *, has_bias: bool = False) -> Operation:
    """Return the operation on random outputs and targets, some equal; odd rows have one quantile for all outputs."""
    rng = np.random.default_rng(shape)
    outputs, targets = (rng.standard_normal(shape) for _ in range(2))
    levels = rng.uniform(0.05, 0.95, 1 if shape[0] % 2 else shape[1]).astype(storage.arithmetic)
    targets = np.where(rng.uniform(size=shape) < 0.1, outputs, targets)
    operation = _loss("quantile", storage, outputs, storage.store(targets), weights, has_bias)
    return _with_equal_gradients(replace(operation, given={**operation.given, "levels": levels}))


def _with_equal_gradients(operation: Operation) -> Operation:
    """Return a loss many of whose gradients are equal: the specification's own sum over them rounds the same way."""

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        allowed = dict(operation.tolerance(arguments, expected))
        if "dbias" in allowed:
            gradient = np.abs(expected["doutputs"])
            allowed["dbias"] = allowed["dbias"] + len(gradient) * np.finfo(np.float64).eps / 2 * gradient.sum(axis=0)
        return allowed

    return replace(operation, tolerance=tolerance)


def counted(operation: Operation, storage: Storage, number: int, **more: Any) -> Operation:
    """Return a loss that counts the step ``number``; the rest is for :func:`gpunet.verification.training.tally`."""

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        losses = LOST_UNITS * storage.unit * np.abs(expected["losses"])
        return {**operation.tolerance(arguments, expected), "losses": losses}

    return replace(
        operation,
        given={**operation.given, **tally(storage, number, SCALARS, **more)},
        written={**operation.written, "scalars": ((SCALARS,), storage.arithmetic)},
        tolerance=tolerance,
        changed=(*operation.changed, *COUNTED),
        counts=True,
    )


def _loss(method: str, storage: Storage, outputs: Array, targets: Array, weights: str, has_bias: bool) -> Operation:
    rows, columns = len(outputs), len(outputs[0])
    written = {"doutputs": (outputs.shape, storage.dtype), "loss": ((2,), storage.arithmetic)}
    if has_bias:  # whose sums with the outputs every type has without rounding
        outputs = np.round(8 * outputs).clip(-64, 63) / 8
        written["dbias"] = (columns,), storage.arithmetic
    given = {"outputs": storage.store(outputs), "targets": targets}
    if has_bias:
        eighths = np.random.default_rng(columns).integers(-16, 17, columns)
        given["bias"] = (eighths / 8).astype(storage.arithmetic)
    if weights:
        values = np.zeros(rows) if weights == ZERO else np.random.default_rng(rows).uniform(0.1, 2, rows)
        given["weights"] = values.astype(storage.arithmetic)

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        gradient = np.abs(expected["doutputs"])
        allowed = storage.relative * (gradient + np.nanmax(gradient, initial=0))
        of_bias = allowed.sum(axis=0) + LOST_UNITS * storage.unit * gradient.sum(axis=0)
        return {
            "doutputs": allowed,
            **({"dbias": of_bias} if has_bias else {}),
            "loss": LOST_UNITS * storage.unit * np.abs(expected["loss"]),
        }

    return Operation(
        method,
        given,
        written,
        {} if weights else {"weights": None},
        tolerance,
        changed=("outputs",) if has_bias else (),
    )


LOSSES: dict[Maker[...], tuple[tuple[int, int], ...]] = {
    softmax_cross_entropy: SOFTMAX_SHAPES,
    soft_cross_entropy: SHAPES,
    sigmoid_cross_entropy: SHAPES,
    squared_error: SHAPES,
    huber: SHAPES,
    quantile: SHAPES,
}


def checks(subject: Subject) -> Iterator[Check]:
    """Yield every loss in every type, with and without weights, at every shape and alignment."""
    backend = subject.operations()
    for make, shapes in LOSSES.items():
        for storage in subject.storages:
            variants = Variants((), 1, (storage_type(storage.dtype),))
            units = tuple(Unit(make.method, group) for group in groups_of(make.method, variants))
            check = partial(operation_check, backend, storage.name, units)
            for shape in shapes:
                yield check(make.later(storage, shape), shape_text(shape))
                yield check(make.later(storage, shape, GIVEN), f"{shape_text(shape)}, weights")
            for shape in BIAS_SHAPES:
                yield check(make.later(storage, shape, has_bias=True), f"{shape_text(shape)}, bias")
            yield check(make.later(storage, (37, 20), GIVEN, has_bias=True), "37 x 20, weights, bias")
            for shape in COUNTED_SHAPES:
                operation = make.later(storage, shape, has_bias=True)
                yield check(operation.then(counted, storage, 1), f"{shape_text(shape)}, bias, counted")
            operation = make.later(storage, (37, 20), GIVEN, has_bias=True)
            for number, more in COUNTS:
                words = ", ".join(f"{name} {value}" for name, value in more.items())
                yield check(
                    operation.then(counted, storage, number, **more),
                    f"37 x 20, weights, bias, counted as step {number}, {words}",
                )
            yield check(make.later(storage, (12, 5), ZERO), "12 x 5, all weights zero")
            yield check(make.later(storage, (12, 5), ZERO, has_bias=True), "12 x 5, all weights zero, bias")
            if make is sigmoid_cross_entropy and storage.name in NETWORK_DTYPES:
                for logit, target in itertools.product(EXTREME_LOGITS, (0.0, 0.25, 1.0)):
                    yield check(extreme.later(storage, logit, target), f"logit {logit:g}, target {target:g}")
            operation = make.later(storage, (9, 40), GIVEN)
            for words, offsets in alignments(operation.make(), storage):
                yield check(operation, f"9 x 40, {words}", offsets)
