"""What training keeps track of: the operations of ``training.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from gpunet.backends.cuda.instantiation import PARAMETER_TYPES, storage_type
from gpunet.backends.cuda.training import training_group
from gpunet.verification.check import Check, Unit, alignments, operation_check
from gpunet.verification.operation import Numbers, Operation
from gpunet.verification.optimizer import SIZES
from gpunet.verification.storage import Storage
from gpunet.verification.subject import Subject

STEPS, EVERY = 40, 16
COUNTED = "losses", "place", "steps"  # what a count changes


def count_step(
    storage: Storage,
    number: int,
    scalars: int,
    before: float = 0.5,
    loss: float = 1.5,
    skipped: int | None = None,
) -> Operation:
    """Return the operation on the step ``number`` of an epoch, after a loss of ``before``."""
    given = {"loss": np.array([loss, 20], storage.dtype), **tally(storage, number, scalars, before, skipped)}
    written = {"scalars": ((scalars,), storage.dtype)}
    return Operation("count_step", given, written, {"rows": 20}, changed=("loss", *COUNTED))


def tally(
    storage: Storage, number: int, scalars: int, before: float = 0.5, skipped: int | None = None
) -> dict[str, Any]:
    """Return what is given of a tally, at the step ``number`` of an epoch, after a loss of ``before``."""
    return (
        _place(number, before)
        | {
            "table": np.random.default_rng(scalars).uniform(0, 1, (STEPS, scalars)).astype(storage.arithmetic),
            "steps": np.array([2**40], np.int64),
        }
        | ({} if skipped is None else {"skipped": np.array([skipped], np.float32)})
    )


def keep_weights(storage: Storage, size: int, number: int, windows: int = 0, before: float = 0.5) -> Operation:
    """Return the operation at the step ``number`` of an epoch, after a loss of ``before``."""
    rng = np.random.default_rng(size)
    vectors = {
        "kept": storage.store(rng.standard_normal((2, size))),
        "source": storage.store(rng.standard_normal(size)),
    }
    return Operation("keep_weights", vectors | _place(number, before, windows), {}, {"every": EVERY}, changed=("kept",))


def summarize(storage: Storage, size: int, weights: int, wrong: tuple[float, ...] = ()) -> Operation:
    """Return the operation on random numbers, of which the last ones are ``wrong``."""
    vector = storage.store(np.random.default_rng(size).standard_normal(size))
    vector[size - len(wrong) :] = wrong

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        return {"out": [max(weights, 1) * storage.unit * expected["out"][0], 0]}

    return Operation("summarize", {"vector": vector}, {"out": ((2,), np.float64)}, {"weight_count": weights}, tolerance)


def _place(number: int, before: float, windows: int = 0) -> dict[str, Any]:
    losses = np.random.default_rng(number).uniform(0, 1, (STEPS, 2))
    if number:
        losses[number - 1] = before, 20
    return {"place": np.array([number, 20 * number, windows], np.int64), "losses": losses}


def checks(subject: Subject) -> Iterator[Check]:
    """Yield every operation in float32 and float64: sizes, alignments, places in an epoch, losses that are lost."""
    backend = subject.operations()
    for storage in subject.storages:
        name = storage_type(storage.dtype)
        if name not in PARAMETER_TYPES:
            continue
        check = partial(operation_check, backend, storage.name, (Unit("training", training_group(name)),))
        for number, scalars in ((0, 1), (1, 3), (STEPS - 1, 3)):
            yield check(count_step(storage, number, scalars), f"step {number}, {scalars} numbers")
            yield check(count_step(storage, number, scalars, skipped=number), f"step {number}, as many skipped")
            for lost in (np.nan, np.inf, -np.inf):
                yield check(count_step(storage, number, scalars, lost), f"step {number}, after a loss of {lost}")
                yield check(count_step(storage, number, scalars, loss=lost), f"step {number}, loss {lost}")
        for number, windows in ((0, 0), (0, 5), (EVERY, 0), (2 * EVERY, 3)):
            yield check(keep_weights(storage, 1025, number, windows), f"step {number}, after {windows} windows")
            yield check(keep_weights(storage, 1025, number, windows, np.nan), f"step {number}, after a loss of nan")
        for size, weights in SIZES:
            yield check(keep_weights(storage, size, 0), f"{size} parameters")
            yield check(summarize(storage, size, weights), f"{size} parameters, {weights} weights")
        for wrong in ((np.nan,), (np.inf, -np.inf, np.nan)):
            yield check(summarize(storage, 300, 100, wrong), f"300 parameters, {len(wrong)} not finite")
        for operation in (keep_weights(storage, 1024, 0), summarize(storage, 1025, 600)):
            for words, offsets in alignments(operation, storage):
                yield check(operation, f"{words}", offsets)
