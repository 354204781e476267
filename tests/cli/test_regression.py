"""Regression in the shell: targets of every size come back in their units, or are refused before a file is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gpunet.data import Preparation, load_for_training, split_rows
from tests.helpers.cli import refusal, shell

Capture = pytest.CaptureFixture[str]
ROWS = 200
OPTIONS = ("--task", "regression", "--layers", 16, "--epochs", 40, "--json")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_line(offset: float, slope: float) -> npt.NDArray[Any]:
    """Write y = offset + slope x and return y."""
    x = np.random.default_rng(0).uniform(0, 10, ROWS)
    y = offset + slope * x
    lines = [f"{a!r},{b!r}" for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    Path("line.csv").write_text("\n".join(["x,y", *lines, ""]))
    return y


def train(capsys: Capture, *options: object) -> dict[str, Any]:
    return shell(capsys, "train", "line.csv", "--target", "y", *OPTIONS, *options).json


@pytest.mark.parametrize(
    ("offset", "slope"),
    [
        (1.7e9, 60.0),  # seconds since 1970
        (2_460_000.5, 0.01),  # julian dates
        (5_432_100.0, 0.5),  # metres on a map
        (0.0, 1e-50),
        (0.0, 1e51),
        (1e51, 1e50),
        (0.0, 1e-150),
        (0.0, 1e150),
    ],
)
def test_predictions_are_as_fine_as_their_targets(offset: float, slope: float, capsys: Capture) -> None:
    targets = write_line(offset, slope)
    trained = train(capsys)
    assert trained["test_r2"] > 0.95

    predicted = shell(capsys, "predict", trained["model"], "line.csv", "--json").json["predictions"]
    assert len(set(predicted)) > 0.9 * ROWS
    held_out = split_rows(load_for_training("line.csv", target="y", task="regression"), 0).test
    errors = np.array(predicted)[held_out] - targets[held_out]
    assert np.sqrt(np.mean((errors / slope) ** 2)) * slope == pytest.approx(trained["test_rmse"], rel=1e-6)
    # What is printed, in the table and in JSON, is one number.
    assert [float(line) for line in shell(capsys, "predict", trained["model"], "line.csv").output.split()] == predicted
    shell(capsys, "predict", trained["model"], "line.csv", "--out", "out.csv")
    assert [float(line) for line in Path("out.csv").read_text().split()[1:]] == predicted

    evaluated = shell(capsys, "evaluate", trained["model"], "line.csv", "--json").json
    assert evaluated["r2"] == trained["test_r2"]
    assert evaluated["rmse"] == trained["test_rmse"]


def test_a_constant_target_is_predicted_in_its_own_size(capsys: Capture) -> None:
    write_line(1e51, 0.0)
    trained = train(capsys)
    predicted = shell(capsys, "predict", trained["model"], "line.csv", "--json").json["predictions"]
    assert predicted == [1e51] * ROWS


@pytest.mark.parametrize("slope", [1e-170, 5e-324, 1e160, 1e307])
def test_targets_that_cannot_be_scaled_are_refused_before_anything_is_written(slope: float, capsys: Capture) -> None:
    write_line(0.0, slope)
    line = refusal(capsys, "train", "line.csv", "--target", "y", *OPTIONS)
    assert "column 'y': its numbers, from" in line
    assert not Path("runs").exists()


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("column", ["x", "y"])
def test_a_number_out_of_the_networks_range_is_refused_before_anything_is_written(
    part: str, column: str, capsys: Capture
) -> None:
    x = np.random.default_rng(0).uniform(0, 10, (ROWS, 1))
    y = 1e-40 * x[:, 0]
    x *= 1e-40
    np.savez("line.npz", X=x, y=y)
    row = getattr(split_rows(load_for_training("line.npz", task="regression"), 0), part)[3]
    (x if column == "x" else y)[row] = 1.0
    np.savez("line.npz", X=x, y=y)
    options = ("train", "line.npz", *OPTIONS)
    line = refusal(capsys, *options)
    place = "line.npz, column 0" if column == "x" else "line.npz, array 'y'"
    assert f"{place}, row {row}: 1.0 is " in line
    assert "Expected what float32 can hold" in line
    assert not Path("runs").exists()
    assert shell(capsys, *options, "--dtype", "float64").status == 0


def test_a_number_out_of_the_networks_range_is_named_by_predict_and_evaluate(capsys: Capture) -> None:
    write_line(0.0, 1e-40)
    model = train(capsys)["model"]
    Path("line.csv").write_text("x,y\n1,1e-40\n2,3\n")
    assert "line.csv, column 'y', line 3: 3.0 is" in refusal(capsys, "evaluate", model, "line.csv")
    assert shell(capsys, "predict", model, "line.csv").status == 0
    Path("line.csv").write_text("x,y\n1,1e-40\n1e300,1e-40\n")
    for command in ("evaluate", "predict"):
        assert "line.csv, column 'x', line 3: 1e+300 is" in refusal(capsys, command, model, "line.csv")


def test_outputs_come_back_in_float64() -> None:
    preparation = _preparation()
    outputs = np.array([[0.0], [1e-3]], dtype=np.float32)
    numbers = preparation.numbers(outputs)
    assert numbers.dtype == np.float64
    assert numbers.tolist() == [1.7e9, 1.7e9 + 60 * float(np.float32(1e-3))]


def _preparation() -> Preparation:
    scaling = {"offset": [0.0], "scale": [1.0]}
    data = {"data_set": "line", "task": "regression", "feature_names": ["x"], "class_names": None, "target_name": "y"}
    data |= {"seed": 0, "fingerprint": "", "test_fingerprint": "", "scaling": scaling}
    data["target_scaling"] = {"offset": [1.7e9], "scale": [60.0]}
    return Preparation.from_metadata({"data": data}, [1, 1], "network")
