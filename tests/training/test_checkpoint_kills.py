"""A run that is killed at any moment, again and again, ends as one that nobody disturbed: bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import gpunet
from tests.helpers.cli import environment

# One in a run of the tests; more with GPUNET_KILLED_RUNS=36.
RUNS = int(os.environ.get("GPUNET_KILLED_RUNS", "1"))
KILLS = 2  # of each run; the first when there is a checkpoint
LONGEST_WAIT = 0.25  # seconds
TRAIN = """
import sys
import numpy as np
import gpunet
from tests.helpers.networks import learnable, small_network

X, y = learnable(2000)
network = small_network(dropout=0.3)
print("started", flush=True)
gpunet.fit(
    network, X, y, epochs=30, batch_size=16, optimizer=gpunet.Adam(gpunet.CosineRate(0.01, 3000)),
    validation=(X[:50], (y[:50] + 1) % 3), early_stopping=gpunet.EarlyStopping(20), checkpoint=sys.argv[1], resume=True,
)
network.save(sys.argv[2])
"""


def start(*paths):
    command = [sys.executable, "-c", TRAIN, *map(str, paths)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
    assert process.stdout.readline() == b"started\n"
    return process


def finish(process, kill=False):
    with process:
        if kill:
            process.kill()
    return process.returncode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert finish(start(folder / "run.npz", folder / "model.npz")) == 0
    return gpunet.load(folder / "model.npz")


@pytest.mark.parametrize("run", range(RUNS))
def test_killed_runs(tmp_path, undisturbed, run):
    generator = np.random.default_rng(run)
    checkpoint = tmp_path / ("run.npz", "run.safetensors")[run % 2]
    for kill in range(KILLS):
        process = start(checkpoint, tmp_path / "model.npz")
        while kill == 0 and not checkpoint.exists():
            time.sleep(0.001)
        time.sleep(LONGEST_WAIT * generator.random())
        assert finish(process, kill=True) in (-signal.SIGKILL, 0)
    assert finish(start(checkpoint, tmp_path / "model.npz")) == 0
    model = gpunet.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(model.flat_parameters, undisturbed.flat_parameters)
    np.testing.assert_array_equal(model.flat_state, undisturbed.flat_state)
    assert model.steps == undisturbed.steps
    assert {path.name for path in tmp_path.iterdir()} == {checkpoint.name, "model.npz"}
