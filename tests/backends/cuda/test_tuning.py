"""The constants of launch plans that a file has measured: who reads them, what else is left to the estimates."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.activations import get_activation
from gpunet.backends import notices, selection
from gpunet.backends.cuda import CudaBackend, tuning
from gpunet.backends.cuda.tuning import (
    CANDIDATES,
    ESTIMATES,
    Tuning,
    cache_folder,
    find_tuning,
    save_tuning,
    tuning_of,
    tuning_path,
)
from gpunet.backends.devices.probe import GpuReport
from gpunet.verification import batch_norm, optimizer, random_bits
from gpunet.verification.operation import Placed, compare
from gpunet.verification.storage import FLOAT32
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy
from tests.helpers.cli import environment

MEASURED = Tuning(streaming_waves=8, striped_blocks=2)
PROPERTIES = {"name": "cuda:0", "model": "NVIDIA H200", "multiprocessor_count": 132, "l2_bytes": 62914560}


def device(**changes: Any) -> Any:
    return SimpleNamespace(**PROPERTIES | {"driver": "13.0"} | changes)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the files, and a process that has said nothing yet."""
    monkeypatch.setenv("GPUNET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("GPUNET_TUNING", raising=False)
    monkeypatch.setattr(notices, "_said", set())
    return tmp_path / "cache"


def test_the_estimates_are_among_the_candidates() -> None:
    for name, values in CANDIDATES.items():
        assert getattr(ESTIMATES, name) in values
        assert len(set(values)) == len(values) > 1
    assert CANDIDATES.keys() == Tuning.__dataclass_fields__.keys()


def test_without_a_file_the_estimates() -> None:
    assert tuning_of(device()) == ESTIMATES
    assert find_tuning(device()).source == "estimates (`gpunet tune` measures)"


def test_a_new_process_reads_what_another_has_written(folder: Path) -> None:
    path = save_tuning(device(), MEASURED)
    assert path == folder / "nvidia-h200.json"
    program = (
        "from types import SimpleNamespace; from gpunet.backends.cuda.tuning import find_tuning\n"
        f"found = find_tuning(SimpleNamespace(**{PROPERTIES!r}, driver='13.0'))\n"
        "print(found.tuning.streaming_waves, found.tuning.striped_blocks, found.source)"
    )
    options: dict[str, Any] = {"capture_output": True, "text": True, "check": True, "env": environment()}
    output = subprocess.run([sys.executable, "-c", program], **options).stdout
    assert output == f"8 2 measured: streaming_waves=8, striped_blocks=2 ({path})\n"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"multiprocessor_count": 16}, "multiprocessors 132 (here 16)"),
        ({"driver": "13.1"}, "driver 13.0 (here 13.1)"),
        ({"l2_bytes": 1}, "L2 bytes 62914560 (here 1)"),
    ],
)
def test_a_file_of_another_device_or_driver_is_left_alone(
    changes: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    save_tuning(device(), MEASURED)
    assert tuning_of(device(model="NVIDIA H100", **changes)) == ESTIMATES
    assert caplog.records == []
    assert tuning_of(device(**changes)) == ESTIMATES
    assert reason in caplog.text


def test_a_file_of_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    save_tuning(device(), MEASURED)
    monkeypatch.setattr(tuning, "__version__", "99")
    found = find_tuning(device())
    assert found.tuning == ESTIMATES
    assert f"gpunet {gpunet.__version__} (here 99); `gpunet tune` measures again" in found.source


def written(**changes: Any) -> str:
    content = {"format": "gpunet.tuning", "format_version": 1, "measured_on": tuning.identity(device())}
    return json.dumps(content | {"tuning": vars(MEASURED)} | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        written(format="other"),
        written(format_version=2),
        written(measured_on=None),
        written(tuning=[]),
        written(tuning={}),
        written(tuning=vars(MEASURED) | {"more": 1}),
        *(
            written(tuning=vars(MEASURED) | {"striped_blocks": value})
            for value in (0, 3, True, 4.0, "4", None, 10**400)
        ),
    ],
    ids=range(18),
)
def test_a_damaged_file_is_told_once(text: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert json.loads(written())["tuning"]["striped_blocks"] == 2
    folder.mkdir()
    (folder / "nvidia-h200.json").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert [tuning_of(device()) for _ in range(2)] == [ESTIMATES, ESTIMATES]
    assert len(caplog.records) == 1
    assert "on cuda:0, launch plans rest on estimates" in caplog.text


def test_bytes_that_are_no_text_and_folders_that_are_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "nvidia-h200.json").write_bytes(b"\xff\xfe")
    assert find_tuning(device()).problem
    (folder / "nvidia-h100.json").mkdir()
    assert find_tuning(device(model="NVIDIA H100")).tuning == ESTIMATES
    monkeypatch.setenv("GPUNET_CACHE_DIR", str(folder / "nvidia-h200.json"))
    assert find_tuning(device()).tuning == ESTIMATES
    with pytest.raises(OSError, match="nvidia-h200"):
        save_tuning(device(), MEASURED)


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GPUNET_CACHE_DIR")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "gpunet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "gpunet"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "gpunet"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert cache_folder() == tmp_path / "AppData" / "Local" / "gpunet"
    monkeypatch.setattr(Path, "home", no_home)
    assert find_tuning(device()).tuning == ESTIMATES


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    save_tuning(device(), MEASURED)
    assert tuning_of(device()) == MEASURED
    monkeypatch.setenv("GPUNET_TUNING", "0")
    assert find_tuning(device()) == tuning.Found(ESTIMATES, "estimates (GPUNET_TUNING=0)")


def test_networks_on_a_gpu_follow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.begin_process(monkeypatch)
    fake_cupy.install(monkeypatch, fake_cupy.FakeCupy(EmulatedDevice(compute_capability=(8, 0))))
    monkeypatch.setattr(selection, "probe_gpu", lambda: GpuReport((13, 0), ("NVIDIA Fake",), "14.2.0"))
    before: Any = gpunet.Network([3, 4, 2], device="cuda").backend
    path = save_tuning(before.device, MEASURED)
    assert path == tuning_path(before.device)
    assert json.loads(path.read_text())["measured_on"]["driver"] == "13.0"
    after: Any = gpunet.Network([3, 4, 2], device="cuda").backend
    assert (before.launcher.tuning, after.launcher.tuning) == (ESTIMATES, MEASURED)


# --- bits -------------------------------------------------------------------------------------------------------------


def test_what_the_bits_depend_on_is_part_of_the_arithmetic() -> None:
    def plans(chosen: Tuning) -> str | None:
        return CudaBackend(EmulatedDevice(), tuning=chosen).arithmetic["launch plans"]

    assert plans(ESTIMATES) == plans(Tuning(streaming_waves=8)) == "estimates"
    assert plans(MEASURED) == "striped_blocks=2"


def test_a_run_that_goes_on_with_other_plans_is_warned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 3)), rng.integers(0, 2, 20)

    def fit(chosen: Tuning, epochs: int) -> None:
        emulated = CudaBackend(EmulatedDevice(compute_capability=(8, 0)), tuning=chosen)
        network = gpunet.Network([3, 4, 2], batch_norm=True, seed=0, device=emulated)
        gpunet.fit(network, X, y, epochs=epochs, batch_size=10, checkpoint=tmp_path / "run.npz", resume=True)

    fit(ESTIMATES, 1)
    fit(Tuning(streaming_waves=1), 2)
    with pytest.warns(gpunet.ResumeWarning, match="launch plans estimates, and this is launch plans striped_blocks=2"):
        fit(MEASURED, 3)


def test_waves_do_not_change_a_bit() -> None:
    operations = [
        optimizer.adam_step(FLOAT32, 70_003, 11),
        optimizer.sgd_step(FLOAT32, 70_003, 11),
        random_bits.dropout_forward(FLOAT32, (100, 701)),
        random_bits.sample_bernoulli(FLOAT32, (100, 701)),
    ]
    for operation in operations:
        results = [
            Placed(CudaBackend(EmulatedDevice(multiprocessor_count=2), tuning=Tuning(waves)), operation).results()
            for waves in CANDIDATES["streaming_waves"]
        ]
        for name, values in results[0].items():
            for others in results[1:]:
                np.testing.assert_array_equal(others[name], values)


@pytest.mark.parametrize("algorithm", ["resident", "striped"])
def test_every_candidate_computes_batch_norm(algorithm: str) -> None:
    tanh = get_activation("tanh")
    operations = [make(FLOAT32, (517, 12), tanh) for make in (batch_norm.forward, batch_norm.backward)]
    for name, values in CANDIDATES.items():
        if name != "streaming_waves":
            for value in values:
                backend = CudaBackend(
                    EmulatedDevice(multiprocessor_count=2), tuning=replace(ESTIMATES, **{name: value})
                )
                backend.launcher.batch_norm_choice = algorithm, None
                for operation in operations:
                    assert [found.text for found in compare(backend, operation) if found.text] == [], (name, value)
