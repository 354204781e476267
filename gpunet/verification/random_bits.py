"""Dropout and samples of binary units, to the bit: the operations of ``dropout.cu`` and ``bernoulli.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from gpunet.backends.cuda.bernoulli import bernoulli_group
from gpunet.backends.cuda.dropout import dropout_group
from gpunet.backends.cuda.instantiation import storage_type
from gpunet.random import Stream, random_words
from gpunet.verification.check import Check, Unit, alignments, operation_check, shape_text
from gpunet.verification.operation import Numbers, Operation, makes
from gpunet.verification.storage import NETWORK_DTYPES, Array, Storage
from gpunet.verification.subject import Subject

SHAPES = ((1, 1), (1, 3), (1, 4), (5, 1), (31, 33), (40, 32), (1023, 5), (1025, 4))
# Seeds, layers and steps whose words lie in one half or in both.
KEYS = (
    (0, 1, 0),
    (2**64 - 1, 1, 1),
    (2**32, 3, 2**32 + 5),
    (2**40 + 3, 2**31, 2**40),
    (7, 2**32 - 1, 2**63 - 1),
)
KEY = (7, 2, 11)
# What the mask of a shard's rows begins with: the ninth element of a batch, one beyond 32 bits, the last that fits.
FIRST_ELEMENTS = (8, 2**33 + 4, 2**34 - 224)
Key = tuple[int, int, int]


@makes("dropout_forward")
def dropout_forward(
    storage: Storage,
    shape: tuple[int, int],
    key: Key = KEY,
    rate: float = 0.3,
    *,
    first: int = 0,
    in_place: bool = False,
    padding: int = 0,
) -> Operation:
    """Return the operation on random numbers; what pads the rows is changed only where it is the input's too."""
    in_memory = shape[0], shape[1] + padding
    x = storage.store(np.random.default_rng(shape).standard_normal(in_memory))
    return Operation(
        "dropout_forward",
        {"x": x, "step": np.array([key[2]], np.int64)},
        {"out": (in_memory, storage.dtype), "mask": (shape, np.uint8)},
        {"rate": rate, "seed": key[0], "layer": key[1], "first": first},
        lambda arguments, expected: {"out": _scaled(storage, expected["out"])},
        shared={"out": "x"} if in_place else {},
    )


@makes("dropout_backward")
def dropout_backward(
    storage: Storage, shape: tuple[int, int], rate: float = 0.4, *, in_place: bool = False, padding: int = 0
) -> Operation:
    """Return the operation on random numbers and a random mask."""
    rng = np.random.default_rng(shape)
    in_memory = shape[0], shape[1] + padding

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        return {"dx": _scaled(storage, expected["dx"])}

    return Operation(
        "dropout_backward",
        {"dy": storage.store(rng.standard_normal(in_memory)), "mask": rng.integers(0, 2, shape, np.uint8)},
        {"dx": (in_memory, storage.dtype)},
        {"rate": rate},
        tolerance,
        shared={"dx": "dy"} if in_place else {},
    )


def _scaled(storage: Storage, expected: Array) -> Array:
    """Return the error of a number times the rounded 1 / (1 - rate); what is dropped is exactly 0."""
    allowed = (storage.rounding + 2 * storage.unit) * np.abs(expected)
    return np.where(expected == 0, 0.0, np.maximum(allowed, storage.smallest))


@makes("sample_bernoulli")
def sample_bernoulli(storage: Storage, shape: tuple[int, int], key: Key = KEY, *, in_place: bool = False) -> Operation:
    """Return the operation on random probabilities, every seventh 0 or 1."""
    probabilities = np.random.default_rng(shape).uniform(0, 1, shape)
    flat = probabilities.reshape(-1)
    flat[::14], flat[7::14] = 0, 1
    return Operation(
        "sample_bernoulli",
        {"probabilities": storage.store(probabilities), "step": np.array([key[2]], np.int64)},
        {"out": (shape, storage.dtype)},
        {"seed": key[0], "layer": key[1]},
        shared={"out": "probabilities"} if in_place else {},
    )


@makes("sample_bernoulli")
def at_the_edge(storage: Storage, side: int) -> Operation:
    """Return ``sample_bernoulli`` on probabilities at (0), below (-1) and above (1) each element's own word over 2^32.

    A probability w / 2^32 for the word w is the first that does not give 1; the next number above does.
    """
    seed, layer, step = KEY
    words = random_words(Stream.SAMPLING, 0, 4096, seed, layer, step)
    edge = (words / 2.0**32).astype(storage.dtype)
    number = storage.dtype.type
    return _given(storage, edge if side == 0 else np.nextafter(edge, number(max(side, 0))))


@makes("sample_bernoulli")
def odd(storage: Storage) -> Operation:
    """Return ``sample_bernoulli`` on numbers that are, or hardly are, no probabilities."""
    number = storage.dtype.type
    smallest, largest = np.finfo(storage.dtype).smallest_subnormal, np.nextafter(number(1), number(0))
    values = [0.0, -0.0, -1.0, smallest, largest, 1.0, 1.5, np.inf, -np.inf, np.nan, 2.0**-32]
    return _given(storage, np.repeat(np.array(values, storage.dtype), 44))


def _given(storage: Storage, probabilities: Array) -> Operation:
    return Operation(
        "sample_bernoulli",
        {"probabilities": probabilities.reshape(-1, 4), "step": np.array([KEY[2]], np.int64)},
        {"out": ((probabilities.size // 4, 4), storage.dtype)},
        {"seed": KEY[0], "layer": KEY[1]},
    )


def checks(subject: Subject) -> Iterator[Check]:
    """Yield every type, shape, key and alignment."""
    backend = subject.operations()
    for storage in subject.storages:
        name = storage_type(storage.dtype)
        dropout = partial(operation_check, backend, storage.name, (Unit("dropout", dropout_group(name)),))
        bernoulli = partial(operation_check, backend, storage.name, (Unit("bernoulli", bernoulli_group(name)),))
        makers = ((dropout_forward, dropout), (dropout_backward, dropout), (sample_bernoulli, bernoulli))
        for make, check in makers:
            for shape in SHAPES:
                yield check(make.later(storage, shape), shape_text(shape))
            yield check(make.later(storage, (21, 10), in_place=True), "21 x 10, in place")
            operation = make.later(storage, (16, 18))
            for words, offsets in alignments(operation.make(), storage):
                yield check(operation, f"16 x 18, {words}", offsets)
        if storage.dtype.itemsize == 2:
            for make in (dropout_forward, dropout_backward):
                for columns, padding in ((13, 3), (20, 4), (10, 6)):
                    operation = make.later(storage, (19, columns), in_place=True, padding=padding)
                    yield dropout(operation, f"19 x {columns} of {columns + padding}")
        if storage.name in NETWORK_DTYPES:
            for side, words in ((-1, "below"), (0, "at"), (1, "above")):
                yield bernoulli(at_the_edge.later(storage, side), f"probabilities {words} the words")
            yield bernoulli(odd.later(storage), "0, 1, NaN, infinities and others")
        for first in FIRST_ELEMENTS:
            yield dropout(dropout_forward.later(storage, (17, 13), first=first), f"17 x 13, from element {first}")
        for key in KEYS:
            detail = "17 x 13, seed {}, layer {}, step {}".format(*key)
            yield dropout(dropout_forward.later(storage, (17, 13), key, 0.5), detail)
            yield bernoulli(sample_bernoulli.later(storage, (17, 13), key), detail)
