"""``gpunet train --diagnose`` and the initialisers that need data, from the shell."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import gpunet
from tests.helpers.cli import refusal, shell, write_blobs, write_plane

Capture = pytest.CaptureFixture[str]

pytest.importorskip("matplotlib")

FIGURES = [f"{name}.{suffix}" for name in ("diagnostics-layers", "diagnostics-training") for suffix in ("png", "svg")]
BLOBS = ("train", "places.csv", "--target", "place", "--layers", "8,8", "--batch-size", 8)


@pytest.fixture(autouse=True)
def _folder_with_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_blobs(Path("places.csv"))


@pytest.fixture
def small_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw empty figures, which takes a tenth of the time, where only the numbers are looked at."""
    from matplotlib.figure import Figure

    for name in ("draw_layers", "draw_training"):
        monkeypatch.setattr(f"gpunet.cli.diagnosis.{name}", lambda *arguments, **options: Figure(figsize=(1, 1)))


def test_files_and_verdict_of_a_healthy_run(capsys: Capture) -> None:
    status, output, errors = shell(capsys, *BLOBS, "--epochs", 3, "--diagnose")
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert lines[-3:-1] == [
        "runs/places/diagnostics.json, figures beside it",
        "diagnosis of 43 training rows: nothing unusual",
    ]
    for name in FIGURES:
        assert (Path("runs/places") / name).stat().st_size > 5000
    assert Path("runs/places/diagnostics-layers.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in Path("runs/places/diagnostics-training.svg").read_text()
    content = json.loads(Path("runs/places/diagnostics.json").read_text(), parse_constant=pytest.fail)
    assert content["findings"] == []
    assert content["thresholds"]["dead"] == 0.25
    assert [record["epoch"] for record in content["training"]] == [0, 1, 2, 3]
    assert [layer["units"] for layer in content["final"]["layers"]] == [8, 8, 2]


@pytest.mark.usefixtures("small_figures")
def test_json_has_the_findings(capsys: Capture) -> None:
    options = ("--no-batch-norm", "--activation", "tanh", "--initializer", "normal(30)", "--epochs", 2, "--json")
    content = shell(capsys, *BLOBS, *options, "--diagnose").json
    assert content["diagnostics"] == "runs/places/diagnostics.json"
    assert any("% of the activations are saturated" in finding for finding in content["findings"])
    assert content["findings"] == json.loads(Path(content["diagnostics"]).read_text())["findings"]
    assert "findings" not in shell(capsys, *BLOBS, *options).json


@pytest.mark.usefixtures("small_figures")
def test_too_large_updates_are_told_with_their_epoch(capsys: Capture) -> None:
    options = ("--optimizer", "sgd", "--learning-rate", "5", "--schedule", "constant", "--epochs", 3)
    output = shell(capsys, *BLOBS, *options, "--diagnose").output
    assert "diagnosis of 43 training rows:\n  " in output
    assert "of its norm, in epoch " in output
    assert output.count("a lower learning rate may help") == 1


@pytest.mark.usefixtures("small_figures")
def test_the_model_is_the_same_with_and_without(capsys: Capture) -> None:
    for folder, options in (("with", ("--diagnose",)), ("without", ())):
        shell(capsys, *BLOBS, "--epochs", 4, "--dropout", "0.2", "--patience", 2, "--out", folder, *options)
    ours, plain = (gpunet.load(f"{folder}/model.safetensors").get_parameters() for folder in ("with", "without"))
    for name, value in plain.items():
        np.testing.assert_array_equal(ours[name], value)


@pytest.mark.usefixtures("small_figures")
def test_long_runs_and_many_rows_are_looked_at_a_bounded_number_of_times(capsys: Capture) -> None:
    rng = np.random.default_rng(0)
    np.savez("many.npz", X=rng.standard_normal((2000, 3)), y=rng.integers(0, 2, 2000))
    shell(capsys, "train", "many.npz", "--layers", 4, "--epochs", 25, "--batch-size", 500, "--diagnose")
    content = json.loads(Path("runs/many/diagnostics.json").read_text())
    assert content["final"]["rows"] == 512
    assert [record["epoch"] for record in content["training"]] == [0, 3, 6, 9, 12, 15, 18, 21, 24, 25]


@pytest.mark.usefixtures("small_figures")
def test_a_resumed_run_and_one_with_nothing_left_to_do(capsys: Capture) -> None:
    shell(capsys, *BLOBS, "--epochs", 2, "--checkpoint", "--initializer", "lsuv")
    for epochs, seen in ((3, [2, 3]), (3, [3])):
        shell(capsys, *BLOBS, "--epochs", epochs, "--resume", "--initializer", "lsuv", "--diagnose")
        content = json.loads(Path("runs/places/diagnostics.json").read_text())
        assert [record["epoch"] for record in content["training"]] == seen


@pytest.mark.usefixtures("small_figures")
def test_a_diverged_run_is_diagnosed_too(capsys: Capture) -> None:
    shell(capsys, *BLOBS, "--epochs", 1, "--diagnose")
    before = Path("runs/places/diagnostics.json").read_bytes()
    options = ("--no-batch-norm", "--optimizer", "sgd", "--learning-rate", "1e9", "--epochs", 3, "--diagnose")
    message = refusal(capsys, *BLOBS, *options)
    assert "A diagnosis is in runs/places/diverged-diagnostics.json." in message
    assert Path("runs/places/diverged-diagnostics-layers.png").is_file()
    assert Path("runs/places/diagnostics.json").read_bytes() == before


@pytest.mark.usefixtures("small_figures")
def test_numbers_that_json_lacks_are_null(capsys: Capture) -> None:
    """One step in float64 to weights of 1e160, whose squares are infinite; tanh keeps the loss finite."""
    options = ("--dtype", "float64", "--no-batch-norm", "--activation", "tanh", "--optimizer", "sgd", "--l2", "0")
    sizes = ("--layers", "8", "--batch-size", "1000", "--epochs", "1", "--learning-rate", "1e160")
    places = ("train", "places.csv", "--target", "place")
    content = shell(capsys, *places, *options, *sizes, "--diagnose", "--json").json
    assert any("inf times its norm" in finding for finding in content["findings"])
    written = json.loads(Path(content["diagnostics"]).read_text(), parse_constant=pytest.fail)
    assert written["training"][-1]["parameters"][0]["update_ratio"] is None


def test_a_regression(capsys: Capture) -> None:
    write_plane(Path("plane.npz"))
    arguments = ("train", "plane.npz", "--task", "regression", "--layers", 6, "--epochs", 2, "--diagnose")
    assert shell(capsys, *arguments).status == 0
    assert Path("runs/plane/diagnostics.json").is_file()


def test_matplotlib_is_asked_for_before_training(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'gpunet[plot]'" in refusal(capsys, *BLOBS, "--diagnose")
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["lsuv", "data_dependent", "LSUV", "orthogonal(1.2)", "random_walk"])
def test_initializers_of_l21(name: str, capsys: Capture) -> None:
    content = shell(capsys, *BLOBS, "--epochs", 20, "--no-batch-norm", "--initializer", name, "--json").json
    assert content["train_accuracy"] > 0.9


def test_lsuv_starts_from_variance_1_on_the_training_rows(capsys: Capture) -> None:
    shell(
        capsys, *BLOBS, "--epochs", 1, "--no-batch-norm", "--initializer", "lsuv", "--learning-rate", "0", "--l2", "0"
    )
    network = gpunet.load("runs/places/model.safetensors")
    from gpunet.data import load_for_training, scale_inputs, split_rows

    data = load_for_training("places.csv", target="place")
    inputs = scale_inputs(network, data.features)[split_rows(data, 0).train]
    assert network.logits(inputs).var() == pytest.approx(1, abs=0.1)


def test_unknown_and_unusable_initializers(capsys: Capture) -> None:
    assert "Did you mean 'lsuv'" in refusal(capsys, *BLOBS, "--initializer", "lsuw")
    np.savez("same.npz", X=np.ones((40, 3)), y=np.arange(40) % 2)
    assert "every row is the same" in refusal(capsys, "train", "same.npz", "--initializer", "lsuv")
