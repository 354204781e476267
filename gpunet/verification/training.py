"""What training keeps track of: the operations of ``training.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from gpunet.backends.cuda.instantiation import PARAMETER_TYPES, storage_type
from gpunet.backends.cuda.training import training_group
from gpunet.verification.check import Check, Unit, alignments, operation_check
from gpunet.verification.operation import Numbers, Operation, Tolerance, makes
from gpunet.verification.optimizer import SIZES
from gpunet.verification.storage import Storage
from gpunet.verification.subject import Subject

STEPS, EVERY = 40, 16
COUNTED = "losses", "place", "steps"  # what a count changes


@makes("count_step")
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


@makes("keep_weights")
def keep_weights(storage: Storage, size: int, number: int, windows: int = 0, before: float = 0.5) -> Operation:
    """Return the operation at the step ``number`` of an epoch, after a loss of ``before``."""
    rng = np.random.default_rng(size)
    vectors = {
        "kept": storage.store(rng.standard_normal((2, size))),
        "source": storage.store(rng.standard_normal(size)),
    }
    return Operation("keep_weights", vectors | _place(number, before, windows), {}, {"every": EVERY}, changed=("kept",))


@makes("summarize")
def summarize(storage: Storage, size: int, weights: int, wrong: tuple[float, ...] = ()) -> Operation:
    """Return the operation on random numbers, of which the last ones are ``wrong``."""
    vector = storage.store(np.random.default_rng(size).standard_normal(size))
    vector[size - len(wrong) :] = wrong

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        return {"out": [max(weights, 1) * storage.unit * expected["out"][0], 0]}

    return Operation("summarize", {"vector": vector}, {"out": ((2,), np.float64)}, {"weight_count": weights}, tolerance)


@makes("accumulate_gradients")
def accumulate_gradients(
    storage: Storage,
    size: int,
    *,
    before: float = 20.0,
    weight: float = 8.0,
    is_first: bool = False,
    is_last: bool = False,
    loss: float = 1.5,
) -> Operation:
    """Return the operation on random numbers, after batches whose weights sum up to ``before``."""
    begins = is_first or before == 0
    given = _vectors(storage, size, ("gradients", "accumulated")) | {
        "loss": np.array([loss, weight], storage.dtype),
        "mean": np.array([0.75, before], storage.dtype),
    }
    if begins:  # what was there does not matter
        given["accumulated"][...] = np.nan
    changed = "mean", "gradients" if is_last else "accumulated"
    settings = {"is_first": is_first, "is_last": is_last}
    return Operation("accumulate_gradients", given, {}, settings, _rounded(storage, not begins), changed)


@makes("average_weights")
def average_weights(
    storage: Storage, size: int, state: int, *, updates: int = 5, decay: float = 0.75, loss: float = 1.5
) -> Operation:
    """Return the operation on random numbers, after some updates."""
    given = (
        _vectors(storage, size, ("parameters", "averaged_parameters"))
        | _vectors(storage, state, ("state", "averaged_state"))
        | {"updates": np.array([updates], np.int64), "loss": np.array([loss, 20], storage.dtype)}
    )
    changed = "averaged_parameters", "averaged_state", "updates"
    if not updates:
        for name in changed[:2]:
            given[name][...] = np.nan
    tolerance = _rounded(storage, updates > 0 and np.isfinite(loss))
    return Operation("average_weights", given, {}, {"decay": decay}, tolerance, changed)


def _vectors(storage: Storage, size: int, names: tuple[str, ...]) -> dict[str, Any]:
    rng = np.random.default_rng(size)
    return {name: storage.store(rng.standard_normal(size)) for name in names}


def _rounded(storage: Storage, is_computed: bool) -> Tolerance:
    """Return how far means may be off: not at all where they are copies."""

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        computed = {name: values for name, values in expected.items() if is_computed and name != "updates"}
        return {name: 8 * storage.unit * (1 + np.abs(values)) for name, values in computed.items()}

    return tolerance


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
            yield check(count_step.later(storage, number, scalars), f"step {number}, {scalars} numbers")
            yield check(count_step.later(storage, number, scalars, skipped=number), f"step {number}, as many skipped")
            for lost in (np.nan, np.inf, -np.inf):
                yield check(count_step.later(storage, number, scalars, lost), f"step {number}, after a loss of {lost}")
                yield check(count_step.later(storage, number, scalars, loss=lost), f"step {number}, loss {lost}")
        for number, windows in ((0, 0), (0, 5), (EVERY, 0), (2 * EVERY, 3)):
            yield check(keep_weights.later(storage, 1025, number, windows), f"step {number}, after {windows} windows")
            yield check(
                keep_weights.later(storage, 1025, number, windows, np.nan), f"step {number}, after a loss of nan"
            )
        for size, weights in SIZES:
            yield check(keep_weights.later(storage, size, 0), f"{size} parameters")
            yield check(summarize.later(storage, size, weights), f"{size} parameters, {weights} weights")
        for wrong in ((np.nan,), (np.inf, -np.inf, np.nan)):
            yield check(summarize.later(storage, 300, 100, wrong), f"300 parameters, {len(wrong)} not finite")
        for first, last in ((True, False), (False, False), (False, True), (True, True)):
            words = f"{'first' if first else 'later'} batch{', the last' if last else ''}"
            for size, _ in SIZES:
                accumulated = accumulate_gradients.later(storage, size, is_first=first, is_last=last)
                yield check(accumulated, f"{size} parameters, {words}")
        yield check(accumulate_gradients.later(storage, 1025, before=0, weight=0), "1025 parameters, no weights yet")
        yield check(accumulate_gradients.later(storage, 1025, weight=0), "1025 parameters, a batch without weights")
        yield check(accumulate_gradients.later(storage, 1025, loss=np.nan), "1025 parameters, loss nan")
        for (size, _), state in zip(SIZES, (0, 1, 70, 3, 0, 64, 2, 1025, 9), strict=True):
            for updates in (0, 5):
                words = f"{size} parameters, {state} averages, {updates} updates before"
                yield check(average_weights.later(storage, size, state, updates=updates), words)
        for lost in (np.nan, np.inf):
            yield check(average_weights.later(storage, 300, 20, loss=lost), f"300 parameters, loss {lost}")
        for operation in (
            keep_weights.later(storage, 1024, 0),
            summarize.later(storage, 1025, 600),
            accumulate_gradients.later(storage, 1025, is_last=True),
            average_weights.later(storage, 1025, 33),
        ):
            for words, offsets in alignments(operation.make(), storage):
                yield check(operation, f"{words}", offsets)
