"""A full disk: one error that names the file, the older file as it was, and nothing left beside it."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest

import gpunet
from benchmarks.report.documents import read_document
from benchmarks.report.plots import write_plots
from gpunet.kernel_check.budgets import default_path, read_budgets, write_budgets
from gpunet.lecture.catalogue import find_experiment
from gpunet.lecture.experiment import Settings
from gpunet.lecture.page import write_page
from gpunet.plotting import panels, save_figure
from tests.helpers.benchmark_results import results
from tests.helpers.cli import refusal, shell, write_blobs
from tests.helpers.networks import learnable, small_network

resource = pytest.importorskip("resource")

# More than this, no file takes; what is written below is larger.
LARGEST_FILE = 64


@contextlib.contextmanager
def full_disk():
    """Let no file grow: the system's answer has another number than a full disk's, and is told at the same places."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def fit(path, network):
    return gpunet.fit(network, *learnable(40), epochs=2, checkpoint=path)


def document(path):
    """A document with an outdated section, as text to start from."""
    text = "<!-- gpunet bench report: summary -->\nold\n<!-- end -->\n"
    path.write_text(text)
    return dataclasses.replace(read_document(path, [results()]), path=path)


WRITERS = {
    "model.safetensors": lambda path: small_network().save(path),
    "model.npz": lambda path: small_network().save(path),
    "checkpoint.safetensors": lambda path: fit(path, small_network()),
    "checkpoint.npz": lambda path: fit(path, small_network()),
    "history.json": lambda path: gpunet.fit(small_network(), *learnable(40), epochs=1).save(path),
    "history.pdf": lambda path: gpunet.fit(small_network(), *learnable(40), epochs=1).plot(path),
    "weights.safetensors": lambda path: gpunet.export_safetensors(small_network(), path),
    "model.onnx": lambda path: gpunet.export_onnx(small_network(), path),
    "figure.png": lambda path: save_figure(panels(1, 1, title="x")[0], path),
    "figure.svg": lambda path: save_figure(panels(1, 1, title="x")[0], path),
    "results.json": lambda path: results().save(path),
    "budgets.json": lambda path: write_budgets(path, read_budgets(default_path())),
    "index.html": lambda path: write_page([], Settings(seed=0, device="cpu", quick=True), "cpu", path.parent),
}


@pytest.mark.parametrize("name", WRITERS)
def test_an_older_file_survives_and_the_error_names_it(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    before = path.read_bytes()
    assert len(before) > LARGEST_FILE
    with full_disk(), pytest.raises(OSError, match=f"{name}'$") as caught:
        WRITERS[name](path)
    assert not isinstance(caught.value, gpunet.GpunetError)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    path.unlink()
    with full_disk(), pytest.raises(OSError, match=f"{name}'$"):
        WRITERS[name](path)
    assert list(tmp_path.iterdir()) == []


def test_a_document_survives(tmp_path):
    path = tmp_path / "README.md"
    outdated = document(path)
    with full_disk(), pytest.raises(OSError, match=r"README.md'$"):
        outdated.save()
    assert path.read_text() == outdated.text
    assert list(tmp_path.iterdir()) == [path]


def test_plots_of_results(tmp_path):
    with full_disk(), pytest.raises(OSError, match=r"\.png'$"):
        write_plots([results()], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_blobs(Path("places.csv"))
    train = ("train", "places.csv", "--target", "place", "--layers", "8", "--epochs", "1", "--quiet")
    predict = ("predict", "runs/places/model.safetensors", "places.csv", "--out", "out.csv")
    assert shell(capsys, *train, "--checkpoint", "--diagnose").status == shell(capsys, *predict).status == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for arguments, name in (
        ((*train, "--checkpoint"), "runs/places/checkpoint.safetensors"),
        ((*train, "--learning-rate", "0.01"), "runs/places/model.safetensors"),
        (predict, "out.csv"),
    ):
        with full_disk():
            assert refusal(capsys, *arguments) == f"gpunet: {name}: File too large\n"
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_lecture_figure(tmp_path, capsys):
    experiment = find_experiment("activations", ())
    with full_disk():
        line = refusal(capsys, "lecture", experiment.name, "--quick", "--out", tmp_path)
    assert line == f"gpunet: {tmp_path / experiment.name}.png: File too large\n"
    assert list(tmp_path.iterdir()) == []
