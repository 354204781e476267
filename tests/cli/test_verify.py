"""``gpunet verify`` on the emulated device: the table, the report, the exit status, and how it ends before its end."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices.device import ClusterRefusedError
from gpunet.cli import verify as command
from gpunet.cli.main import main
from gpunet.verification.report import read_report
from tests.helpers.cli import environment, refusal, shell
from tests.helpers.verification import PlantedDevice, SmallDevice
from tests.verification.test_document import SPEED

Capture = pytest.CaptureFixture[str]
GATHER_BUG = ("for (; word < array.words; word += step)", "for (; word < array.words - 1; word += step)")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let ``--device cuda`` be an emulated device."""

    def use(new_device: Any) -> None:
        select = command.select_backend
        monkeypatch.setattr(
            command,
            "select_backend",
            lambda name, precision="float32": select(name) if name == "cpu" else CudaBackend(new_device(), precision),
        )

    return use


def test_the_table_and_the_verdict(capsys: Capture, use: Any) -> None:
    use(SmallDevice)
    result = shell(capsys, "verify", "--only", "rows of a batch,float32")
    assert (result.status, result.errors) == (0, "")
    heads, _, row, _, verdict = result.output.splitlines()
    assert " ".join(heads.split()) == "what tried worst error / tolerance"
    *what, tried, dtype, error = row.split()
    assert (what, dtype, error) == (["rows", "of", "a", "batch"], "float32", "0")
    count = tried.rstrip(":")
    assert int(count) > 20
    assert verdict.startswith(f"{count} of {count} checks passed in ")
    assert "on emulated sm_90" in result.output


def test_json_and_the_report_are_the_same(capsys: Capture, use: Any, tmp_path: Path) -> None:
    use(SmallDevice)
    path = tmp_path / "report.json"
    content = shell(capsys, "verify", "--only", "matrix product,tf32", "--json", "--out", path).json
    assert content == json.loads(path.read_text(encoding="utf-8"))
    found = read_report(path)
    assert found.is_right
    assert found.device["kind"] == "emulated"
    assert found.device["compute capability"] == "9.0"
    assert [(row.what, row.kinds, row.wrong) for row in found.rows] == [("matrix product", ("tf32",), 0)]
    assert 0.01 < (found.rows[0].error or 0) < 1
    assert found.gpunet == gpunet.__version__


def test_a_failure_is_explained(capsys: Capture, use: Any) -> None:
    use(lambda: PlantedDevice(GATHER_BUG, module="gather"))
    result = shell(capsys, "verify", "--only", "rows of a batch,float32,33 alone")
    assert (result.status, result.errors) == (1, "")
    *_, name, text, advice, verdict = result.output.splitlines()
    assert name == "rows of a batch, float32, 45 x 33 alone:"
    assert text.startswith("  batch_features[0, 32] is nan. Expected ")
    assert text.endswith("; 45 of 1485 elements are wrong")
    assert advice == '  device="cpu" (--device cpu in the shell) avoids it'
    assert verdict.startswith("0 of 1 checks passed")


def test_a_refused_cluster_is_said_and_no_failure(capsys: Capture, use: Any) -> None:
    class WithoutRoom(SmallDevice):
        def launch(self, *args: Any, **kwargs: Any) -> None:
            if (kwargs.get("cluster") or 1) > 1:
                raise ClusterRefusedError("no room for a cluster")
            super().launch(*args, **kwargs)

    use(WithoutRoom)
    result = shell(capsys, "verify", "--only", "resident,float32,31 x 33,forward")
    assert result.status == 0
    assert "Networks do without clusters: no room for a cluster" in result.output
    assert "cluster of" not in result.output.split("Networks")[0]


def test_what_is_turned_off_is_not_tried(capsys: Capture, use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use(SmallDevice)
    monkeypatch.setenv("GPUNET_CLUSTERS", "0")
    result = shell(capsys, "verify", "--only", "resident,float32,31 x 33,forward")
    assert result.status == 0
    assert "cluster of" not in result.output
    assert "GPUNET_CLUSTERS=0: not tried, and not used" in result.output


def test_the_cpu_is_checked_in_the_same_way(capsys: Capture) -> None:
    content = shell(capsys, "verify", "--device", "cpu", "--only", "batch norm", "--json").json
    assert content["is_right"]
    assert content["device"]["kind"] == "cpu"
    assert {row["what"].split(",")[0] for row in content["rows"]} >= {"batch norm forward", "batch norm backward"}


def test_without_a_gpu_it_says_what_is_missing(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpunet.backends.selection.cuda_problem", lambda *_: "CuPy is not installed")
    assert "--device: 'cuda' cannot be used: CuPy is not installed." in refusal(capsys, "verify")


def test_words_that_no_check_has(capsys: Capture) -> None:
    assert "--only: no check has all of" in refusal(capsys, "verify", "--device", "cpu", "--only", "float8")


def test_the_limit_of_time(capsys: Capture) -> None:
    result = shell(capsys, "verify", "--device", "cpu", "--minutes", "1e-9", "--only", "SGD")
    assert result.status == 1
    assert ", the limit of 0 s was reached" in result.output


def test_speed_is_shown_and_kept(capsys: Capture, use: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(SmallDevice)
    monkeypatch.setattr("gpunet.verification.speed.measure", lambda subject, speed, *rest: speed.update(SPEED))
    path = tmp_path / "report.json"
    result = shell(capsys, "verify", "--speed", "--only", "matrix product,tf32,1 x 20 x 9", "--out", path)
    assert result.status == 0
    assert "Kernels, beside a copy of 4000 GB/s on the device; the host takes 4.5 microseconds" in result.output
    assert ["SGD", "step", "float32", "960", "9.5", "2000.0", "50.0"] in map(str.split, result.output.splitlines())
    assert read_report(path).speed == SPEED
    assert "--speed: the speed of a CPU is what benchmarks tell" in refusal(
        capsys, "verify", "--device", "cpu", "--speed"
    )


def test_a_report_that_could_not_be_written_is_refused_before(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refusal(capsys, "verify", "--device", "cpu", "--out", tmp_path / "file" / "report.json")
    assert "is a file, expected a folder" in line
    line = refusal(capsys, "verify", "--device", "cpu", "--out", tmp_path)
    assert f"--out: {str(tmp_path)!r} is a folder. Expected a file." in line


@pytest.mark.parametrize("error", [gpunet.DeviceError("an illegal address"), ValueError("a bug"), KeyboardInterrupt()])
def test_whatever_ends_the_measurements_what_was_found_is_told(
    error: BaseException, capsys: Capture, use: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(subject: Any, speed: dict[str, Any], *rest: Any) -> None:
        speed.update(SPEED)
        raise error

    use(SmallDevice)
    monkeypatch.setattr("gpunet.verification.speed.measure", failing)
    path = tmp_path / "report.json"
    arguments = ["verify", "--speed", "--only", "matrix product,tf32,1 x 20 x 9", "--out", str(path)]
    with contextlib.suppress(ValueError):
        assert main(arguments) not in (0, 1)
    assert "8 of 8 checks passed" in capsys.readouterr().out
    found = read_report(path)
    assert found.is_right
    assert found.speed == SPEED


def test_the_table_is_shown_where_the_disk_is_full(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gpunet.verification.report.write_text", full)
    assert main(["verify", "--device", "cpu", "--only", "clipping", "--out", str(tmp_path / "report.json")]) == 2
    printed = capsys.readouterr()
    assert "33 of 33 checks passed" in printed.out
    assert "No space left" in printed.err


SCRIPT = """
import os, signal, sys, threading, time
from gpunet.cli import verify
from gpunet.cli.main import main
from gpunet.backends.numpy import NumpyBackend
step = NumpyBackend.sgd_step
def slow(self, *args, **kwargs):
    if not hasattr(slow, "begun"):
        slow.begun = True
        {what}
    step(self, *args, **kwargs)
NumpyBackend.sgd_step = slow
verify.LONGEST_CHECK = 0.5
sys.exit(main(["verify", "--device", "cpu", "--only", "SGD step", "--out", sys.argv[1]]))
"""


def run(what: str, report: Path) -> subprocess.CompletedProcess[str]:
    code = SCRIPT.replace("{what}", what)
    return subprocess.run(
        [sys.executable, "-c", code, report], capture_output=True, text=True, env=environment(), timeout=60, check=False
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_an_interrupt_says_what_was_done(tmp_path: Path) -> None:
    result = run("os.kill(os.getpid(), signal.SIGINT); time.sleep(0.2)", tmp_path / "report.json")
    assert result.returncode == 128 + signal.SIGINT
    assert ", interrupted" in result.stdout
    assert result.stderr == "gpunet: interrupted\n"


def test_a_check_that_does_not_come_back_ends_the_command(tmp_path: Path) -> None:
    result = run("threading.Event().wait(50)", tmp_path / "report.json")
    assert result.returncode == 1
    name = "SGD step, float32, 1 parameters, 0 weights, momentum 0.0"
    assert result.stderr == f"gpunet: {name}: does not come back since 0 s\n"
    assert f"not done: 71, {name} does not come back\n" in result.stdout
    found = read_report(tmp_path / "report.json")
    assert (found.done, found.is_right) == (0, False)


def test_a_file_that_is_no_report_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for text in ("", "[]", "{}", '{"format": "gpunet.verification", "format_version": 2}', '{"format": 1}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(gpunet.errors.FileFormatError, match="not a report of gpunet verify"):
            read_report(path)
