"""How many labels are predicted right: the operations of ``score.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from gpunet.backends.cuda.instantiation import storage_type
from gpunet.backends.cuda.score import score_group
from gpunet.verification.check import Check, Unit, alignments, operation_check, shape_text
from gpunet.verification.operation import Numbers, Operation, makes
from gpunet.verification.storage import Array, Storage
from gpunet.verification.subject import Subject

SHAPES = ((1, 1), (1, 2), (7, 10), (130, 3), (33, 31), (33, 32), (33, 33), (5, 100), (1100, 10))


@makes("score_classes")
def score_classes(storage: Storage, shape: tuple[int, int], is_weighted: bool = False) -> Operation:
    """Return the operation on outputs of few values, so that some are equal, and some that are not finite."""
    rng = np.random.default_rng(shape)
    outputs = rng.integers(-2, 3, shape).astype(float)
    outputs[rng.uniform(size=shape) < 0.02] = np.nan
    outputs[rng.uniform(size=shape) < 0.02] = np.inf
    labels = np.where(rng.uniform(size=shape[0]) < 0.5, outputs.argmax(axis=1), rng.integers(0, shape[1], shape[0]))
    return _score("score_classes", storage, outputs, {"labels": labels.astype(np.int32)}, is_weighted)


@makes("score_soft_classes")
def score_soft_classes(storage: Storage, shape: tuple[int, int], is_weighted: bool = False) -> Operation:
    """Return the operation on outputs of few values, some not finite, and probabilities of few values."""
    rng = np.random.default_rng(shape)
    outputs = rng.integers(-2, 3, shape).astype(float)
    outputs[rng.uniform(size=shape) < 0.02] = np.nan
    targets = rng.integers(0, 4, shape) / 4
    same = rng.uniform(size=shape[0]) < 0.5
    targets[same] = np.nan_to_num(outputs, nan=9)[same]
    return _score("score_soft_classes", storage, outputs, {"targets": storage.store(targets)}, is_weighted)


@makes("score_switches")
def score_switches(storage: Storage, shape: tuple[int, int], is_weighted: bool = False) -> Operation:
    """Return the operation on outputs and targets of few values: 0 and 1/2 are among them."""
    rng = np.random.default_rng(shape)
    targets = storage.store(rng.integers(0, 5, shape) / 4)
    return _score("score_switches", storage, rng.integers(-1, 2, shape) / 2, {"targets": targets}, is_weighted)


def _score(method: str, storage: Storage, outputs: Array, given: dict[str, Array], is_weighted: bool) -> Operation:
    given = {"outputs": storage.store(outputs), **given}
    if is_weighted:
        given["weights"] = np.random.default_rng(len(outputs)).uniform(0.1, 2, len(outputs)).astype(storage.arithmetic)

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        return {"out": 1e-12 * abs(expected["out"])}

    return Operation(method, given, {"out": ((1,), np.float64)}, {} if is_weighted else {"weights": None}, tolerance)


def checks(subject: Subject) -> Iterator[Check]:
    """Yield all in every type, with and without weights, at every shape and alignment."""
    backend = subject.operations()
    for make in (score_classes, score_soft_classes, score_switches):
        for storage in subject.storages:
            units = (Unit("score", score_group(storage_type(storage.dtype))),)
            check = partial(operation_check, backend, storage.name, units)
            for shape in SHAPES:
                yield check(make.later(storage, shape), shape_text(shape))
                yield check(make.later(storage, shape, True), f"{shape_text(shape)}, weights")
            operation = make.later(storage, (9, 40), True)
            for words, offsets in alignments(operation.make(), storage):
                yield check(operation, f"9 x 40, {words}", offsets)
