"""``gpunet train``: results, files, resuming, divergence, interruption."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import gpunet
import gpunet.cli.train as train_command
from gpunet import plotting
from gpunet.data import load_for_training, split_rows
from gpunet.serialization import read_tensors, write_tensors
from tests.helpers.cli import refusal, shell, write_blobs, write_plane

Capture = pytest.CaptureFixture[str]

TRAIN_KEYS = {
    "data",
    "task",
    "rows",
    "classes",
    "layers",
    "parameters",
    "epochs",
    "best_epoch",
    "stopped_early",
    "seconds",
    "samples_per_second",
    "ranks",
    "shards",
    "device",
    "dtype",
    "precision",
    "seed",
    "model",
    "history",
    "plot",
    "checkpoint",
}
SCORES = {f"{part}_{name}" for part in ("train", "validation", "test") for name in ("loss", "accuracy")}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_digits_reach_the_promised_accuracy(capsys: Capture) -> None:
    result = shell(capsys, "train", "digits", "--json")
    assert result.status == 0
    assert result.errors == ""
    content = result.json
    assert content.keys() == TRAIN_KEYS | SCORES
    assert content["test_accuracy"] >= 0.975
    assert content["rows"] == {"train": 1293, "validation": 144, "test": 360}
    assert content["layers"] == [64, 128, 128, 10]
    assert content["parameters"] == gpunet.load("runs/digits/model.safetensors").parameter_count
    assert content["seed"] == 0
    assert content["checkpoint"] is None
    history = json.loads(Path(content["history"]).read_text())
    assert len(history["epochs"]) == content["epochs"] == 30


def test_the_test_rows_are_those_of_scikit_learn_and_no_row_is_in_two_parts(capsys: Capture) -> None:
    from sklearn.model_selection import train_test_split

    data = load_for_training("digits")
    split = split_rows(data, 5)
    expected = train_test_split(np.arange(data.rows), test_size=0.2, random_state=5, stratify=data.targets)[1]
    assert np.array_equal(split.test, expected)
    everything = np.concatenate([split.train, split.validation, split.test])
    assert np.array_equal(np.sort(everything), np.arange(data.rows))


def test_mnist5k(capsys: Capture) -> None:
    content = shell(capsys, "train", "mnist5k", "--epochs", 2, "--batch-size", 128, "--layers", 64, "--json").json
    assert content["test_accuracy"] > 0.85
    assert content["layers"] == [784, 64, 10]
    assert content["rows"]["test"] == 1000


def test_text_result_and_comparison_with_scikit_learn(capsys: Capture) -> None:
    write_blobs(Path("places.csv"))
    arguments = ("train", "places.csv", "--target", "place", "--epochs", 3, "--layers", 8, "--compare-sklearn")
    status, output, errors = shell(capsys, *arguments)
    assert (status, errors) == (0, "")
    assert "scikit-learn" in output
    assert output.split()[0] == "part"
    assert output.strip(" \n") + "\n" == output.lstrip()
    assert "runs/places/model.safetensors" in output
    assert output.splitlines()[-1].startswith("test accuracy ")
    assert "\x1b" not in output

    content = shell(capsys, *arguments, "--json").json
    assert 0 <= content["sklearn_test_accuracy"] <= 1
    assert content["sklearn_test_loss"] > 0


@pytest.mark.parametrize(
    "options",
    [
        ("--optimizer", "sgd", "--learning-rate", "0.05", "--momentum", "0.5", "--schedule", "step"),
        ("--optimizer", "adamw", "--schedule", "cyclical", "--clip-norm", "1"),
        ("--schedule", "one_cycle"),
        ("--schedule", "reduce_on_plateau"),
        ("--accumulate", "2", "--average", "0.9", "--learning-rate", "0.02"),
        ("--no-batch-norm", "--schedule", "constant", "--activation", "leaky_relu(0.1)", "--dropout", "0.1"),
        ("--activation", "gelu"),
        ("--no-batch-norm", "--activation", "silu"),
        ("--label-smoothing", "0.1"),
        ("--loss", "softmax_cross_entropy(0.2)", "--class-weight", "balanced"),
        ("--class-weight", "balanced", "--dtype", "float64", "--l2", "0", "--initializer", "xavier_uniform"),
        ("--device", "cpu", "--seed", "4294967295", "--quiet", "--out", "elsewhere/deep"),
    ],
)
def test_options(options: tuple[str, ...], capsys: Capture) -> None:
    write_blobs(Path("places.csv"))
    content = shell(
        capsys,
        *("train", "places.csv", "--target", "place", "--epochs", 20, "--batch-size", 8, "--layers", "8,8", "--json"),
        *options,
    ).json
    assert content["train_accuracy"] > 0.9
    assert Path(content["model"]).is_file()


def test_schedules_end_where_their_help_says(capsys: Capture) -> None:
    steps = 90
    rates = {name: make(0.1, steps) for name, make in train_command.SCHEDULES.items()}
    assert [rates["constant"](step) for step in (0, 89)] == [0.1, 0.1]
    assert [rates["step"](step) for step in (0, 29, 30, 89)] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert rates["cosine"](0) == 0.1
    assert rates["cosine"](90) == pytest.approx(0)
    assert [rates["cyclical"](step) for step in (0, 15, 30, 75, 90)] == pytest.approx([0.01, 0.1, 0.01, 0.1, 0.01])


def test_patience_stops_and_keeps_the_best_weights(capsys: Capture) -> None:
    write_blobs(Path("places.csv"))
    content = shell(
        capsys,
        *("train", "places.csv", "--target", "place", "--json", "--layers", 8, "--epochs", 300, "--patience", 2),
        *("--learning-rate", 0.1, "--schedule", "constant"),
    ).json
    assert content["stopped_early"] is True
    assert content["epochs"] == content["best_epoch"] + 2
    history = json.loads(Path(content["history"]).read_text())
    best = history["epochs"][content["best_epoch"] - 1]
    assert content["validation_loss"] == pytest.approx(best["validation_loss"])


def test_regression(capsys: Capture) -> None:
    write_plane(Path("plane.npz"))
    content = shell(
        capsys, "train", "plane.npz", "--task", "regression", "--epochs", 40, "--json", "--compare-sklearn"
    ).json
    assert content["test_r2"] > 0.8
    assert content["test_rmse"] < 40
    assert "test_accuracy" not in content
    assert content["layers"][-1] == 1
    assert content["sklearn_test_r2"] < 1

    status, output, _ = shell(capsys, "train", "plane.npz", "--task", "regression", "--epochs", 2)
    assert status == 0
    assert "test R2 " in output


@pytest.mark.parametrize("loss", ["huber(0.5)", "quantile(0.9)"])
def test_a_regression_learns_by_the_loss_that_is_asked_for(loss: str, capsys: Capture) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 400)
    rows = [f"{a!r},{a + b!r}" for a, b in zip(x.tolist(), rng.exponential(1.0, 400).tolist(), strict=True)]
    Path("delays.csv").write_text("\n".join(["x,delay", *rows]), encoding="utf-8")
    options = ("--task", "regression", "--epochs", 20, "--layers", "8", "--loss", loss, "--json")
    content = shell(capsys, "train", "delays.csv", "--target", "delay", *options).json
    network = gpunet.load(content["model"], device="cpu")
    assert network.configuration["loss"] == loss
    if loss == "quantile(0.9)":
        y = np.array([float(row.split(",")[1]) for row in rows])
        found = network.predict((x.reshape(-1, 1) - x.mean()) / x.std()) * y.std() + y.mean()
        assert 0.8 < (y < found).mean() < 0.97


def test_a_regression_target_is_scaled_by_the_training_part_only(capsys: Capture) -> None:
    _, targets = write_plane(Path("plane.npz"))
    shell(capsys, "train", "plane.npz", "--task", "regression", "--epochs", 1)
    data = gpunet.load("runs/plane/model.safetensors").metadata["data"]
    train = split_rows(load_for_training("plane.npz", task="regression"), 0).train
    assert data["target_scaling"]["offset"] == [pytest.approx(targets[train].mean())]
    assert data["target_scaling"]["scale"] == [pytest.approx(targets[train].std())]


def test_the_same_seed_gives_the_same_model_and_another_seed_another(capsys: Capture) -> None:
    write_blobs(Path("places.csv"))

    def weights(seed: int) -> np.ndarray[Any, Any]:
        shell(capsys, "train", "places.csv", "--target", "place", "--epochs", 2, "--seed", seed)
        return gpunet.load("runs/places/model.safetensors").get_parameters()["W1"]

    first = weights(1)
    assert np.array_equal(first, weights(1))
    assert not np.array_equal(first, weights(2))


# --- classes ---------------------------------------------------------------------------------------------------------


def write_labels(counts: dict[str, int], path: str = "labels.csv") -> None:
    """Write a table with so many rows of each class."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    Path(path).write_text("\n".join(["x,y", *(f"{row},{label}" for row, label in enumerate(labels)), ""]))


def test_classes_are_listed_with_their_rows(capsys: Capture) -> None:
    write_labels({"0": 30, "1": 20, "NA": 2})
    options = ("train", "labels.csv", "--target", "y", "--epochs", 1)
    status, output, errors = shell(capsys, *options)
    assert (status, errors) == (0, "")
    assert "\n3 classes and their rows: 0 (30), 1 (20), NA (2)\n" in output
    assert "\nall rows of NA (2) are for training, because a class of fewer than 3 cannot be split\n" in output

    content = shell(capsys, *options, "--json").json
    assert content["classes"][2] == {"name": "NA", "rows": 2, "train": 2, "validation": 0, "test": 0}
    assert [one["name"] for one in content["classes"]] == ["0", "1", "NA"]
    for part in ("train", "validation", "test"):
        assert sum(one[part] for one in content["classes"]) == content["rows"][part]
    evaluated = shell(capsys, "evaluate", content["model"], "labels.csv", "--json").json
    assert (evaluated["part"], evaluated["accuracy"]) == ("held-out", content["test_accuracy"])


def test_a_long_list_of_classes_is_cut_and_a_common_class_is_not_called_rare(capsys: Capture) -> None:
    write_labels({f"c{label:02}": 20 for label in range(25)})
    options = ("train", "labels.csv", "--target", "y", "--epochs", 1)
    output = shell(capsys, *options).output
    assert "\n25 classes and their rows: c00 (20), c01 (20), " in output
    assert ", c19 (20), ... (5 more)\n" in output
    assert "cannot be split" not in output
    assert len(shell(capsys, *options, "--json").json["classes"]) == 25


def test_a_regression_has_no_classes(capsys: Capture) -> None:
    write_plane(Path("plane.npz"))
    options = ("train", "plane.npz", "--task", "regression", "--epochs", 1)
    assert shell(capsys, *options, "--json").json["classes"] is None
    assert "classes" not in shell(capsys, *options).output


# --- what is in the folder already -----------------------------------------------------------------------------------


def content_of(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture
def namesakes(capsys: Capture) -> None:
    """Two tables of one name, and a model of the first."""
    for folder, counts in (("A", {"0": 30, "1": 20}), ("B", {"0": 20, "1": 30})):
        Path(folder).mkdir()
        write_labels(counts, f"{folder}/data.csv")
    assert shell(capsys, "train", "A/data.csv", "--target", "y", "--epochs", 1).status == 0


@pytest.mark.parametrize("source", ["B/data.csv", "data.npz"])
@pytest.mark.parametrize("change", [None, "foreign", "of another library"])
def test_a_model_of_other_data_is_not_replaced_unasked(
    change: str | None, source: str, namesakes: None, capsys: Capture
) -> None:
    np.savez("data.npz", X=np.arange(50.0).reshape(50, 1), y=np.arange(50) % 2)
    if change == "foreign":  # a network of somebody's own
        gpunet.Network([1, 2]).save("runs/data/model.safetensors")
    if change == "of another library":
        safetensors.numpy.save_file({"weight": np.zeros(3)}, "runs/data/model.safetensors")
    before = content_of("runs/data")
    options = ("train", source, *(("--target", "y") if source.endswith("csv") else ()), "--epochs", 1)
    line = refusal(capsys, *options)
    assert f"--out: runs/data/model.safetensors was trained on other data than {source}" in line
    assert content_of("runs/data") == before

    assert shell(capsys, *options, "--out", "runs/mine").errors == ""
    replaced = shell(capsys, *options, "--out", "runs/data")
    assert replaced.status == 0
    assert replaced.errors == "runs/data/model.safetensors was trained on other data and will be replaced\n"
    assert content_of("runs/data")["model.safetensors"] != before["model.safetensors"]
    first = ("train", "A/data.csv", "--target", "y", "--epochs", 1, "--out", "runs/data", "--quiet")
    assert shell(capsys, *first).errors == ""


def test_a_checkpoint_of_other_data_is_not_replaced_unasked(namesakes: None, capsys: Capture) -> None:
    first = ("train", "A/data.csv", "--target", "y", "--epochs", 1, "--checkpoint", "--quiet")
    assert shell(capsys, *first).status == 0
    Path("runs/data/model.safetensors").unlink()  # as if the run had been interrupted
    before = content_of("runs/data")
    options = ("train", "B/data.csv", "--target", "y", "--epochs", 1, "--checkpoint")
    line = refusal(capsys, *options)
    assert "--out: runs/data/checkpoint.safetensors was trained on other data than B/data.csv" in line
    assert content_of("runs/data") == before
    replaced = shell(capsys, *options, "--out", "runs/data")
    assert replaced.errors == "runs/data/checkpoint.safetensors was trained on other data and will be replaced\n"

    checkpoint = Path("runs/data/checkpoint.safetensors")
    Path("runs/data/model.safetensors").unlink()
    tensors, header = read_tensors(checkpoint)
    del header["metadata"]  # which the first checkpoints lack
    write_tensors(checkpoint, tensors, header)
    assert shell(capsys, *first).status == 0


@pytest.mark.parametrize(("old", "new", "what"), [("x,y", "z,y", "feature names"), (",1\n", ",2\n", "class names")])
def test_other_names_of_the_same_numbers_are_other_data(
    old: str, new: str, what: str, namesakes: None, capsys: Capture
) -> None:
    """Features and labels are the numbers that they were, and a model of the old names would be given the new ones."""
    common = ("--target", "y", "--epochs", 2, "--checkpoint", "--quiet")
    assert shell(capsys, "train", "A/data.csv", *common).status == 0
    text = Path("A/data.csv").read_text()
    assert old in text
    Path("A/data.csv").write_text(text.replace(old, new))
    before = content_of("runs/data")
    assert "was trained on other data" in refusal(capsys, "train", "A/data.csv", *common)
    line = refusal(capsys, "train", "A/data.csv", *common, "--resume", "--out", "runs/data")
    assert line == f"gpunet: --resume: 'runs/data/checkpoint.safetensors' is of a run with other {what}.\n"
    assert content_of("runs/data") == before


def test_a_model_of_the_same_data_is_replaced(namesakes: None, capsys: Capture) -> None:
    Path("A").rename("C")
    before = content_of("runs/data")
    again = shell(capsys, "train", "C/data.csv", "--target", "y", "--epochs", 1, "--seed", 1)
    assert (again.status, again.errors) == (0, "")
    assert content_of("runs/data") != before


def test_a_damaged_model_is_replaced(namesakes: None, capsys: Capture) -> None:
    Path("runs/data/model.safetensors").write_text("rubbish")
    assert shell(capsys, "train", "B/data.csv", "--target", "y", "--epochs", 1).status == 0


# --- interruption, resuming ------------------------------------------------------------------------------------------


class _Interrupt(gpunet.Callback):
    """Control-C after an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_end(self, run: gpunet.Run, record: gpunet.EpochRecord) -> None:
        if record.epoch == self.epoch:
            raise KeyboardInterrupt


def interrupt_after(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted_fit(*arguments: Any, callbacks: list[gpunet.Callback], **options: Any) -> gpunet.History:
        return gpunet.fit(*arguments, callbacks=[*callbacks, _Interrupt(epoch)], **options)

    monkeypatch.setattr(train_command, "fit", interrupted_fit)


class _Noting(gpunet.Callback):
    """Notes the batches that are done; sends Ctrl-C once, after a batch of the second epoch."""

    def __init__(self, batch: int | None = None) -> None:
        self.batch = batch
        self.steps = self.sent_after = 0

    def on_step_end(self, run: gpunet.Run) -> None:
        self.steps = run.network.steps
        assert run.steps_per_epoch is not None
        if self.batch is not None and (run.epoch, run.step_in_epoch) == (2, self.batch % run.steps_per_epoch + 1):
            self.sent_after = self.steps
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("batch", "epochs", "more"), [(0, 1, 1), (-1, 2, 0)])
def test_ctrl_c_stops_after_a_batch_and_keeps_the_checkpoint(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, batch: int, epochs: int, more: int
) -> None:
    """Within a batch, which is done to its end; after the last one, the epoch is complete and in the checkpoint."""
    write_blobs(Path("places.csv"))
    options = ("train", "places.csv", "--target", "place", "--epochs", 3, "--layers", 8, "--batch-size", 8)
    noting, sending = _Noting(), _Noting(batch)  # before and after the command's own callbacks

    def interrupted_fit(*arguments: Any, callbacks: list[gpunet.Callback], **options: Any) -> gpunet.History:
        return gpunet.fit(*arguments, callbacks=[noting, *callbacks, sending], **options)

    with monkeypatch.context() as patch:
        patch.setattr(train_command, "fit", interrupted_fit)
        status, output, errors = shell(capsys, *options, "--checkpoint")
    assert (status, output) == (130, "")
    assert errors == (
        "gpunet: interrupted; the checkpoint is runs/places/checkpoint.safetensors, and --resume goes on from it\n"
    )
    assert noting.steps == sending.sent_after + more
    stored = read_tensors("runs/places/checkpoint.safetensors")[1]
    assert len(stored["history"]["epochs"]) == epochs
    assert shell(capsys, *options, "--resume", "--json").json["epochs"] == 3


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_plot_has_loss_accuracy_and_confusions(capsys: Capture, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    figures = []

    def save_figure(figure: Any, path: Path) -> Path:
        figures.append(figure)
        return plotting.save_figure(figure, path)

    monkeypatch.setattr(train_command, "save_figure", save_figure)
    write_blobs(Path("places.csv"))
    options = ("train", "places.csv", "--target", "place", "--epochs", 3, "--layers", 8, "--plot", f"new/run{suffix}")
    assert shell(capsys, *options, "--json").json["plot"] == f"new/run{suffix}"
    assert Path(f"new/run{suffix}").read_bytes().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    loss, accuracy, confusions = figures[0].axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy")
    assert [name.get_text() for name in confusions.get_yticklabels()] == ["north", "south, far"]
    counts = sum(int(text.get_text()) for text in confusions.texts)
    assert counts == shell(capsys, *options, "--json").json["rows"]["test"]

    write_plane(Path("plane.npz"))
    options = ("train", "plane.npz", "--task", "regression", "--epochs", 2, "--plot", f"plane{suffix}")
    assert f"plane{suffix}" in shell(capsys, *options).output
    assert [axes.get_ylabel() for axes in figures[-1].axes] == ["loss"]


def test_a_plot_that_cannot_be_drawn_is_refused_before_training(capsys: Capture) -> None:
    write_blobs(Path("places.csv"))
    options = ("train", "places.csv", "--target", "place", "--plot")
    assert "--plot: 'run.doc' ends in '.doc'. Expected ." in refusal(capsys, *options, "run.doc")
    assert not Path("runs").exists()


def test_resuming_gives_what_an_uninterrupted_run_gives(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    write_blobs(Path("places.csv"))
    options = ("train", "places.csv", "--target", "place", "--epochs", 6, "--dropout", 0.2, "--layers", 8)
    whole = shell(capsys, *options, "--out", "whole", "--json").json

    with monkeypatch.context() as patch:
        interrupt_after(3, patch)
        status, output, errors = shell(capsys, *options, "--out", "parts", "--checkpoint")
    assert (status, output) == (130, "")
    assert errors.startswith("gpunet: interrupted; the checkpoint is parts/checkpoint.safetensors")
    assert errors.count("\n") == 1
    assert not Path("parts/model.safetensors").exists()

    parts = shell(capsys, *options, "--out", "parts", "--resume", "--json").json
    assert parts["checkpoint"] == "parts/checkpoint.safetensors"
    assert parts["epochs"] == 6
    assert all(parts[score] == whole[score] for score in SCORES)
    expected, found = (gpunet.load(run["model"]) for run in (whole, parts))
    for name, values in (expected.get_parameters() | expected.get_state()).items():
        assert np.array_equal(values, (found.get_parameters() | found.get_state())[name]), name


def test_a_checkpoint_of_an_interrupted_run_is_not_replaced_in_silence(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_blobs(Path("places.csv"))
    options = ("train", "places.csv", "--target", "place", "--epochs", 2, "--layers", 8)
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        for _ in range(2):
            status, _, errors = shell(capsys, *options, "--checkpoint", "--quiet")
            assert (status, errors.count("\n")) == (130, 1)
    assert shell(capsys, *options, "--out", "other", "--checkpoint").errors == ""
    result = shell(capsys, *options, "--checkpoint")
    assert result.status == 0
    assert result.errors.startswith(
        "runs/places/checkpoint.safetensors, of a run that was interrupted, will be replaced"
    )
    assert shell(capsys, *options, "--checkpoint").errors == ""  # there is a model of these data now


def test_an_interrupt_without_checkpoint_says_that_nothing_was_kept(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_blobs(Path("places.csv"))
    interrupt_after(1, monkeypatch)
    status, _, errors = shell(capsys, "train", "places.csv", "--target", "place")
    assert status == 130
    assert errors == "gpunet: interrupted; nothing was kept (--checkpoint keeps each epoch)\n"
    assert not Path("runs").exists()


def test_resuming_with_another_network_is_refused(capsys: Capture) -> None:
    write_blobs(Path("places.csv"))
    options = ("train", "places.csv", "--target", "place", "--epochs", 1)
    shell(capsys, *options, "--layers", 8, "--checkpoint")
    assert "layer_sizes" in refusal(capsys, *options, "--layers", 9, "--resume")
    assert "no checkpoint 'new/checkpoint.safetensors'" in refusal(capsys, *options, "--out", "new", "--resume")


def test_resuming_a_finished_run_says_that_nothing_is_left(capsys: Capture) -> None:
    write_blobs(Path("places.csv"))
    options = ("train", "places.csv", "--target", "place", "--layers", 8)
    first = shell(capsys, *options, "--epochs", 3, "--checkpoint", "--json").json
    status, output, errors = shell(capsys, *options, "--epochs", 3, "--resume")
    assert (status, errors) == (0, "nothing left to do: the checkpoint has 3 epochs; more with --epochs\n")
    assert "test accuracy" in output
    result = shell(capsys, *options, "--epochs", 2, "--resume", "--json", "--quiet")
    assert result.errors == ""
    assert all(result.json[score] == first[score] for score in SCORES)
    longer = shell(capsys, *options, "--epochs", 4, "--resume")
    assert longer.errors == (
        "gpunet: warning: checkpoint: 'runs/places/checkpoint.safetensors': its learning rate was "
        "CosineRate(initial=0.003, steps=6, final=0.0), and is CosineRate(initial=0.003, steps=8, final=0.0) now.\n"
    )


def test_resuming_a_run_that_stopped_early_says_so(capsys: Capture) -> None:
    write_blobs(Path("places.csv"))
    options = ("train", "places.csv", "--target", "place", "--layers", 8, "--epochs", 300, "--patience", 2)
    first = shell(capsys, *options, "--checkpoint", "--json").json
    result = shell(capsys, *options, "--resume", "--json")
    assert result.errors == f"nothing left to do: the run stopped early, after {first['epochs']} epochs\n"
    assert result.json["best_epoch"] == first["best_epoch"]


# --- divergence ------------------------------------------------------------------------------------------------------


def test_a_diverged_run_keeps_its_last_good_weights_and_says_where(capsys: Capture) -> None:
    line = refusal(
        capsys,
        *("train", "digits", "--optimizer", "sgd", "--no-batch-norm", "--learning-rate", "100", "--json"),
        *("--out", "wild"),
    )
    assert "the loss became" in line
    assert "wild/diverged.safetensors" in line
    assert "wild/diverged-history.json" in line
    network = gpunet.load("wild/diverged.safetensors")
    assert all(np.isfinite(values).all() for values in network.get_parameters().values())
    assert json.loads(Path("wild/diverged-history.json").read_text())["epochs"] == []


def test_a_diverged_run_leaves_a_good_model_as_it_is(capsys: Capture) -> None:
    shell(capsys, "train", "digits", "--epochs", 1)
    kept = {path.name: path.read_bytes() for path in Path("runs/digits").iterdir()}
    line = refusal(
        capsys, "train", "digits", "--optimizer", "sgd", "--no-batch-norm", "--learning-rate", "100", "--epochs", 1
    )
    assert "runs/digits/diverged.safetensors" in line
    found = {path.name: path.read_bytes() for path in Path("runs/digits").iterdir()}
    assert found.keys() == {"model.safetensors", "history.json", "diverged.safetensors", "diverged-history.json"}
    assert all(found[name] == content for name, content in kept.items())


def test_a_loss_that_is_infinite_on_test_rows_becomes_null(capsys: Capture) -> None:
    features, targets = write_plane(Path("plane.npz"))
    split = split_rows(load_for_training("plane.npz", task="regression"), 0)
    targets[split.test[0]] = 1e25  # its square overflows float32
    np.savez("plane.npz", X=features, y=targets)
    content = shell(capsys, "train", "plane.npz", "--task", "regression", "--epochs", 2, "--json").json
    assert content["test_loss"] is None
    assert content["validation_loss"] > 0


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision(capsys, precision):
    """It is trained, resumed, said, found again in the file, and scored."""
    command = ("train", "digits", "--layers", "20", "--precision", precision)
    assert shell(capsys, *command, "--epochs", "3", "--checkpoint").status == 0
    trained = shell(capsys, *command, "--epochs", "6", "--resume", "--json").json
    assert (trained["precision"], trained["dtype"], trained["epochs"]) == (precision, "float32", 6)
    assert trained["test_accuracy"] > 0.85
    found = shell(capsys, "evaluate", trained["model"], "digits", "--json").json
    assert found["accuracy"] == pytest.approx(trained["test_accuracy"], abs=0.1)
    assert precision in shell(capsys, "info", trained["model"]).output
