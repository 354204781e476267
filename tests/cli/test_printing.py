"""Names from elsewhere are shown, and command the terminal nothing."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

import gpunet
from gpunet.cli.output import print_table
from gpunet.cli.progress import note
from gpunet.cli.streams import printable
from tests.helpers.cli import ROOT, refusal, shell

Capture = pytest.CaptureFixture[str]

CLEAR = "\x1b[2J"  # clears the screen
CLASSES = [f"{CLEAR}red", "blue\nnext", "right\u202eleft"]
SHOWN = ["\\x1b[2Jred", "blue\\nnext", "right\\u202eleft"]
ROWS = 60


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def assert_harmless(text: str) -> None:
    assert all(printable(line) == line for line in text.split("\n"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe 東京 \u200d👩", "größe 東京 \u200d👩"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x7f\x9b31m", "\\x7f\\x9b31m"),
        ("\u2028\u202e\u2066", "\\u2028\\u202e\\u2066"),
    ],
)
def test_only_what_commands_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_notes_are_one_line(capsys: Capture) -> None:
    note(f"{CLEAR}a\nb")
    assert capsys.readouterr().err == "\\x1b[2Ja\\nb\n"


def test_tables_show_what_they_are_given(capsys: Capture) -> None:
    print_table([":smile:", "[red]x"], [[":warning:", f"[/]{CLEAR}"]], title="[b]:smile:")
    output = capsys.readouterr().out
    assert output.split()[:3] == ["[b]:smile:", ":smile:", "[red]x"]
    assert output.split()[-2:] == [":warning:", "[/]\\x1b[2J"]


def write_table(path: str, columns: str = "size,colour") -> None:
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns.split(","))
        writer.writerows((row % 3 + row / 1000, CLASSES[row % 3]) for row in range(ROWS))


def test_class_names(capsys: Capture) -> None:
    write_table("colours.csv")
    options = ("train", "colours.csv", "--target", "colour", "--epochs", 60, "--layers", 8)
    trained = shell(capsys, *options)
    assert_harmless(trained.output)
    assert trained.output.count("\\x1b[2Jred (20)") == 1

    model = "runs/colours/model.safetensors"
    predicted = shell(capsys, "predict", model, "colours.csv").output
    assert_harmless(predicted)
    assert len(predicted.splitlines()) == ROWS
    assert set(predicted.splitlines()) <= set(SHOWN)
    table = shell(capsys, "predict", model, "colours.csv", "--probabilities").output
    assert_harmless(table)
    assert len(table.splitlines()) == ROWS + 1
    evaluated = shell(capsys, "evaluate", model, "colours.csv").output
    assert_harmless(evaluated)
    assert all(name in evaluated for name in SHOWN)

    # Files and JSON are for programs: they have the names as they are.
    assert set(shell(capsys, "predict", model, "colours.csv", "--json").json["predictions"]) <= set(CLASSES)
    shell(capsys, "predict", model, "colours.csv", "--out", "predictions.csv")
    with Path("predictions.csv").open(encoding="utf-8", newline="") as file:
        assert {row[0] for row in list(csv.reader(file))[1:]} <= set(CLASSES)
    names = [one["name"] for one in shell(capsys, *options, "--json").json["classes"]]
    assert sorted(names) == sorted(CLASSES)


def test_names_in_errors(capsys: Capture) -> None:
    write_table("colours.csv", f"{CLEAR}size,colour")
    for column in ("color", f"{CLEAR}colour"):
        line = refusal(capsys, "train", "colours.csv", "--target", column)
        assert_harmless(line)
        assert "\\x1b[2Jsize" in line
    shell(capsys, "train", "colours.csv", "--target", "colour", "--epochs", 1, "--layers", 8)
    model = "runs/colours/model.safetensors"
    Path("others.csv").write_text("size,colour\n1,2\n")
    assert_harmless(refusal(capsys, "predict", model, "others.csv"))
    Path("others.csv").write_text(f"{CLEAR}size,colour\n1,{CLEAR}\n")
    assert_harmless(refusal(capsys, "evaluate", model, "others.csv"))


def test_names_of_files(capsys: Capture) -> None:
    name = f"{CLEAR}colours.csv"
    write_table(name)
    trained = shell(capsys, "train", name, "--target", "colour", "--epochs", 1, "--layers", 8)
    assert trained.status == 0
    assert_harmless(trained.output)
    model = f"runs/{CLEAR}colours/model.safetensors"
    for result in (
        shell(capsys, "evaluate", model, name),
        shell(capsys, "predict", model, name, "--out", f"{CLEAR}.csv"),
        shell(capsys, "train", name, "--target", "size", "--task", "regression"),
        shell(capsys, "evaluate", f"{CLEAR}.npz", name),
    ):
        assert_harmless(result.output + result.errors)


def test_metadata_of_a_model(capsys: Capture) -> None:
    write_table("colours.csv")
    shell(capsys, "train", "colours.csv", "--target", "colour", "--epochs", 1, "--layers", 8)
    model = "runs/colours/model.safetensors"
    network = gpunet.load(model)
    network.metadata["data"]["feature_names"] = [f"{CLEAR}size"]
    network.metadata["data"]["data_set"] = f"{CLEAR}set"
    network.save(model)
    for command in ("predict", "evaluate"):
        assert_harmless(refusal(capsys, command, model, "colours.csv"))


def test_results_of_benchmarks(capsys: Capture) -> None:
    path = next((ROOT / "benchmarks" / "results").glob("*.json"))
    content = re.sub(r"(\"cpu\": \"\w+)", r"\1\\u001b[2J", path.read_text(), count=1)
    assert "\\u001b" in content
    Path("results.json").write_text(content)
    result = shell(capsys, "bench", "report", "results.json")
    assert result.status == 0
    assert_harmless(result.output)
