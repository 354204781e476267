"""Steps of several ranks that the compiled backend records, what they say to each other included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cpu import CpuBackend
from gpunet.distributed import Ranks
from tests.helpers.threaded_ranks import run_ranks


def train(ranks: Ranks, records: bool, widths: list[int]) -> tuple[Any, list[str], int]:
    """Return weights and state, what the rank has said, and how much has been recorded."""
    rng, backend, recorded = np.random.default_rng(0), CpuBackend(), []
    backend.records_calls = records
    capture = backend.capture
    backend.capture = lambda step: (recorded.append(step), capture(step))[1]  # type: ignore[method-assign]
    X, y = rng.standard_normal((200, widths[0])), rng.integers(0, 3, 200)
    network = gpunet.Network([*widths, 3], device=backend, dropout=0.2, seed=1)
    gpunet.fit(network, X, y, epochs=6, batch_size=48, optimizer=gpunet.SGD(0.1, momentum=0.9), distributed=ranks)
    communicator: Any = ranks.communicator
    return np.concatenate([network.flat_parameters, network.flat_state]), communicator.calls, len(recorded)


@pytest.mark.parametrize("shards", [6, None])
@pytest.mark.parametrize("widths", [[7, 9], [7, 300, 300]])  # one exchange of gradients, and two of them with parts
def test_recorded_steps_say_the_same_and_have_the_same_bits(widths: list[int], shards: int | None) -> None:
    called = run_ranks(3, shards, lambda ranks: train(ranks, False, widths))
    recorded = run_ranks(3, shards, lambda ranks: train(ranks, True, widths))
    for (weights, said, few), (others, said_too, some) in zip(called, recorded, strict=True):
        np.testing.assert_array_equal(others, weights)
        assert some > few
        assert ("all_reduce" in said, "all_to_all" in said) == (shards is None, shards == 6 and 300 in widths)
        assert said_too == said
