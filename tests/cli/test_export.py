"""``gpunet export``: files that answer raw rows as ``gpunet predict`` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
from tests.helpers.cli import refusal, shell, write_blobs, write_plane

onnx = pytest.importorskip("onnx", reason="onnx is in the extra 'onnx'")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> str:
    """Of a table with text classes."""
    monkeypatch.chdir(tmp_path)
    write_blobs(Path("places.csv"))
    assert shell(capsys, "train", "places.csv", "--target", "place", "--epochs", 3, "--layers", 8).status == 0
    return "runs/places/model.safetensors"


def run(path: str, X: Any) -> list[Any]:
    from onnx.reference import ReferenceEvaluator

    found: list[Any] = ReferenceEvaluator(path).run(None, {"X": np.asarray(X, np.float32)})
    return found


def test_onnx_answers_as_predict_does(model: str, capsys: Capture) -> None:
    result = shell(capsys, "export", model, "places.onnx")
    assert (result.status, result.errors) == (0, "")
    assert result.output == "places.onnx: onnx, takes raw rows of 3 columns, knows 2 class names\n"
    features = np.loadtxt("places.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2))
    assert run("places.onnx", features)[0].tolist() == shell(capsys, "predict", model, "places.csv").output.splitlines()


def test_a_regression_answers_in_the_target_s_units(tmp_path: Path, capsys: Capture) -> None:
    features, targets = write_plane(Path("plane.npz"))
    shell(capsys, "train", "plane.npz", "--task", "regression", "--epochs", 30, "--layers", 8)
    content = shell(capsys, "export", "runs/plane/model.safetensors", "out/plane.onnx", "--json").json
    assert content == {
        "model": "runs/plane/model.safetensors",
        "out": str(Path("out/plane.onnx")),
        "format": "onnx",
        "columns": 3,
        "feature_names": ["x0", "x1", "x2"],
        "steps": ["scaling"],
        "class_names": None,
        "target_units": True,
    }
    expected = shell(capsys, "predict", "runs/plane/model.safetensors", "plane.npz", "--json").json["predictions"]
    (found,) = run("out/plane.onnx", features)
    np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=1e-5 * np.ptp(targets))


def test_the_network_alone(model: str, capsys: Capture) -> None:
    result = shell(capsys, "export", model, "bare.onnx", "--bare", "--dtype", "float64")
    assert result.output == "bare.onnx: onnx, takes 3 columns as the network does\n"
    graph = onnx.load("bare.onnx").graph
    assert [output.name for output in graph.output] == ["logits", "probabilities"]
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.DOUBLE


def test_weights_for_other_tools(model: str, capsys: Capture) -> None:
    from safetensors.numpy import load_file

    assert shell(capsys, "export", model, "weights.safetensors").status == 0
    weights = load_file("weights.safetensors")
    network = gpunet.load(model)
    assert weights["scaling1.offset"].tolist() == network.metadata["data"]["scaling"]["offset"]
    assert np.array_equal(weights["linear1.weight"], network.get_parameters()["W1"])


@pytest.mark.oracle
def test_a_program_of_pytorch(model: str, capsys: Capture) -> None:
    torch = pytest.importorskip("torch", reason="run by `make test-oracle`, which installs it")
    assert shell(capsys, "export", model, "places.pt2", "--to", "torch").status == 0
    network = gpunet.load(model)
    X = np.eye(3)
    found = torch.export.load("places.pt2").module()(torch.tensor(X)).detach().numpy()
    np.testing.assert_allclose(found, network.logits(gpunet.data.scale_inputs(network, X)), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_exported(model: str, capsys: Capture) -> None:
    before = Path(model).read_bytes()
    assert "OUT: 'model.pt' ends in '.pt'. Expected .onnx, .pt2" in refusal(capsys, "export", model, "model.pt")
    assert "OUT: 'model.pt' ends in '.pt'. Expected .onnx." in refusal(
        capsys, "export", model, "model.pt", "--to", "onnx"
    )
    assert f"OUT: {model} is {model}, which is read" in refusal(capsys, "export", model, model)
    assert "--input-dtype: safetensors has what the network has" in refusal(
        capsys, "export", model, "w.safetensors", "--input-dtype", "float32"
    )
    assert "MODEL: there is no file 'none.npz'" in refusal(capsys, "export", "none.npz", "model.onnx")
    assert Path(model).read_bytes() == before


def test_an_activation_of_the_users_own_is_said(capsys: Capture) -> None:
    cube = gpunet.Activation("cube", forward=lambda s: s**3, derivative=lambda s: 3 * s**2, derivative_of="input")
    gpunet.Network([2, 2, 2], activation=cube, device="cpu").save("own.npz")
    assert "MODEL: 'own.npz' has an activation that is none of gpunet's own" in refusal(
        capsys, "export", "own.npz", "own.onnx"
    )


def test_missing_values_are_filled_in_and_text_is_refused(capsys: Capture) -> None:
    rows = [f"{place},{'' if place % 5 == 0 else place % 7},{'ab'[place % 2]},{place % 3}" for place in range(60)]
    Path("gaps.csv").write_text("\n".join(["width,height,colour,kind", *rows, ""]))
    arguments = ("train", "gaps.csv", "--target", "kind", "--epochs", 2, "--layers", 8, "--missing", "mean")
    assert shell(capsys, *arguments, "--drop", "colour", "--out", "numbers").status == 0
    result = shell(capsys, "export", "numbers/model.safetensors", "gaps.onnx")
    assert result.output.startswith("gaps.onnx: onnx, takes raw rows of 2 columns, fills in missing values, knows 3")
    raw = [[place, np.nan if place % 5 == 0 else place % 7] for place in range(60)]
    predicted = shell(capsys, "predict", "numbers/model.safetensors", "gaps.csv").output.splitlines()
    assert run("gaps.onnx", raw)[0].tolist() == predicted
    assert shell(capsys, *arguments, "--categorical", "colour", "--out", "text").status == 0
    assert "columns of text, ['colour']" in refusal(capsys, "export", "text/model.safetensors", "text.onnx")
    assert shell(capsys, "export", "text/model.safetensors", "text.onnx", "--bare").status == 0
