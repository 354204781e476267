"""Steps of several ranks that the compiled backend records, what they say to each other included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends import Backend
from gpunet.backends.by_work import CpuByWork
from gpunet.backends.cpu import CpuBackend
from gpunet.distributed import Ranks
from tests.helpers.threaded_ranks import run_ranks


class Unrecorded(CpuBackend):
    records_calls = False


def train(ranks: Ranks, backend: Backend, widths: list[int]) -> tuple[Any, list[str]]:
    """Return weights and state, and what the rank has said."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, widths[0])), rng.integers(0, 3, 200)
    network = gpunet.Network([*widths, 3], device=backend, dropout=0.2, seed=1)
    gpunet.fit(network, X, y, epochs=6, batch_size=48, optimizer=gpunet.SGD(0.1, momentum=0.9), distributed=ranks)
    communicator: Any = ranks.communicator
    return np.concatenate([network.flat_parameters, network.flat_state]), communicator.calls


@pytest.mark.parametrize("make", [CpuBackend, CpuByWork])
@pytest.mark.parametrize("shards", [6, None])
@pytest.mark.parametrize("widths", [[7, 9], [7, 300, 300]])  # one exchange of gradients, and two of them with parts
def test_recorded_steps_say_the_same_and_have_the_same_bits(
    widths: list[int], shards: int | None, make: Callable[[], Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpunet.backends.by_work.WORTH_COMPILING", 0)
    captures, capture = [], CpuBackend.capture

    def counted(self: CpuBackend, step: Callable[[], None]) -> Callable[[], None]:
        captures.append(step)
        return capture(self, step)

    monkeypatch.setattr(CpuBackend, "capture", counted)
    expected = run_ranks(3, shards, lambda ranks: train(ranks, Unrecorded(), widths))
    few = len(captures)
    found = run_ranks(3, shards, lambda ranks: train(ranks, make(), widths))
    assert len(captures) > 2 * few
    for (weights, said), (others, said_too) in zip(expected, found, strict=True):
        np.testing.assert_array_equal(others, weights)
        assert ("all_reduce" in said, "all_to_all" in said) == (shards is None, shards == 6 and 300 in widths)
        assert said_too == said
