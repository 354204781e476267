"""How often ranks exchange something in a step, how much, and what they compute meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends import NumpyBackend
from gpunet.distributed import Ranks, ordered_sum
from gpunet.distributed import sharded_backend as module
from gpunet.distributed.sharded_step import ShardedStep
from gpunet.distributed.shards import Partition
from tests.helpers.mirrored_ranks import FirstRank
from tests.helpers.threaded_ranks import run_ranks

ROWS, SIZES = 40, [7, 11, 9, 5, 3]


class Recorded(NumpyBackend):
    """Notes its products: of a forward pass, for the gradient of weights, and for that of inputs."""

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log

    def gemm(
        self, a: Any, b: Any, out: Any, transpose_a: bool = False, transpose_b: bool = False, accumulate: bool = False
    ) -> None:
        self.log.append("weights" if transpose_a else "forward" if transpose_b else "inputs")
        super().gemm(a, b, out, transpose_a, transpose_b, accumulate)


def one_step(size: int, shards: int | None, **arguments: Any) -> tuple[list[str], list[int]]:
    """Return what a step of the first of several ranks does, in order, and the bytes that each exchange is given."""
    log: list[str] = []
    network = gpunet.Network(SIZES, device=Recorded(log), seed=2, dtype="float32", **arguments)
    communicator = FirstRank(log, size)
    partition = Partition(shards or size, 0, size)
    step = ShardedStep(network, communicator, partition, is_ordered=shards is not None)
    own = partition.rows(ROWS)
    X = np.random.default_rng(1).standard_normal((ROWS, SIZES[0])).astype(np.float32)[own]
    log.clear()
    step.differentiate(X, np.zeros(len(X), np.int32), None, rows=ROWS)
    return log, communicator.mirror.bytes


def starts(log: list[str]) -> list[str]:
    return [entry for entry in log if entry.startswith("all_")]


LAYERS = len(SIZES) - 1


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("shards", [4, 8, None])
def test_one_for_the_gradient_and_two_for_each_batch_norm(size: int, shards: int | None) -> None:
    log, sent = one_step(size, shards)
    norms = LAYERS - 1
    gradient = "all_reduce" if shards is None else "all_gather"
    assert starts(log) == ["all_gather"] * norms * 2 + [gradient]
    each = (shards or size) // size
    widths = SIZES[1:-1]
    assert sent[:-1] == [each * 2 * width * 4 for width in [*widths, *reversed(widths)]]


@pytest.mark.parametrize("shards", [4, None])
def test_without_batch_norm_one_alone(shards: int | None) -> None:
    log, sent = one_step(2, shards, batch_norm=False)
    assert len(starts(log)) == 1
    parameters = gpunet.Network(SIZES, batch_norm=False, device="cpu").parameter_count
    assert sent == [4 * (parameters + 2)]


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("shards", [2, 4, None])
def test_large_gradients_travel_while_the_backward_pass_goes_on(
    shards: int | None, batch_norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the last layers first: each is on its way, and the one before in its second exchange, if it has one."""
    monkeypatch.setattr(ordered_sum, "ALL_TO_ONE_BYTES", 0)
    monkeypatch.setattr(module, "BUCKET_BYTES", 4 * 16)  # the weights of a layer, with what is small before them
    log, _ = one_step(2, shards, batch_norm=batch_norm)
    backward = log[len(log) - log[::-1].index("forward") :]
    first = "all_reduce" if shards is None else "all_to_all"
    begun = [place for place, entry in enumerate(backward) if entry == first]
    products = [place for place, entry in enumerate(backward) if entry == "weights"]
    each = len(products) // LAYERS
    assert len(begun) == LAYERS
    for number, place in enumerate(begun):
        assert products[each * (number + 1) - 1] == place - 1
        assert number + 1 == LAYERS or place < products[each * (number + 1)]
    ends = [place for place, entry in enumerate(backward) if entry == f"end of {first}"]
    if shards is None:
        assert ends[0] > products[-1]
        return
    for number, place in enumerate(ends[: LAYERS - 1]):
        assert begun[number + 1] == place - 1
        assert backward[place + 1] == "all_gather"
    assert backward[ends[-1] + 1 :] == ["all_gather", *["end of all_gather"] * LAYERS]


@pytest.mark.parametrize("shards", [12, None])
def test_as_many_on_any_number_of_ranks_and_in_every_step(shards: int | None) -> None:
    X = np.random.default_rng(1).standard_normal((100, SIZES[0])).astype(np.float32)
    y = np.arange(100) % 3

    def run(ranks: Ranks) -> tuple[int, list[str]]:
        network = gpunet.Network(SIZES, device=NumpyBackend(), seed=2)
        gpunet.fit(network, X, y, epochs=2, batch_size=30, distributed=ranks)
        return network.steps, ranks.communicator.calls  # type: ignore[attr-defined]

    for size in (2, 3, 4):
        for steps, calls in run_ranks(size, shards, run):
            assert len(calls) == steps * (2 * (LAYERS - 1) + 1)
