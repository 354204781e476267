"""``gpunet predict`` and ``gpunet evaluate``: round trips, which rows, and data that do not fit the model."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
import gpunet.data
from gpunet.data import Preparation
from tests.helpers.cli import refusal, shell, write_blobs, write_plane

Capture = pytest.CaptureFixture[str]

MODEL = "runs/places/model.safetensors"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def places(_empty_folder: None, capsys: Capture) -> tuple[np.ndarray[Any, Any], list[str]]:
    """A model of a table with text classes; returns the table's features and classes."""
    table = write_blobs(Path("places.csv"))
    assert shell(capsys, "train", "places.csv", "--target", "place", "--epochs", 5, "--layers", 8).status == 0
    return table


def prepared(features: np.ndarray[Any, Any]) -> tuple[gpunet.Network, Preparation, np.ndarray[Any, Any]]:
    network = gpunet.load(MODEL)
    preparation = Preparation.from_metadata(network.metadata, network.layer_sizes, MODEL)
    return network, preparation, preparation.inputs(features)


def test_predict_prints_what_the_network_predicts(places: Any, capsys: Capture) -> None:
    network, _, inputs = prepared(places[0])
    expected = [["north", "south, far"][label] for label in network.predict(inputs)]
    status, output, errors = shell(capsys, "predict", MODEL, "places.csv")
    assert (status, errors) == (0, "")
    assert output.splitlines() == expected


def test_predict_takes_a_table_without_target_and_in_another_order(places: Any, capsys: Capture) -> None:
    expected = shell(capsys, "predict", MODEL, "places.csv").output
    with Path("places.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with Path("new.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["depth", "width", "height"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    assert shell(capsys, "predict", MODEL, "new.csv").output == expected


def test_predict_does_not_look_at_targets(places: Any, capsys: Capture) -> None:
    Path("new.csv").write_text("width,height,depth,place\n1,1,1,\n1,1,1,unheard of\n")
    assert shell(capsys, "predict", MODEL, "new.csv").output == "north\nnorth\n"


def test_probabilities_and_table(places: Any, capsys: Capture) -> None:
    network, _, inputs = prepared(places[0])
    expected = network.predict_proba(inputs)
    status, output, errors = shell(
        capsys, "predict", MODEL, "places.csv", "--probabilities", "--out", "deep/predictions.csv"
    )
    assert (status, errors, output) == (0, "", "deep/predictions.csv: 60 predictions\n")
    with Path("deep/predictions.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["prediction", "probability north", "probability south, far"]
    assert np.array_equal(np.array([row[1:] for row in rows], dtype=np.float32), expected)

    printed = shell(capsys, "predict", MODEL, "places.csv", "--probabilities").output
    assert printed == Path("deep/predictions.csv").read_text()

    content = shell(capsys, "predict", MODEL, "places.csv", "--probabilities", "--json").json
    assert content.keys() == {"model", "data", "rows", "predictions", "class_names", "probabilities"}
    assert np.array_equal(np.array(content["probabilities"], dtype=np.float32), expected)


def test_regression_comes_back_in_the_units_of_its_targets(capsys: Capture) -> None:
    _, targets = write_plane(Path("plane.npz"))
    trained = shell(capsys, "train", "plane.npz", "--task", "regression", "--epochs", 40, "--json").json
    content = shell(capsys, "predict", trained["model"], "plane.npz", "--json").json
    assert np.corrcoef(content["predictions"], targets)[0, 1] > 0.95
    assert np.mean(content["predictions"]) == pytest.approx(500, abs=30)
    lines = shell(capsys, "predict", trained["model"], "plane.npz").output.split()
    assert np.allclose(np.array(lines, dtype=float), content["predictions"], rtol=1e-6)
    assert "predicts numbers" in refusal(capsys, "predict", trained["model"], "plane.npz", "--probabilities")

    evaluated = shell(capsys, "evaluate", trained["model"], "plane.npz", "--json").json
    assert evaluated["r2"] == pytest.approx(trained["test_r2"])
    assert evaluated["rmse"] == pytest.approx(trained["test_rmse"])
    assert evaluated["confusion"] is None
    assert "R2 " in shell(capsys, "evaluate", trained["model"], "plane.npz").output


def test_evaluate_takes_the_rows_held_out_from_training(capsys: Capture) -> None:
    trained = shell(capsys, "train", "digits", "--epochs", 3, "--seed", 7, "--json").json
    content = shell(capsys, "evaluate", trained["model"], "digits", "--json").json
    assert content["part"] == "held-out"
    assert content["is_training_data"] is True
    assert content["rows"] == 360
    assert content["accuracy"] == trained["test_accuracy"]
    assert content["loss"] == pytest.approx(trained["test_loss"])
    confusion = np.array(content["confusion"])
    assert confusion.sum() == 360
    assert np.trace(confusion) / 360 == pytest.approx(content["accuracy"])

    printed = shell(capsys, "evaluate", trained["model"], "digits").output
    assert printed.startswith("digits: 360 of 1,797 rows, those held out from training (seed 7)\n")
    assert "true \\ predicted" in printed
    printed = shell(capsys, "evaluate", trained["model"], "digits", "--all").output
    assert printed.startswith("digits: all 1,797 rows, including those that the model was trained on\n")


def test_evaluate_takes_all_rows_of_other_data(places: Any, capsys: Capture) -> None:
    write_blobs(Path("others.csv"), rows=30, seed=1)
    content = shell(capsys, "evaluate", MODEL, "others.csv", "--json").json
    assert (content["part"], content["rows"], content["is_training_data"]) == ("all", 30, False)
    printed = shell(capsys, "evaluate", MODEL, "others.csv").output
    assert printed.startswith("others: all 30 rows; not the data set that the model was trained on\n")


def test_a_model_knows_its_data_under_another_name(places: Any, capsys: Capture) -> None:
    Path("places.csv").rename("renamed.csv")
    assert shell(capsys, "evaluate", MODEL, "renamed.csv", "--json").json["part"] == "held-out"


def test_evaluate_refuses_a_split_that_it_cannot_make_again(places: Any, capsys: Capture) -> None:
    network = gpunet.load(MODEL)
    network.metadata["data"]["test_fingerprint"] = "another"
    network.save(MODEL)
    assert "--all" in refusal(capsys, "evaluate", MODEL, "places.csv")
    assert shell(capsys, "evaluate", MODEL, "places.csv", "--all").status == 0


def test_a_scaling_in_the_model_is_applied_in_python(places: Any, capsys: Capture) -> None:
    features, _ = places
    network = gpunet.load(MODEL)
    labels = network.predict(gpunet.data.scale_inputs(network, features))
    names = gpunet.data.class_names(network)
    assert names == ["north", "south, far"]
    assert [names[label] for label in labels] == shell(capsys, "predict", MODEL, "places.csv", "--json").json[
        "predictions"
    ]
    with pytest.raises(gpunet.ShapeError, match=r"X: got 2 columns\. Expected 3"):
        gpunet.data.scale_inputs(network, features[:, :2])
    with pytest.raises(gpunet.InvalidTypeError, match="X"):
        gpunet.data.scale_inputs(network, [["a", "b", "c"]])


def test_raw_iris_in_python_as_in_the_shell(capsys: Capture) -> None:
    from sklearn.datasets import load_iris

    iris = load_iris()
    lines = [
        ",".join([*map(repr, row), iris.target_names[label]])
        for row, label in zip(iris.data.tolist(), iris.target, strict=True)
    ]
    Path("iris.csv").write_text("\n".join(["a,b,c,d,species", *lines, ""]))
    shell(capsys, "train", "iris.csv", "--target", "species", "--epochs", 10)
    printed = shell(capsys, "predict", "runs/iris/model.safetensors", "iris.csv").output.splitlines()
    network = gpunet.load("runs/iris/model.safetensors")
    labels = network.predict(gpunet.data.scale_inputs(network, iris.data))
    assert [gpunet.data.class_names(network)[label] for label in labels] == printed
    assert (labels == iris.target).mean() > 0.9


def test_a_network_without_scaling_or_classes_is_refused_in_python(capsys: Capture) -> None:
    plain = gpunet.Network([3, 2])
    for ask in (gpunet.data.class_names, lambda network: gpunet.data.scale_inputs(network, np.zeros((1, 3)))):
        with pytest.raises(gpunet.FileFormatError, match="network: does not say how its data were prepared"):
            ask(plain)
    write_plane(Path("plane.npz"))
    shell(capsys, "train", "plane.npz", "--task", "regression", "--epochs", 1)
    with pytest.raises(gpunet.InvalidValueError, match="predicts numbers"):
        gpunet.data.class_names(gpunet.load("runs/plane/model.safetensors"))


def test_columns_and_classes_must_be_the_models(places: Any, capsys: Capture) -> None:
    Path("less.csv").write_text("width,depth\n1,2\n")
    assert "less.csv, line 1: the column 'height'" in refusal(capsys, "predict", MODEL, "less.csv")
    Path("more.csv").write_text("width,heigth,height,depth\n1,2,3,4\n")
    line = refusal(capsys, "predict", MODEL, "more.csv")
    assert "'heigth' is not known. Did you mean 'height'?" in line
    Path("class.csv").write_text("width,height,depth,place\n1,2,3,north\n\n1,2,3,nort\n")
    line = refusal(capsys, "evaluate", MODEL, "class.csv")
    assert "class.csv, column 'place', line 4: class: 'nort' is not known. Did you mean 'north'?" in line
    Path("unlabelled.csv").write_text("width,height,depth\n1,2,3\n")
    assert "'place' is not known" in refusal(capsys, "evaluate", MODEL, "unlabelled.csv")
    assert "has 64 features. The model expects 3" in refusal(capsys, "predict", MODEL, "digits")


def test_a_model_with_an_activation_of_ones_own_is_for_python(capsys: Capture) -> None:
    cube = gpunet.Activation("cube", forward=lambda s: s**3, derivative=lambda s: 3 * s**2, derivative_of="input")
    gpunet.Network([2, 3, 2], activation=cube, device="cpu").save("cube.npz")
    message = refusal(capsys, "predict", "cube.npz", "data.csv")
    assert "MODEL: 'cube.npz' has an activation that is none of gpunet's own" in message
    assert "gpunet.load(..., activations=[...])" in message


def test_a_model_without_data_preparation_is_refused(capsys: Capture) -> None:
    gpunet.Network([64, 10]).save("plain.npz")
    assert "'gpunet train' wrote" in refusal(capsys, "predict", "plain.npz", "digits")


@pytest.mark.parametrize(
    "change",
    [
        {"scaling": {"offset": [0.0], "scale": [1.0]}},
        {"scaling": {"offset": [0.0] * 3, "scale": [1.0, 0.0, 1.0]}},
        {"scaling": None},
        {"class_names": ["north"]},
        {"class_names": None},
        {"class_names": ["north", 3]},
        {"class_names": ["north", "north"]},
        {"class_names": "ns"},
        {"class_names": 0},
        {"task": "guessing"},
        {"task": "regression"},
        {"task": []},
        {"target_scaling": {"offset": [0.0], "scale": [1.0]}},
        {"scaling": {"offset": [10**400] * 3, "scale": [1.0] * 3}},
        {"scaling": {"offset": "0", "scale": {}}},
        {"feature_names": [1, 2, 3]},
        {"feature_names": "whd"},
        {"feature_names": None},
        {"seed": "0"},
        {"seed": -1},
        {"seed": 2**32},
        {"fingerprint": None},
        {"data_set": 3},
        {"target_name": 3},
        {"target_name": False},
        {"feature_names": ["width"]},
        {"unheard_of": 1},
    ],
)
def test_a_damaged_preparation_is_refused(change: dict[str, Any], places: Any, capsys: Capture) -> None:
    network = gpunet.load(MODEL)
    network.metadata["data"] |= change
    network.save(MODEL)
    assert "preparation" in refusal(capsys, "predict", MODEL, "places.csv")


def test_files_that_are_no_models_are_refused(capsys: Capture) -> None:
    write_plane(Path("plane.npz"))
    for name in ("broken.safetensors", "model.pickle"):
        Path(name).write_text("not a model")
    assert "MODEL: there is no file" in refusal(capsys, "evaluate", "missing.safetensors", "digits")
    assert "MODEL: 'plane.npz' was not written by gpunet" in refusal(capsys, "predict", "plane.npz", "digits")
    assert "MODEL: 'broken.safetensors' cannot be read" in refusal(capsys, "evaluate", "broken.safetensors", "digits")
    assert "Expected .safetensors or .npz" in refusal(capsys, "evaluate", "model.pickle", "digits")


def test_predictions_that_cannot_be_written_are_refused(places: Any, capsys: Capture) -> None:
    assert "does not end in .csv" in refusal(capsys, "predict", MODEL, "places.csv", "--out", "predictions.txt")
    line = refusal(capsys, "predict", MODEL, "places.csv", "--out", "places.csv/predictions.csv")
    assert "places.csv" in line


@pytest.mark.parametrize("command", ["predict", "predict --probabilities", "evaluate", "evaluate --all"])
def test_a_row_without_a_finite_output_is_named_by_its_line(places: Any, capsys: Capture, command: str) -> None:
    network = gpunet.load(MODEL)
    parameters = network.get_parameters()
    network.set_parameters({name: value * 1e15 for name, value in parameters.items() if name.startswith(("W", "b"))})
    network.save("huge.safetensors")
    lines = Path("places.csv").read_text().splitlines()
    line = 41
    cells = lines[line - 1].split(",")
    lines[line - 1] = ",".join(["1e30", *cells[1:]])
    Path("new.csv").write_text("\n".join(lines) + "\n")
    message = refusal(capsys, *command.split(), "huge.safetensors", "new.csv")
    assert message.startswith(f"gpunet: new.csv: the network's output for line {line} is ")


@pytest.mark.parametrize("out", ["places.csv", "runs/../places.csv", "link.csv", "hard.csv"])
def test_predictions_do_not_replace_the_data_they_are_made_from(out: str, places: Any, capsys: Capture) -> None:
    Path("link.csv").symlink_to("places.csv")
    Path("hard.csv").hardlink_to("places.csv")
    before = Path("places.csv").read_bytes()
    assert f"--out: {out} is places.csv, which is read" in refusal(capsys, "predict", MODEL, "places.csv", "--out", out)
    assert Path("places.csv").read_bytes() == before


def test_predictions_do_not_replace_the_model(places: Any, capsys: Capture) -> None:
    Path("link.csv").symlink_to(MODEL)
    line = refusal(capsys, "predict", MODEL, "places.csv", "--out", "link.csv")
    assert f"--out: link.csv is {MODEL}, which is read" in line
    assert gpunet.load(MODEL).layer_sizes == (3, 8, 2)


def test_evaluate_draws_the_confusions(places: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr("gpunet.cli.evaluate.save_figure", lambda figure, path: figures.append((figure, path)))
    confusion = shell(capsys, "evaluate", MODEL, "places.csv", "--plot", "confusions.svg", "--json").json["confusion"]
    (figure, path), *_ = figures
    assert path == Path("confusions.svg")
    (axes,) = figure.axes
    drawn = {(int(text.get_position()[1]), int(text.get_position()[0])): int(text.get_text()) for text in axes.texts}
    assert drawn == {(row, column): confusion[row][column] for row, column in zip(*np.nonzero(confusion), strict=True)}
    assert [name.get_text() for name in axes.get_xticklabels()] == ["north", "south, far"]


def test_evaluate_draws_no_confusions_of_a_regression(capsys: Capture) -> None:
    write_plane(Path("plane.npz"))
    shell(capsys, "train", "plane.npz", "--task", "regression", "--epochs", 1)
    command = ("evaluate", "runs/plane/model.safetensors", "plane.npz", "--plot")
    assert "--plot: draws the confusions of classes" in refusal(capsys, *command, "plane.png")
    assert "--plot: 'plane' has no ending. Expected" in refusal(capsys, *command, "plane")
    assert not Path("plane.png").exists()
