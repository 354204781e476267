"""Tables as they come, in the shell: options of reading, text and missing values, and models that remember both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest

import gpunet
from gpunet.data import class_names, scale_inputs
from tests.helpers.cli import refusal, shell

Capture = pytest.CaptureFixture[str]

ROWS = 120
MODEL = "runs/people/model.safetensors"
READ = ("--sep", ";", "--decimal", ",", "--encoding", "cp1252")
TRAIN = ("train", "people.txt", "--target", "größe", *READ, "--epochs", 8, "--layers", 8)


@pytest.fixture(autouse=True)
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pandas.DataFrame:
    """Write a table with all that tables have: an index, text, missing values, semicolons and decimal commas."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "age, years": generator.normal(40, 10, ROWS),
            "town": generator.choice(["Köln", "Bonn"], ROWS),
            "größe": generator.choice(["klein", "groß"], ROWS),
        }
    )
    frame.loc[::9, "age, years"] = np.nan
    frame.to_csv("people.txt", sep=";", decimal=",", encoding="cp1252")
    return frame


def test_each_refusal_names_the_option_that_goes_on(capsys: Capture) -> None:
    """From one line to the next, as a user goes."""
    arguments = ["train", "people.txt", "--target", "größe", "--epochs", "1"]
    for message, option in (
        ("--encoding cp1252 may be what it was written in", ["--encoding", "cp1252"]),
        ("the separator looks like ';', expected ','. --sep ';' reads such", ["--sep", ";"]),
        ("as pandas writes the index of its rows. --drop 'Unnamed: 0' leaves it out", ["--drop", "Unnamed: 0"]),
        (
            "line 2, column 'age, years': the value is missing. Expected one; --missing mean fills",
            ["--missing", "mean"],
        ),
        ("is not a number. Features must be numbers; --decimal , reads such", ["--decimal", ","]),
        ("Features must be numbers; --categorical town makes inputs of text", ["--categorical", "town"]),
    ):
        assert message in refusal(capsys, *arguments)
        arguments += option
    assert shell(capsys, *arguments).status == 0


def test_a_model_reads_text_and_missing_values_as_in_training(people: pandas.DataFrame, capsys: Capture) -> None:
    trained = shell(capsys, *TRAIN, "--drop", "Unnamed: 0", "--categorical", "auto", "--missing", "median", "--json")
    assert trained.json["layers"] == [4, 8, 2]
    evaluated = shell(capsys, "evaluate", MODEL, "people.txt", *READ, "--json").json
    assert (evaluated["rows"], evaluated["accuracy"]) == (trained.json["rows"]["test"], trained.json["test_accuracy"])
    predicted = shell(capsys, "predict", MODEL, "people.txt", *READ).output.splitlines()
    for name, write in (("new.tsv.gz", "to_csv"), ("new.parquet", "to_parquet")):
        options = {"sep": "\t", "index": False} if write == "to_csv" else {}
        getattr(people.drop(columns="größe"), write)(name, **options)
        assert shell(capsys, "predict", MODEL, name).output.splitlines() == predicted
    network = gpunet.load(MODEL, device="cpu")
    names = class_names(network)
    inputs = scale_inputs(network, people.drop(columns="größe"))
    assert [names[label] for label in network.predict(inputs)] == predicted
    described = shell(capsys, "info", MODEL).output
    assert "2 features as 4 inputs, 2 classes" in described
    inputs_of = shell(capsys, "info", MODEL, "--json").json["data"]["inputs"]
    assert inputs_of == ["age, years", "town = Bonn", "town = Köln", "age, years is missing"]


def test_an_unknown_category_is_one_line_and_no_error(people: pandas.DataFrame, capsys: Capture) -> None:
    shell(capsys, *TRAIN, "--drop", "Unnamed: 0", "--categorical", "auto", "--missing", "median")
    people.loc[[3, 5], "town"] = "Aachen"
    people.to_csv("new.csv", index=False)
    for command in ("predict", "evaluate"):
        status, _, errors = shell(capsys, command, MODEL, "new.csv")
        assert (status, errors.count("\n")) == (0, 1)
        assert "warning: new.csv, column 'town': 'Aachen' in line 5 and 1 more: no training row had such" in errors


def test_columns_are_chosen_by_quoted_names_and_without_a_header(people: pandas.DataFrame, capsys: Capture) -> None:
    chosen = shell(capsys, *TRAIN, "--columns", '"age, years"', "--missing", "mean", "--json").json
    assert chosen["layers"] == [2, 8, 2]
    people.fillna(1.0)[["größe", "age, years"]].to_csv("bare.csv", index=False, header=False)
    arguments = ("train", "bare.csv", "--no-header", "--target", 1, "--epochs", 1, "--layers", 4)
    assert shell(capsys, *arguments).status == 0
    people.fillna(1.0)[["age, years"]].to_csv("new.csv", index=False, header=False)
    model = "runs/bare/model.safetensors"
    assert len(shell(capsys, "predict", model, "new.csv", "--no-header").output.splitlines()) == ROWS
    assert shell(capsys, "evaluate", model, "bare.csv", "--no-header").status == 0


def test_a_resumed_run_and_scikit_learn_take_the_same_inputs(capsys: Capture) -> None:
    options = (*TRAIN, "--drop", "Unnamed: 0", "--categorical", "town", "--missing", "mean")
    whole = shell(capsys, *options, "--compare-sklearn", "--json").json
    assert 0 <= whole["sklearn_test_accuracy"] <= 1
    assert shell(capsys, *options, "--checkpoint", "--out", "again", "--schedule", "constant").status == 0
    resumed = (*options, "--resume", "--out", "again", "--schedule", "constant", "--epochs", 9)
    assert shell(capsys, *resumed).status == 0
    other = [option if option != "mean" else "median" for option in resumed]
    assert "again/checkpoint.safetensors" in refusal(capsys, *other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sep", ";;"), "--sep: got ';;'. Expected one character, 'tab', or 'whitespace'"),
        (("--decimal", "x"), "--decimal: got 'x'. Expected '.' or ','"),
        (("--encoding", "utf-9"), "--encoding: 'utf-9' is not known"),
        (("--columns", ""), "--columns: names no column"),
        (("--drop", "towm"), "--drop: 'towm' is not known. Did you mean 'town'?"),
        (("--drop", "Unnamed: 0", "--categorical", "towm"), "--categorical: 'towm' is not known. Did you mean 'town'?"),
        (("--missing", "zero"), "argument --missing: invalid choice: 'zero'"),
        (("--sep", ","), "--decimal: ',' separates the values of people.txt too"),
    ],
)
def test_bad_options_are_refused(options: tuple[str, ...], message: str, capsys: Capture) -> None:
    assert message in refusal(capsys, *TRAIN, *options)
