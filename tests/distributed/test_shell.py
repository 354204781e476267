"""``gpunet train`` under mpiexec: all ranks train, and one of them prints, writes files and tells what goes wrong."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.devices.probe import GpuReport
from gpunet.distributed import ranks as ranks_module
from gpunet.distributed.communicator import OneRank
from tests.helpers.cli import shell
from tests.helpers.mpiexec import needs_mpi, run_under_mpi, start_ranks

pytestmark = [needs_mpi, pytest.mark.usefixtures("_packages")]
# The status of mpiexec is that of the rank which ends the others, or now and then that of those.
KILLED = 9
# The rate does not depend on the number of epochs, so that a run can go on for more.
NETWORK = ("--layers", "9,5", "--device", "cpu:numpy", "--schedule", "constant", "--batch-size", "50")


@pytest.fixture
def _packages() -> None:
    pytest.importorskip("rich")
    pytest.importorskip("safetensors")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    X = np.random.default_rng(0).standard_normal((317, 7))
    np.savez(tmp_path / "points.npz", X=X, y=(X[:, 0] > 0).astype(int) + 2 * (X[:, 1] > 0))
    return tmp_path / "points.npz"


def train(size: int, data: Path, out: Path, *options: object) -> tuple[int, str, str]:
    command = "-m", "gpunet", "train", str(data), "--out", str(out), *NETWORK, *map(str, options)
    return run_under_mpi(size, *command)


def complaints(errors: str) -> list[str]:
    """Return what gpunet has said, without what the launcher adds."""
    return [line for line in errors.splitlines() if line.startswith("gpunet: ") or "Traceback" in line]


def same(first: Path, second: Path) -> bool:
    one, other = (gpunet.load(folder / "model.safetensors") for folder in (first, second))
    pairs = (one.flat_parameters, other.flat_parameters), (one.flat_state, other.flat_state)
    return all(np.array_equal(*pair) for pair in pairs)


def test_one_process_two_and_three_have_the_same_bits_also_one_after_the_other(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    """Four epochs alone, which needs no MPI; two epochs on two ranks, and two more on three."""
    alone, ranks = tmp_path / "alone", tmp_path / "ranks"
    options = ("--shards", 6, "--json", "--dropout", 0.3)
    found = shell(capsys, "train", data, "--out", alone, *NETWORK, *options, "--epochs", 4).json
    assert (found["ranks"], found["shards"]) == (1, 6)
    status, output, errors = train(2, data, ranks, *options, "--epochs", 2, "--checkpoint")
    assert (status, errors) == (0, "")
    assert output.count("\n") == 1
    assert {path.name for path in ranks.iterdir()} == {"model.safetensors", "history.json", "checkpoint.safetensors"}
    assert not same(alone, ranks)
    status, output, errors = train(3, data, ranks, *options, "--epochs", 4, "--resume")
    assert (status, errors) == (0, "")
    content = json.loads(output)
    assert (content["ranks"], content["shards"], content["epochs"]) == (3, 6, 4)
    assert {name: content[name] for name in content if "loss" in name} == {
        name: found[name] for name in found if "loss" in name
    }
    assert same(alone, ranks)


def test_ranks_without_shards_train_too(data: Path, tmp_path: Path) -> None:
    status, output, _ = train(2, data, tmp_path / "out", "--epochs", 1, "--json")
    assert status == 0
    assert (json.loads(output)["ranks"], json.loads(output)["shards"]) == (2, None)


@pytest.mark.parametrize(
    ("size", "options", "told"), [(2, (), ", ranks: 2\n"), (2, ("--shards", 4), ", ranks: 2, shards: 4\n")]
)
def test_how_many_have_trained_is_told(
    size: int, options: tuple[object, ...], told: str, data: Path, tmp_path: Path
) -> None:
    status, output, errors = train(size, data, tmp_path / "out", "--epochs", 1, *options)
    assert (status, errors) == (0, "")
    assert output.count(f"float32 on cpu{told}") == 1


def test_figures_findings_and_the_comparison_are_made_once(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out, plot = tmp_path / "out", tmp_path / "curve.png"
    options = ("--epochs", 2, "--shards", 2, "--diagnose", "--compare-sklearn", "--plot", plot)
    status, output, errors = train(2, data, out, *options)
    assert (status, complaints(errors)) == (0, [])
    assert output.count("test accuracy") == output.count("scikit-learn's MLP") == output.count("diagnostics.json") == 1
    assert plot.stat().st_size > 0
    assert (out / "diagnostics.json").exists()


@pytest.mark.parametrize(
    ("size", "options", "told"),
    [
        (3, ("--shards", 2), "gpunet: --shards: 2 for 3 ranks, which would be more ranks than shards."),
        (2, ("--epoch", 2), "gpunet: the argument '--epoch' is not known."),
        (2, ("--resume",), "gpunet: --resume: there is no checkpoint"),
        (2, ("--device", "cuda:77"), "gpunet: --device: 'cuda:77' cannot be used"),
    ],
)
def test_an_error_of_all_ranks_is_told_by_one(
    data: Path, tmp_path: Path, size: int, options: tuple[object, ...], told: str
) -> None:
    status, output, errors = train(size, data, tmp_path / "out", "--epochs", 1, *options)
    assert (status in (2, KILLED), output) == (True, "")
    (line,) = complaints(errors)
    assert line.startswith(told)


WITHOUT_MPI4PY = """
import importlib, os, sys
if os.environ["PMI_RANK"] in {ranks!r}:
    raise ModuleNotFoundError("No module named 'mpi4py'")
sys.path.remove({folder!r})
del sys.modules["mpi4py"]
sys.modules["mpi4py"] = importlib.import_module("mpi4py")
"""


@pytest.mark.parametrize("ranks", ["012", "2"])
def test_ranks_that_lack_mpi4py_say_so_once_and_end_all(data: Path, tmp_path: Path, ranks: str) -> None:
    """Also where the others have it, and wait for that rank before MPI has begun."""
    (tmp_path / "mpi4py").mkdir()
    code = WITHOUT_MPI4PY.format(ranks=ranks, folder=str(tmp_path))
    (tmp_path / "mpi4py" / "__init__.py").write_text(code, encoding="utf-8")
    status, output, errors = run_under_mpi(3, "-m", "gpunet", "train", str(data), PYTHONPATH=str(tmp_path))
    (line,) = complaints(errors)
    assert status != 0
    assert "accuracy" not in output
    assert line == (
        "gpunet: gpunet.distributed.mpi needs mpi4py and an MPI library: pip install 'gpunet[mpi]', or mpi4py alone "
        "where the machine has MPI."
    )


def test_a_diverged_run_keeps_its_weights_once(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--learning-rate", 1e30, "--optimizer", "sgd", "--no-batch-norm", "--shards", 2)
    status, _, errors = train(2, data, out, *options)
    (line,) = complaints(errors)
    assert status == 2
    assert "diverged.safetensors, the epochs before in" in line
    assert {path.name for path in out.iterdir()} == {"diverged.safetensors", "diverged-history.json"}


def test_what_the_first_rank_cannot_write_ends_all(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "model.safetensors" / "in the way").mkdir(parents=True)
    status, output, errors = train(3, data, tmp_path / "out", "--epochs", 1)
    assert (status in (2, KILLED), output) == (True, "")
    (line,) = complaints(errors)
    assert "Is a directory" in line


@pytest.mark.parametrize("size", [1, 3])
def test_ctrl_c_ends_all_and_says_once_how_to_go_on(data: Path, tmp_path: Path, size: int) -> None:
    out = tmp_path / "out"
    command = ("-m", "gpunet", "train", str(data), "--out", str(out), *NETWORK, "--epochs", "100000", "--checkpoint")
    process = start_ranks(size, *command)
    while not (out / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    (line,) = complaints(errors)
    assert process.returncode in (130, KILLED)
    assert "accuracy" not in output
    assert line.endswith("--resume goes on from it")


@pytest.mark.parametrize(
    ("command", "expected", "told"),
    [
        (("info", "--json"), 0, ""),
        (("train", "--help"), 0, ""),
        (("evaluate", "missing.npz", "digits"), 2, "gpunet: MODEL: there is no file 'missing.npz'"),
    ],
)
def test_what_needs_no_company_is_done_by_the_first_rank_alone(
    command: tuple[str, ...], expected: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = shell(capsys, *command)
    status, output, errors = run_under_mpi(3, "-m", "gpunet", *command)
    assert status in (expected, KILLED)
    assert len(output.splitlines()) == len(alone.output.splitlines())
    assert len(complaints(errors)) == (expected > 0)
    assert told in errors


@pytest.mark.parametrize(
    ("variables", "is_done"),
    [
        (("PMI_SIZE", "PMI_RANK"), False),
        (("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), False),
        (("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"), True),  # of any programs, each perhaps with files of its own
    ],
)
def test_another_rank_leaves_it_to_the_first(
    variables: tuple[str, str], is_done: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(variables, "31", strict=True):
        monkeypatch.setenv(name, value)
    found = shell(capsys, "--version")
    assert bool(found.output) == is_done


class SecondOfTwo(OneRank):
    """A rank whose neighbour finds what it finds itself."""

    rank = local_rank = 1
    size = local_size = 2

    def share(self, value: Any) -> list[Any]:
        return [value, value]


@pytest.mark.parametrize(
    ("devices", "asked", "taken"),
    [
        (("A", "B"), "cuda", "cuda:1"),
        (("A", "B"), "auto", "cuda:1"),
        (("A",), "auto", "cuda:0"),  # as where a launcher shows each rank a GPU of its own
        (("A", "B"), "cuda:0", "cuda:0"),
        (("A", "B"), "cpu", "cpu"),
        ((), "auto", "cpu"),
        ((), "cuda", "cuda:1"),  # which says what is missing
    ],
)
def test_each_rank_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...], asked: str, taken: str
) -> None:
    report = GpuReport((13, 0) if devices else None, devices, "14.0" if devices else None)
    monkeypatch.setattr(ranks_module, "probe_gpu", lambda: report)
    assert ranks_module.Ranks(SecondOfTwo(), None).own_device(asked) == taken
