"""What goes wrong on real ranks: one of them says it, all end, and none waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpunet.distributed import one_rank
from tests.distributed.bad_use import train
from tests.helpers.mpiexec import ROOT, needs_mpi, run_under_mpi, start_ranks

pytestmark = needs_mpi
SCRIPT = ("-m", "tests.distributed.bad_use")


@pytest.mark.parametrize(
    ("size", "case", "told"),
    [
        (
            3,
            "shards",
            "shards: 4 for 3 ranks, which would be ranks with unequal numbers of shards. Expected",
        ),
        (5, "shards", "shards: 4 for 5 ranks, which would be more ranks than shards. Expected a multiple of 5."),
        (3, "another launcher", "Open MPI's mpiexec has started 3 processes, and MPICH"),
        (3, "callback", "\nRuntimeError: on every rank"),
        (3, "script", "\nRuntimeError: on every rank"),
        (3, "finalised", "gpunet.errors.DistributedError: communicator: MPI has been finalised"),
        (3, "not initialised", "gpunet.errors.DistributedError: communicator: mpi4py was told not to initialise MPI"),
    ],
)
def test_what_all_do_wrong_is_said_once(size: int, case: str, told: str) -> None:
    status, _, errors = run_under_mpi(size, *SCRIPT, f"all: {case}")
    assert status != 0
    assert errors.count(told) == errors.count("Traceback") == 1, errors


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("data", "rank 2 has another X than rank 0"),
        ("labels in another order", "rank 2 has another y than rank 0"),
        ("columns of two", "\ngpunet.errors.ShapeError: X: "),
        ("seeds", "rank 2 has another seed than rank 0: 2, and not 1."),
        ("arguments", "rank 2 has another epochs than rank 0: 4, and not 3."),
        ("checkpoint", "rank 2 has another checkpoint than rank 0: True, and not False."),
        ("versions", "rank 2 has another version of gpunet than rank 0"),
        ("error before", "RuntimeError: on one rank"),
        ("error within", "gpunet: rank 2 of 3 failed, and all are ended."),
        ("error after", "RuntimeError: on one rank"),
        ("interrupt before", "\nKeyboardInterrupt"),
        ("interrupt", "gpunet: rank 2 of 3 failed, and all are ended."),
        ("exit", "gpunet: rank 2 of 3 failed, and all are ended."),
    ],
)
def test_what_one_does_wrong_is_said_once_and_ends_all(tmp_path: Path, case: str, told: str) -> None:
    status, output, errors = run_under_mpi(3, *SCRIPT, f"one: {case}", str(tmp_path / "run.npz"))
    assert status != 0
    assert output == ""
    assert errors.count(told) == errors.count("Traceback") == 1, errors


@pytest.mark.parametrize("case", ["does not train", "trains alone", "leaves"])
def test_a_rank_whose_program_ends_before_the_others_ends_them(case: str) -> None:
    status, output, errors = run_under_mpi(3, *SCRIPT, f"one: {case}")
    assert status != 0
    assert output == ""
    assert errors.count("gpunet: rank 2 of 3 has ended, and others wait for it: all are ended.") == 1, errors


def test_a_rank_that_is_gone_ends_the_others() -> None:
    """Of which the launcher alone can tell."""
    status, _, _ = run_under_mpi(3, *SCRIPT, "one: exits")
    assert status != 0


def test_ctrl_c_ends_a_script_with_one_traceback(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    process = start_ranks(3, "-m", "tests.distributed.killed", str(tmp_path), "0", "nowhere", "0")
    while not (tmp_path / "run.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.count("\nKeyboardInterrupt\n") == errors.count("Traceback") == 1, errors


@pytest.mark.parametrize("case", ["single", "initialised", "communicator"])
def test_mpi_initialised_by_others_in_any_way_will_do(case: str) -> None:
    """Also ranks in another order, and two runs in one program."""
    status, output, errors = run_under_mpi(2, *SCRIPT, f"right: {case}")
    assert (status, errors) == (0, "")
    assert output.split() == ["2", str(train(one_rank(12)).flat_parameters.sum())]


def test_without_mpiexec_there_is_one_rank() -> None:
    done = subprocess.run(
        [sys.executable, *SCRIPT, "right: none"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["1", str(train(one_rank(12)).flat_parameters.sum())]
