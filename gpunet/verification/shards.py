"""Sums over a batch in shards: the operations of ``shards.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from gpunet.backends.cuda.instantiation import storage_type
from gpunet.backends.cuda.shards import shards_group
from gpunet.verification.check import Check, Unit, alignments, operation_check, shape_text
from gpunet.verification.operation import Numbers, Operation, makes
from gpunet.verification.storage import NETWORK_DTYPES, Storage
from gpunet.verification.subject import Subject

SIZES = (1, 3, 4, 1023, 40_001)
# Levels of nodes in the order of the shards: one; those of 2 to 8 ranks, whose shards are or are not a power of two;
# a rank's own shards, from an odd one on; so deep a stack as 2^16 shards need.
LEVELS = (
    (3,),
    (0, 0),
    (1, 1, 1),
    (0,) * 8,
    (0, 1, 1, 0),
    (-1, 1, -1, 0),
    (2, 0, 0, 1, 1),
    (*range(16), 16, *range(15, -1, -1)),
)


@makes("weigh_shard")
def weigh_shard(storage: Storage, shape: tuple[int, int], weight: float = 7.0, *, has_bias: bool = True) -> Operation:
    """Return the operation on a random gradient."""
    rng = np.random.default_rng(shape)
    given = {"doutputs": storage.store(rng.standard_normal(shape)), "loss": np.array([1.5, weight], storage.arithmetic)}
    if has_bias:
        given["dbias"] = rng.standard_normal(shape[1]).astype(storage.arithmetic)

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        allowed = (storage.rounding + 2 * storage.unit) * np.abs(expected["doutputs"])
        rest = {name: 2 * storage.unit * np.abs(expected[name]) for name in ("sums", "dbias") if name in expected}
        return {"doutputs": np.maximum(allowed, storage.smallest), **rest}

    return Operation(
        "weigh_shard",
        given,
        {"sums": ((2,), storage.arithmetic)},
        {"rows": 3 * shape[0]} | ({} if has_bias else {"dbias": None}),
        tolerance,
        changed=("doutputs", *(["dbias"] if has_bias else [])),
    )


@makes("sum_shards")
def sum_shards(storage: Storage, size: int, levels: tuple[int, ...]) -> Operation:
    """Return the operation on random vectors."""
    parts = storage.store(np.random.default_rng(size).standard_normal((len(levels), size)))

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        return {"out": storage.rounding * len(levels) * np.abs(arguments["parts"]).sum(axis=0)}

    return Operation(
        "sum_shards",
        {"parts": parts, "levels": np.array(levels, np.int32)},
        {"out": ((size,), storage.dtype)},
        {},
        tolerance,
    )


@makes("divide_sums")
def divide_sums(storage: Storage, size: int, weight: float) -> Operation:
    """Return the operation on random gradients of 20 rows."""

    def tolerance(arguments: Numbers, expected: Numbers) -> dict[str, Any]:
        return {name: 4 * storage.unit * np.abs(expected[name]) for name in ("gradients", "loss")}

    given = {
        "gradients": storage.store(np.random.default_rng(size).standard_normal(size)),
        "sums": np.array([3, weight], storage.dtype),
    }
    written = {"loss": ((2,), storage.dtype)}
    return Operation("divide_sums", given, written, {"rows": 20}, tolerance, changed=("gradients",))


def checks(subject: Subject) -> Iterator[Check]:
    """Yield every type, size and alignment; trees, and weights of 0 and of all rows."""
    for storage in subject.storages:
        name = storage_type(storage.dtype)
        units = (Unit("shards", shards_group(name)),)
        check = partial(operation_check, subject.operations(), storage.name, units)
        for shape in ((1, 1), (31, 33), (1023, 5), (16, 36)):
            yield check(weigh_shard.later(storage, shape), shape_text(shape))
        yield check(weigh_shard.later(storage, (16, 36), 0.0), "16 x 36, no weight")
        yield check(weigh_shard.later(storage, (16, 36), has_bias=False), "16 x 36, without bias")
        operations = [weigh_shard.later(storage, (16, 36))]
        if storage.name in NETWORK_DTYPES:
            for size in SIZES:
                yield check(sum_shards.later(storage, size, (0, 0, 0)), f"3 vectors of {size}")
                yield check(divide_sums.later(storage, size, 7.5), f"{size} gradients")
            for levels in LEVELS:
                yield check(sum_shards.later(storage, 64, levels), f"levels {' '.join(map(str, levels))}")
            for weight, words in ((0, "no weight"), (20, "a weight of 1 for each row")):
                yield check(divide_sums.later(storage, 1023, weight), f"1023 gradients, {words}")
            operations += [sum_shards.later(storage, 1024, (0, 0, 0)), divide_sums.later(storage, 1025, 7.5)]
        for operation in operations:
            for words, offsets in alignments(operation.make(), storage):
                yield check(operation, words, offsets)
