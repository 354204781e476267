"""The model of a step on several GPUs: against bounds, against numbers by hand, and in its table."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet
from benchmarks.report import scaling
from benchmarks.report.roofline import parameter_count
from benchmarks.report.scaling import (
    CARD,
    NVLINK,
    RANKS,
    VARIANTS,
    Variant,
    all_gather,
    all_reduce,
    all_to_all,
    one_gpu,
    step,
)
from benchmarks.report.sections import section
from gpunet.backends import NumpyBackend
from gpunet.distributed.sharded_step import ShardedStep
from gpunet.distributed.shards import Partition
from gpunet.verification.configurations import CONFIGURATIONS
from tests.helpers.mirrored_ranks import FirstRank

EVERY = [(label, ranks, name) for label in CONFIGURATIONS for ranks in RANKS for name in VARIANTS]


def test_exchanges_by_hand() -> None:
    """8 ranks: 7 steps of 0.47 us after 3.6; 64: 7 by the network of 2.7, and 56 of 0.85."""
    assert all_gather(0, 8) == pytest.approx(6.89e-6)
    assert all_gather(0, 64) == pytest.approx(3.6e-6 + 7 * 2.7e-6 + 56 * 0.846e-6)
    assert all_gather(1e6, 8) == pytest.approx(6.89e-6 + 7e6 / NVLINK)
    assert all_reduce(0, 8) == pytest.approx(3.6e-6 + 14 * 0.47e-6)  # a ring; a tree takes 11.7
    assert all_reduce(0, 64) == pytest.approx(4.4e-6 + 2 * (7 * 0.936e-6 + 3 * 5e-6))  # a tree; a ring takes 136
    assert all_reduce(1e9, 8) == pytest.approx(1.75e9 / 480e9, rel=0.01)
    assert all_to_all(1e9, 8) == pytest.approx(7 / 8 * 1e9 / NVLINK, rel=0.01)
    assert all_to_all(1e9, 64) == pytest.approx(7 / 8 * 1e9 / CARD, rel=0.01)
    assert all_gather(512, 2, by_host=True) == pytest.approx(20e-6 + 2.3e-6, rel=0.01)


@pytest.mark.parametrize("exchange", [all_gather, all_to_all, all_reduce])
def test_more_takes_longer(exchange) -> None:
    for ranks in (2, 8, 16, 64):
        times = [exchange(size, ranks) for size in (0, 1, 1e3, 1e6, 1e9)]
        assert times == sorted(times)
        assert exchange(1e5, 2 * ranks) > exchange(1e5, ranks) > 0


@pytest.mark.parametrize(("label", "ranks", "name"), EVERY)
def test_no_step_is_faster_than_its_parts(label: str, ranks: int, name: str) -> None:
    batch, variant = CONFIGURATIONS[label][0], VARIANTS[name]
    strong, weak = (step(label, rows, ranks, variant) for rows in (batch // ranks, batch))
    assert strong.seconds > one_gpu(label, batch // ranks) > 0
    assert weak.seconds > one_gpu(label)
    assert weak.computed >= strong.computed
    model = scaling.Model(scaling.GPUS[0], label, scaling.PRECISION)
    widths = model.case.sizes[1:-1]
    assert weak.waited > sum(2 * all_gather(8 * width, ranks, by_host=variant.by_host) for width in widths)
    bucket = min(4 * parameter_count(model.case), scaling.BUCKET_BYTES / 2)
    if not variant.by_host:  # all of the gradient but the last bucket has the backward pass to travel in
        assert weak.waited > all_gather(bucket / ranks, ranks)


def test_what_variants_change() -> None:
    for label, (batch, *_) in CONFIGURATIONS.items():
        for ranks in RANKS:
            found = {name: step(label, batch, ranks, variant).seconds for name, variant in VARIANTS.items()}
            assert found["were it recorded"] <= found["as it is"]
            assert found["plain sums"] <= found["as it is"]
    large = step("c", 8192, 8, Variant(by_host=True))
    assert large.waited > 8 * parameter_count(scaling.Model(scaling.GPUS[0], "c", "tf32").case) / scaling.COPY_RATE


def test_the_section_says_that_nothing_is_measured() -> None:
    text = section("scaling", [])
    assert "none of them measured" in text
    assert "8 to a machine" in text
    assert text.count("\n| ") == 1 + len(CONFIGURATIONS) * len(VARIANTS) + 1


@pytest.mark.parametrize("hidden", [1, 2, 4])
def test_the_nodes_that_shards_add_are_counted(hidden: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two ranks calls its backend that much oftener than a process alone, for one bucket of gradients."""
    counted: list[str] = []
    kept = ("empty", "zeros", "asarray", "to_numpy", "array_module", "beside", "call")  # no work of the device
    for name, operation in inspect.getmembers(NumpyBackend, inspect.isfunction):
        if not name.startswith("_") and name not in kept:
            monkeypatch.setattr(NumpyBackend, name, counting(counted, name, operation))
    network = gpunet.Network([7, *[11] * hidden, 3], device=NumpyBackend(), seed=1)
    X, y = np.zeros((40, 7), np.float32), np.zeros(40, np.int32)
    sharded = ShardedStep(network, FirstRank([], 2), Partition(2, 0, 2))
    counted.clear()
    network.differentiate(X, y, None)
    alone = len(counted)
    counted.clear()
    sharded.differentiate(X[:24], y[:24], None, rows=40)
    assert len(counted) - alone == scaling.NODES_PER_HIDDEN * hidden + scaling.OTHER_NODES + 1


def counting(counted: list[str], name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operation that notes its calls, but for those that another one makes."""

    @functools.wraps(operation)
    def noting(*arguments: Any, **named: Any) -> Any:
        before = len(counted)
        result = operation(*arguments, **named)
        counted[before:] = [name]
        return result

    return noting
