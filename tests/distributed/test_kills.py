"""A rank that is killed at any moment ends the job; on another number of ranks the run goes on, with the same bits."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import gpunet
from gpunet.distributed import one_rank
from tests.distributed.killed import SHARDS, train
from tests.helpers.mpiexec import needs_mpi, run_under_mpi, start_ranks

SCRIPT = ("-m", "tests.distributed.killed")
# How many ranks there are, which of them dies, where, and the how manieth time it is there.
AT_A_PLACE = [
    (2, 1, "before MPI begins", 1),
    (2, 0, "before the first step", 1),
    (3, 2, "in a step", 1),
    (3, 0, "while the checkpoint is written", 1),
    (2, 1, "in a step", 7),
    (3, 1, "in validation", 3),
    (2, 0, "while the checkpoint is written", 5),
    (4, 3, "after an epoch", 2),
    (2, 0, "in validation", 2),
    (3, 0, "in a step", 8),
    (2, 1, "in validation", 4),
    (1, 0, "while the checkpoint is written", 4),
    (3, 2, "after an epoch", 3),
    (2, 0, "after an epoch", 2),
]
# How many ranks, and which of them is killed some time after all have started.
AT_RANDOM = [(2, 0), (3, 1), (2, 1), (3, 0), (2, 1), (3, 2)]
LONGEST_WAIT = 0.1  # seconds


@pytest.mark.slow
@needs_mpi
def test_twenty_kills(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    for size, rank, place, times in AT_A_PLACE:
        status, output, errors = run_under_mpi(size, *SCRIPT, str(tmp_path), str(rank), place, str(times))
        assert status != 0, (place, output, errors)
        assert "Killed (signal 9)" in output + errors
    generator = np.random.default_rng(0)
    for size, rank in AT_RANDOM:
        process = start_ranks(size, *SCRIPT, str(tmp_path), "0", "nowhere", "0")
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(LONGEST_WAIT * generator.random())
        os.kill(int((tmp_path / f"process {rank}").read_text(encoding="utf-8")), signal.SIGKILL)
        output, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "Killed (signal 9)" in output + errors
    assert len(AT_A_PLACE) + len(AT_RANDOM) == 20
    status, _, errors = run_under_mpi(2, *SCRIPT, str(tmp_path), "0", "nowhere", "0")
    assert (status, errors) == (0, "")
    assert {path.suffix for path in tmp_path.iterdir()} == {"", ".safetensors"}
    found, expected = gpunet.load(tmp_path / "model.safetensors", device="cpu:numpy"), train(one_rank(SHARDS))
    assert found.steps == expected.steps
    np.testing.assert_array_equal(found.flat_parameters, expected.flat_parameters)
    np.testing.assert_array_equal(found.flat_state, expected.flat_state)
