"""``gpunet info``: what it tells with and without a GPU and the optional packages."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpunet
import gpunet.cli.info as info
from gpunet.backends import NumpyBackend, selection
from gpunet.backends.devices.probe import GpuReport
from gpunet.distributed.message_passing import library_name
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy
from tests.helpers.cli import shell
from tests.helpers.cuda_faults import WITHOUT_CUDA

Capture = pytest.CaptureFixture[str]

KEYS = {
    "gpunet",
    "python",
    "platform",
    "numpy",
    "blas",
    "cpu",
    "compiled_cpu",
    "device",
    "driver_cuda",
    "cuda_devices",
    "cupy",
    "cupy_extra",
    "cuda_problem",
    "cuda_proof",
    "launch_plans",
    "mpi",
    "nccl",
    "switches",
    "packages",
    "missing",
}


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    fake_cupy.begin_process(monkeypatch)


def test_json(capsys: Capture) -> None:
    result = shell(capsys, "info", "--json")
    assert (result.status, result.errors) == (0, "")
    content = result.json
    assert content.keys() == KEYS
    assert content["gpunet"] == gpunet.__version__
    assert content["python"] == platform.python_version()
    assert content["numpy"] == np.__version__
    assert content["cpu"]["cores"] >= 1
    assert content["cpu"]["name"]
    assert content["blas"][0]["threads"] >= 1
    assert content["cupy_extra"] in (None, "cuda12", "cuda13")
    assert content["packages"]["rich"] is not None


@pytest.mark.parametrize(
    ("report", "extra", "line"),
    [
        (GpuReport(None, (), None), None, "NVIDIA driver none"),
        (GpuReport((12, 4), ("NVIDIA L4",), None), "cuda12", "missing       cupy: pip install 'gpunet[cuda12]'"),
        (GpuReport((13, 0), ("NVIDIA H200", "NVIDIA L4"), None), "cuda13", "cuda:1        NVIDIA L4"),
        (GpuReport((13, 0), ("NVIDIA H200",), "14.2.0"), "cuda13", "CuPy          14.2.0"),
        (GpuReport((11, 4), ("Tesla K80",), None), None, "needs a driver for CUDA 12 or newer"),
    ],
)
def test_gpus(
    report: GpuReport, extra: str | None, line: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(info, "probe_gpu", lambda: report)
    monkeypatch.setattr(info, "select_backend", lambda device: NumpyBackend())
    content = shell(capsys, "info", "--json").json
    assert content["cupy_extra"] == extra
    assert content["cuda_devices"] == list(report.devices)
    assert any(entry["package"] == "cupy" for entry in content["missing"]) == (
        extra is not None and report.cupy is None
    )
    assert line in shell(capsys, "info").output


def test_without_optional_packages(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("rich", "threadpoolctl"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(info, "_version", lambda distribution: None)
    content = shell(capsys, "info", "--json").json
    assert content["blas"][0]["threads"] is None
    assert {entry["package"] for entry in content["missing"]} >= {"rich", "scikit-learn", "safetensors"}
    output = shell(capsys, "info").output
    assert "rich: pip install 'gpunet[cli]'" in output
    assert "threads unknown" in output


def test_mpi(capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    found = shell(capsys, "info", "--json").json["mpi"]
    assert found["problem"] is None
    assert re.fullmatch(r"\S.* v?\d+(\.\d+)+\S*", found["library"])
    assert f"MPI           {found['library']}\n" in shell(capsys, "info").output
    # A library that cannot be loaded, and one that ends the process which asks it.
    for content, told in (
        ("raise RuntimeError('cannot load MPI library')", "RuntimeError: cannot load MPI library"),
        ("import os; os._exit(7)", "it ends with status 7"),
    ):
        (tmp_path / "mpi4py").mkdir(exist_ok=True)
        (tmp_path / "mpi4py" / "__init__.py").write_text("", encoding="utf-8")
        (tmp_path / "mpi4py" / "__main__.py").write_text(content, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        broken = shell(capsys, "info", "--json").json["mpi"]
        assert broken["library"] is None
        assert broken["problem"].endswith(f"finds no library of MPI: {told}")
    monkeypatch.setattr(info, "_version", lambda distribution: None)
    assert "pip install 'gpunet[mpi]'" in shell(capsys, "info", "--json").json["mpi"]["problem"]


@pytest.mark.parametrize(
    ("devices", "module", "line"),
    [
        ((), None, "none: it comes with CuPy, where there is a GPU"),
        (("A", "B"), None, "none: cupy.cuda.nccl cannot be imported: "),
        (("A", "B"), SimpleNamespace(available=False), "none: CuPy finds no NCCL: the packages nvidia-nccl-cu12 and "),
        (("A", "B"), SimpleNamespace(available=True, get_version=lambda: 22304), "2.23.4\n"),
    ],
)
def test_nccl(
    devices: tuple[str, ...], module: Any, line: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(info, "probe_gpu", lambda: GpuReport((13, 0), devices, "14.2.0"))
    monkeypatch.setattr(info, "cuda_problem", lambda report, index: "it is not tried here")
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", module)
    assert f"NCCL          {line}" in shell(capsys, "info").output


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("MPICH Version:      5.0.2\nMPICH Release date: Fri Sep 25 2026\n", "MPICH 5.0.2"),
        ("Open MPI v5.0.11, package: Open MPI root@machine Distribution, ident: 5.0.11", "Open MPI v5.0.11"),
        ("Intel(R) MPI Library 2021.13 for Linux* OS\n", "Intel(R) MPI Library 2021.13"),
        ("of its own", "of its own"),
    ],
)
def test_a_library_of_mpi_by_name(version: str, name: str) -> None:
    assert library_name(version) == name


def test_compiled_kernels(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shell(capsys, "info", "--json").json["compiled_cpu"]
    assert found.keys() == {"problem", "numba", "blas", "threads"}
    assert (found["problem"], found["threads"] >= 1) == (None, True)
    threads = "1 thread of" if found["threads"] == 1 else f"{found['threads']} threads of"
    output = shell(capsys, "info").output
    assert f"compiled CPU  Numba {found['numba']}, products by {found['blas']}, {threads} its own" in output
    monkeypatch.setattr(selection, "find_spec", lambda name: None)
    assert "compiled CPU  NumPy does everything: they need Numba: pip" in shell(capsys, "info").output
    monkeypatch.setenv("GPUNET_COMPILED_CPU", "0")
    assert shell(capsys, "info", "--json").json["compiled_cpu"] == {"problem": "GPUNET_COMPILED_CPU=0"}


def test_without_proc(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object, **options: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(platform, "processor", lambda: "a processor")
    assert shell(capsys, "info", "--json").json["cpu"]["name"] == "a processor"


def test_switches(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUNET_CLUSTERS", "0")
    assert shell(capsys, "info", "--json").json["switches"] == {
        "GPUNET_CUDA_GRAPH": True,
        "GPUNET_CLUSTERS": False,
        "GPUNET_CUBLASLT": True,
        "GPUNET_TUNING": True,
        "GPUNET_NARROW_PASS": False,
        "GPUNET_MKL": True,
        "GPUNET_COMPILED_CPU": True,
    }
    assert "switch        GPUNET_CLUSTERS=0: batch norm" in shell(capsys, "info").output
    monkeypatch.setenv("GPUNET_CLUSTERS", "no")
    result = shell(capsys, "info")
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert "GPUNET_CLUSTERS: the environment variable is 'no'" in result.errors


@pytest.mark.parametrize("fault", [None, "no CUDA headers", "products are wrong"])
def test_what_was_tried_on_the_device(fault: str | None, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = fake_cupy.FakeCupy(EmulatedDevice(compute_capability=(8, 0)))
    fake_cupy.install(monkeypatch, cupy)
    for module in (info, selection):
        monkeypatch.setattr(module, "probe_gpu", lambda: GpuReport((13, 0), ("NVIDIA Fake",), "14.2.0"))
    trials = ("device", "kernel", "product", "cublasLt bias", "cublasLt relu", "recording")
    works = dict.fromkeys(trials, "ok")
    if fault is None:
        content, output = shell(capsys, "info", "--json").json, shell(capsys, "info").output
        assert (content["device"], content["cuda_problem"], content["cuda_proof"]) == ("cuda", None, works)
        for trial in ("cublasLt bias", "recording"):
            assert f"proof         {trial}: ok" in output
        return
    install, trial, message = WITHOUT_CUDA[fault]
    install(monkeypatch, cupy)
    result = shell(capsys, "info", "--json")
    assert result.status == 0
    content = result.json
    assert content["device"] == "cpu"
    assert re.search(message, content["cuda_problem"])
    assert content["cuda_proof"].pop(trial) == content["cuda_problem"]
    assert content["cuda_proof"].items() < works.items()
    assert re.search(rf"proof         {trial}: .*{message}", shell(capsys, "info").output)
