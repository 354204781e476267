"""``gpunet tune`` on the emulated device, and what ``gpunet info`` says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet.cli.info as info
from gpunet.backends import NumpyBackend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.tuning import CANDIDATES, ESTIMATES, Tuning, find_tuning, save_tuning
from gpunet.cli import tune
from gpunet.verification import tuning
from tests.helpers.cli import refusal, shell
from tests.verification.test_tuning import PlantedDevice

Capture = pytest.CaptureFixture[str]


class NamedDevice(PlantedDevice):
    """Hardware, as far as one can see; faster with blocks of 128 threads."""

    model = "NVIDIA Loom"

    def __init__(self) -> None:
        super().__init__(lambda kernel, grid, block, cluster: 1e-3 if block == 256 or np.prod(block) == 128 else 2e-3)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NamedDevice:
    monkeypatch.setenv("GPUNET_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("GPUNET_TUNING", raising=False)
    monkeypatch.setattr(tuning, "LARGE_SHAPES", tuning.SMALL_SHAPES)
    monkeypatch.setattr(tuning, "LARGE_SIZE", tuning.SMALL_SIZE)
    device = NamedDevice()
    for module in (tune, info):
        monkeypatch.setattr(
            module, "select_backend", lambda name: NumpyBackend() if name == "cpu" else CudaBackend(device)
        )
    return device


def test_what_is_chosen_is_shown_written_and_followed(device: Any, tmp_path: Path, capsys: Capture) -> None:
    result = shell(capsys, "tune")
    assert (result.status, result.errors) == (0, "")
    heads, _, *rows, last = result.output.splitlines()
    assert heads.split()[:3] == ["constant", "estimate", "chosen"]
    assert [row.split()[0] for row in rows] == list(CANDIDATES)
    assert rows[1].split()[:3] == ["resident_threads", "256", "128"]
    assert "128: 0.5" in rows[1]
    assert last == f"written: {tmp_path / 'nvidia-loom.json'}"
    assert find_tuning(device).tuning == Tuning(resident_threads=128)
    content = shell(capsys, "info", "--json").json
    assert content["launch_plans"] == f"measured: resident_threads=128 ({tmp_path / 'nvidia-loom.json'})"
    assert "launch plans  measured: resident_threads=128" in shell(capsys, "info").output


def test_a_dry_run_leaves_everything(device: Any, tmp_path: Path, capsys: Capture) -> None:
    content = shell(capsys, "tune", "--dry-run", "--json").json
    assert content["tuning"]["resident_threads"] == 128
    assert [choice["name"] for choice in content["choices"]] == list(CANDIDATES)
    assert list(tmp_path.iterdir()) == []
    assert "launch plans  estimates (`gpunet tune` measures)" in shell(capsys, "info").output


def test_the_measurement_begins_with_the_estimates(device: Any, capsys: Capture) -> None:
    save_tuning(device, Tuning(resident_threads=512, striped_blocks=8))
    content = shell(capsys, "tune", "--json").json
    assert content["tuning"] == vars(ESTIMATES) | {"resident_threads": 128}


def test_turned_off(device: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUNET_TUNING", "0")
    assert shell(capsys, "tune").output.endswith("networks do not follow it: GPUNET_TUNING=0\n")
    assert shell(capsys, "info", "--json").json["launch_plans"] == "estimates (GPUNET_TUNING=0)"


def test_what_cannot_be(device: Any, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--device: 'cpu' has no launch plans" in refusal(capsys, "tune", "--device", "cpu")
    (tmp_path / "file").touch()
    monkeypatch.setenv("GPUNET_CACHE_DIR", str(tmp_path / "file"))
    assert str(tmp_path / "file") in refusal(capsys, "tune", "--json")
