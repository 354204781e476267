"""Bad input to the shell commands: one line on standard error, exit status 2, nothing on standard output."""

from __future__ import annotations

import builtins
import errno
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
import gpunet.cli.train as train_command
from gpunet.backends import notices
from gpunet.cli.main import main
from tests.helpers.cli import refusal, shell, write_blobs, write_plane

Capture = pytest.CaptureFixture[str]

OPTIONS = {
    "unknown command": (("trian",), "invalid choice: 'trian'"),
    "no data": (("train",), "the following arguments are required: DATA (see gpunet train --help)"),
    "unknown flag": (("train", "digits", "--epoch", "3"), "'--epoch' is not known. Did you mean --epochs?"),
    "learning rate by its usual short name": (("train", "digits", "--lr", "1"), "Did you mean --learning-rate?"),
    "another short name": (("train", "digits", "--lr=1"), "Did you mean --learning-rate?"),
    "flag without its dash": (("train", "digits", "--batchsize", "8"), "Did you mean --batch-size?"),
    "layers by another name": (("train", "digits", "--hidden", "8"), "Did you mean --layers?"),
    "flag before any command": (("--verbos",), "'--verbos' is not known"),
    "stray argument": (("info", "model.npz", "now"), "'now' is not known"),
    "unknown data": (("train", "digit"), "Did you mean 'digits'? Expected one of: digits, mnist5k. A file needs"),
    "missing table": (("train", "none.csv", "--target", "y"), "there is no file 'none.csv'"),
    "other ending": (("train", "notes.md"), "ends in '.md'. Expected .csv, .tsv, .tab, .txt, .data,"),
    "folder": (("train", "folder.csv", "--target", "y"), "folder.csv"),
    "layers of text": (("train", "digits", "--layers", "12,x"), "'x' is not an integer"),
    "no layers": (("train", "digits", "--layers", ""), "--layers"),
    "layer of zero": (("train", "digits", "--layers", "12,0"), "'0' is not an integer from 1"),
    "layers without end": (("train", "digits", "--layers", "9" * 30), "is not an integer from 1"),
    "activation": (("train", "digits", "--activation", "rleu"), "Did you mean 'relu'?"),
    "activation's number": (("train", "digits", "--activation", "elu(x)"), "'x' in 'elu(x)' is not a number"),
    "initializer": (("train", "digits", "--initializer", "he_norml"), "Did you mean 'he_normal'?"),
    "optimizer": (("train", "digits", "--optimizer", "adm"), "invalid choice: 'adm'"),
    "schedule": (("train", "digits", "--schedule", "cosin"), "invalid choice: 'cosin'"),
    "device": (("train", "digits", "--device", "gpu"), "device: 'gpu' is not known"),
    "dtype": (("train", "digits", "--dtype", "float16"), "invalid choice: 'float16'"),
    "epochs": (("train", "digits", "--epochs", "0"), "'0' is not an integer of at least 1"),
    "fraction of an epoch": (("train", "digits", "--epochs", "1.5"), "'1.5' is not an integer"),
    "batch": (("train", "digits", "--batch-size", "1"), "--batch-size: 1 is out of range"),
    "negative rate": (("train", "digits", "--learning-rate", "-1"), "'-1' is not a finite number of at least 0"),
    "infinite rate": (("train", "digits", "--learning-rate", "inf"), "'inf' is not a finite number"),
    "rate of nan": (("train", "digits", "--l2", "nan"), "'nan' is not a finite number"),
    "rate of text": (("train", "digits", "--l2", "much"), "'much' is not a finite number"),
    "momentum": (("train", "digits", "--optimizer", "sgd", "--momentum", "1"), "and below 1"),
    "momentum of adam": (("train", "digits", "--momentum", "0.9"), "--momentum: only sgd has it"),
    "dropout": (("train", "digits", "--dropout", "1"), "'1' is not a finite number of at least 0 and below 1"),
    "clip norm": (("train", "digits", "--clip-norm", "0"), "'0' is not a finite number above 0"),
    "loss of another task": (("train", "digits", "--loss", "huber"), "--loss: huber is not for a classification"),
    "unknown loss": (("train", "digits", "--loss", "hinge"), "'hinge' is not known"),
    "several quantiles": (
        ("train", "digits", "--task", "regression", "--loss", "quantile(0.1, 0.9)"),
        "--loss: got quantile(0.1, 0.9). Expected one quantile",
    ),
    "label smoothing": (("train", "digits", "--label-smoothing", "1"), "'1' is not a finite number of at least 0"),
    "label smoothing of a regression": (
        ("train", "digits", "--task", "regression", "--label-smoothing", "0.1"),
        "--label-smoothing: is for a classification, and said once. Got a regression with the loss squared_error",
    ),
    "label smoothing twice": (
        ("train", "digits", "--label-smoothing", "0.1", "--loss", "softmax_cross_entropy(0.1)"),
        "--label-smoothing: is for a classification, and said once",
    ),
    "patience": (("train", "digits", "--patience", "0"), "'0' is not an integer"),
    "class weight": (("train", "digits", "--class-weight", "even"), "invalid choice: 'even'"),
    "seed": (("train", "digits", "--seed", "4294967296"), "from 0 to 4294967295"),
    "target of images": (("train", "digits", "--target", "y"), "--target: only a table has columns"),
    "nothing to resume": (
        ("train", "digits", "--resume", "--out", "new"),
        "no checkpoint 'new/checkpoint.safetensors'",
    ),
    "output below a file": (("train", "digits", "--out", "notes.txt/runs"), "notes.txt/runs: Not a directory"),
    "output is a file": (
        ("train", "digits", "--out", "notes.txt"),
        "argument --out: 'notes.txt' is a file, expected a",
    ),
    "output without a name": (("train", "digits", "--out", ""), "argument --out: '' is no name, expected a folder"),
    "output with a long name": (("train", "digits", "--out", "x" * 300), "File name too long"),
    "predictions without a name": (("predict", "m.npz", "digits", "--out", " "), "' ' is no name, expected a file"),
    "predictions to a folder": (("predict", "m.npz", "digits", "--out", "folder.csv"), "is a folder, expected a file"),
    "model without ending": (("info", "notes"), "FILE: there is no file 'notes'."),
    "folder for a model": (
        ("info", "folder.csv"),
        "FILE: 'folder.csv' is a folder. Expected a .safetensors or .npz file.",
    ),
    "other ending for a model": (
        ("info", "notes.md"),
        "FILE: 'notes.md' ends in '.md'. Expected .safetensors or .npz.",
    ),
    "no ending for a figure": (("train", "digits", "--plot", "curve"), "--plot: 'curve' has no ending. Expected ."),
    "missing model": (("predict", "none.safetensors", "digits"), "gpunet: MODEL: there is no file 'none.safetensors'"),
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("a,b\n1,2\n")
    Path("notes.md").write_text("a,b\n1,2\n")
    Path("folder.csv").mkdir()


@pytest.mark.parametrize(("arguments", "message"), OPTIONS.values(), ids=OPTIONS.keys())
def test_bad_options(arguments: tuple[str, ...], message: str, capsys: Capture) -> None:
    assert message in refusal(capsys, *arguments)
    if arguments and arguments[0] in ("train", "predict"):
        assert message in refusal(capsys, *arguments, "--json")


def test_notices_speak_of_options_too(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_said", set())
    command = ("train", "digits", "--layers", "3", "--epochs", "1", "--precision", "float16", "--device", "cpu")
    assert shell(capsys, *command).errors == (
        "gpunet: on the CPU, half precision is emulated: it gives the numbers that CUDA gives, and --precision float32 "
        "is faster here\n"
    )


TABLES = {
    "empty": ("", "table.csv: is empty"),
    "blank lines only": ("\n \n", "table.csv: is empty"),
    "no rows": ("a,y\n", "table.csv: has column names but no rows"),
    "same name twice": ("a,b,a,y\n1,2,3,x\n", "line 1: the column name 'a' occurs twice"),
    "no name": (",b,y\n1,2,x\n", "line 1: column 1 has no name"),
    "missing feature": ("a,b,y\n1,2,x\n\n1,,x\n3,4,z\n", "table.csv, line 4, column 'b': the value is missing"),
    "NA feature": ("a,b,y\n1,2,x\n1,NA,x\n3,4,z\n", "table.csv, line 3, column 'b': the value is missing"),
    "text feature": ("a,b,y\n1,2,x\n1,red,x\n", "table.csv, line 3, column 'b': 'red' is not a number"),
    "infinite feature": ("a,b,y\n1,2,x\n-inf,2,x\n", "table.csv, line 3, column 'a': -inf is not a finite number"),
    "missing target": ("a,b,y\n1,2,x\n1,2,\n", "table.csv, line 3, column 'y': the target is missing"),
    "short row": ("a,b,y\n1,2,x\n1,2\n", "table.csv: line 3 has 2 values, expected 3"),
    "short row that shifts": ("a,b,y\n1,2,x\n\n1,x\n", "table.csv: line 4 has 2 values, expected 3"),
    "one value": ("a,b,y\n1,2,x\n1\n", "table.csv: line 3 has 1 value, expected 3"),
    "semicolons": ("a;b;y\n1,5;2;x\n", "line 1: one column only; the separator looks like ';', expected ','"),
    "tabs": ("a\tb\ty\n1\t2\tx\n", "line 1: one column only; the separator looks like '\\t', expected ','"),
    "no such target": ("a,b,yy\n1,2,x\n", "table.csv, line 1: target column: 'y' is not known. Did you mean 'yy'?"),
    "no features": ("y\nx\nz\n", "has no column besides the target 'y'"),
    "one class": ("a,y\n1,x\n2,x\n", "table.csv, column 'y': every row has the class 'x'"),
    "long row": ("a,b,y\n1,2,x\n1,2,x,3\n", "table.csv: line 3 has 4 values, expected 3"),
    "long rows": ("a,b,y\n1,2,x,3\n1,2,x,3\n", "table.csv: line 2 has 4 values, expected 3"),
    "floats for classes": (
        "a,y\n1,1\n\n2,1.5\n",
        "column 'y': holds numbers with a decimal point, such as 1.5 in line 4. Expected integer or text classes; "
        "--task regression predicts numbers, --task classification takes each number for a class.",
    ),
    "rare class beside one": (
        "a,y\n" + "1,x\n" * 40 + '3,"rare"\n4,rare\n',
        "table.csv, column 'y', line 42: the class 'rare' has 2 rows. Expected at least 3",
    ),
    "rare classes": (
        "a,y\n" + "1,x\n2,z\n" * 20 + "3,a\n3,b\n3,c\n",
        "the class 'a' has 1 row. Expected at least 3, to have some to train, validate and test. 3 of 5 classes have "
        "fewer; at most half may, and two must have them.",
    ),
    "integers that are quantities": (
        "a,y\n" + "".join(f"1,{row * row}\n" for row in range(50)),
        "line 2: the class '0' has 1 row. Expected at least 3, to have some to train, validate and test. "
        "If the targets are quantities rather than classes, use --task regression.",
    ),
    "many integers": (
        "a,y\n" + "".join(f"1,{row // 3}\n" for row in range(60)),
        "to have one of each of 20 classes to validate. If the targets are quantities",
    ),
    "few rows": ("a,y\n" + "1,x\n2,z\n" * 4, "table.csv: has 8 rows. Expected at least 14 to have one of each of 2"),
}


@pytest.mark.parametrize(("content", "message"), TABLES.values(), ids=TABLES.keys())
def test_bad_tables(content: str, message: str, capsys: Capture) -> None:
    Path("table.csv").write_text(content)
    assert message in refusal(capsys, "train", "table.csv", "--target", "y")
    assert not Path("runs").exists()


def test_the_rows_that_a_refusal_asks_for_are_enough(capsys: Capture) -> None:
    Path("table.csv").write_text("a,y\n" + "1,x\n2,z\n" * 7)
    assert shell(capsys, "train", "table.csv", "--target", "y", "--epochs", 1).status == 0


def test_a_table_needs_a_target(capsys: Capture) -> None:
    Path("table.csv").write_text("a,b,y\n1,2,x\n")
    line = refusal(capsys, "train", "table.csv")
    assert "--target: table.csv needs the name of its target column. It has a, b, y." in line


def test_tables_that_are_not_text(capsys: Capture) -> None:
    Path("table.csv").write_bytes(b"a,y\n\xff\xfe,1\n")
    assert "table.csv: cannot be read" in refusal(capsys, "train", "table.csv", "--target", "y")
    Path("table.csv").write_bytes(b"a,y\n" + b"1,2\n" * 50_000 + b"\xff,1\n")
    assert "table.csv: cannot be read" in refusal(capsys, "train", "table.csv", "--target", "y")


def test_floats_need_a_task(capsys: Capture) -> None:
    _, targets = write_plane(Path("plane.npz"))
    line = refusal(capsys, "train", "plane.npz")
    assert f"such as {targets[0]} in row 0" in line
    assert "--task regression" in line
    Path("table.csv").write_text("a,y\n1,1.5\n2,oops\n")
    line = refusal(capsys, "train", "table.csv", "--target", "y", "--task", "regression")
    assert "table.csv, column 'y', line 3: 'oops' is not a number" in line
    Path("table.csv").write_text("a,y\n1,1.5\n2,nan\n")
    line = refusal(capsys, "train", "table.csv", "--target", "y", "--task", "regression")
    assert "table.csv, column 'y', line 3: nan is not a finite number" in line
    assert "has 3 rows. Expected at least 10." in refusal_of_three_rows(capsys)
    assert "no classes" in refusal(capsys, "train", "plane.npz", "--task", "regression", "--class-weight", "balanced")


def refusal_of_three_rows(capsys: Capture) -> str:
    Path("table.csv").write_text("a,y\n1,1.5\n2,2.5\n3,3.5\n")
    return refusal(capsys, "train", "table.csv", "--target", "y", "--task", "regression")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((3, 2)), "y": np.arange(3)}, "has no array 'X'. Expected X and y; it holds x, y"),
        ({"X": np.zeros((3, 2))}, "has no array 'y'"),
        ({"X": np.zeros((3, 2, 2)), "y": np.arange(3)}, "X has the shape (3, 2, 2)"),
        ({"X": np.zeros(3), "y": np.arange(3)}, "X has the shape (3,)"),
        ({"X": np.zeros((0, 3)), "y": np.arange(0)}, "X has the shape (0, 3)"),
        ({"X": np.zeros((3, 2)), "y": np.arange(2)}, "y has the shape (2,). Expected one target per row of X, (3,)"),
        ({"X": np.array([["a"], ["b"]]), "y": np.arange(2)}, "X has the dtype <U1"),
        (
            {"X": np.array([[1, None]], dtype=object), "y": np.arange(1)},
            "cannot be read as npz ('X' holds Python objects)",
        ),
        ({"X": np.zeros((2, 2)), "y": np.array([1, None])}, "cannot be read as npz ('y' holds Python objects)"),
        ({"X": np.array([[1.0, 2.0], [1.0, np.nan]]), "y": np.arange(2)}, "X has nan in row 1, column 1"),
        ({"X": np.zeros((2, 2)), "y": np.array([1j, 2])}, "y has the dtype complex128"),
    ],
)
def test_bad_arrays(arrays: dict[str, Any], message: str, capsys: Capture) -> None:
    np.savez("arrays.npz", **arrays)
    assert f"arrays.npz: {message}" in refusal(capsys, "train", "arrays.npz")


def test_files_that_are_no_npz(capsys: Capture) -> None:
    Path("arrays.npz").write_text("hello")
    line = refusal(capsys, "train", "arrays.npz")
    assert "cannot be read as npz (not a zip archive)" in line
    assert "pickle" not in line
    np.savez_compressed("arrays.npz", X=np.random.default_rng(0).standard_normal((100, 5)), y=np.arange(100))
    content = bytearray(Path("arrays.npz").read_bytes())
    content[200:260] = bytes(60)
    Path("arrays.npz").write_bytes(content)
    assert "arrays.npz: cannot be read" in refusal(capsys, "train", "arrays.npz")


def test_columns_that_cannot_be_standardised(capsys: Capture) -> None:
    Path("table.csv").write_text("a,huge,y\n" + "1,1e308,x\n2,-1e308,z\n" * 20)
    line = refusal(capsys, "train", "table.csv", "--target", "y")
    assert "column 'huge': its numbers, from -1e+308 to 1e+308" in line


def test_too_much_memory_is_one_line(capsys: Capture) -> None:
    assert "Unable to allocate" in refusal(capsys, "train", "digits", "--layers", "1000000,1000000,1000000")


@pytest.mark.parametrize("package", ["rich", "safetensors", "sklearn", "pandas"])
def test_a_missing_package_is_one_line_with_its_command(
    package: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_blobs(Path("places.csv"))
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    line = refusal(capsys, "train", "places.csv", "--target", "place")
    assert "pip install 'gpunet[" in line


def test_a_broken_package_is_not_called_missing(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    write_blobs(Path("places.csv"))
    real = builtins.__import__

    def broken(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "sklearn.model_selection":
            raise error
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", broken)
    for error in (ImportError("libgomp.so.1:\ncannot open"), ModuleNotFoundError("No 'scipy'", name="scipy")):
        line = refusal(capsys, "train", "places.csv", "--target", "place")
        reason = " ".join(str(error).split())
        assert f"splitting the rows needs the package 'scikit-learn', which does not import: {reason}\n" in line


def test_errors_with_line_breaks_are_one_line(capsys: Capture) -> None:
    assert "notes.txt/a b: Not a directory" in refusal(capsys, "train", "digits", "--out", "notes.txt/a\nb")


def test_a_disk_that_is_full_is_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/digits/model.safetensors")

    monkeypatch.setattr(train_command.Network, "save", no_space)
    line = refusal(capsys, "train", "digits", "--epochs", 1)
    assert line == "gpunet: runs/digits/model.safetensors: No space left on device\n"


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "info"])
def test_help_has_an_example(command: str, capsys: Capture) -> None:
    assert main([command, "--help"]) == 0
    assert f"Example: gpunet {command}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("command", "prog"), [((), "gpunet"), (("kernels",), "gpunet kernels")])
def test_no_command_is_answered_with_the_help(command: tuple[str, ...], prog: str, capsys: Capture) -> None:
    status, output, errors = shell(capsys, *command)
    assert (status, errors) == (2, "")
    assert output == shell(capsys, *command, "--help").output
    assert output.startswith(f"usage: {prog} ")


@pytest.mark.parametrize(
    "options", [("--batch-size", "1"), ("--task", "regression", "--class-weight", "balanced"), ("--target", "y")]
)
@pytest.mark.parametrize("out", [(), ("--out", "new/deep")])
def test_what_is_refused_leaves_no_folder(options: tuple[str, ...], out: tuple[str, ...], capsys: Capture) -> None:
    write_plane(Path("plane.npz"))
    before = sorted(Path().rglob("*"))
    refusal(capsys, "train", "plane.npz", "--task", "regression", *options, *out)
    assert sorted(Path().rglob("*")) == before


def test_a_hint_to_regression_is_for_integers_only(capsys: Capture) -> None:
    Path("table.csv").write_text("a,y\n" + "1,x\n" * 20 + "3,rare\n")
    assert "regression" not in refusal(capsys, "train", "table.csv", "--target", "y")


def test_help_and_version(capsys: Capture) -> None:
    status, output, errors = shell(capsys, "--help")
    assert (status, errors) == (0, "")
    assert all(command in output for command in ("train", "predict", "evaluate", "info"))
    assert shell(capsys, "--version").output == f"gpunet {gpunet.__version__}\n"
