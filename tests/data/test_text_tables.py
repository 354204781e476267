"""Text tables as they come: separators, decimals, encodings, gzip, headers, chosen columns; errors name the line."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

import gpunet
from gpunet.data import DataSet, Preparation, TableOptions, load_for_model, load_for_training, split_rows
from gpunet.data.values import MOST_CATEGORIES


def load(path: Path, content: str, options: TableOptions | None = None, **choices: Any) -> DataSet:
    encoding = "utf-8" if options is None else options.encoding.removesuffix("-sig")
    written = content.encode(encoding)
    path.write_bytes(gzip.compress(written) if path.suffix == ".gz" else written)
    return load_for_training(str(path), options=options, **{"target": "y"} | choices)


READABLE = {
    "tabs": ("t.tsv", "a\tb c\ty\n1\t2\tu\n3\t4\tv\n", TableOptions()),
    "gzip": ("t.csv.gz", "a,b c,y\n1,2,u\n3,4,v\n", TableOptions()),
    "tabs and gzip": ("t.TSV.gz", "a\tb c\ty\n1\t2\tu\n3\t4\tv\n", TableOptions()),
    "semicolons": ("t.csv", "a;b c;y\n1,0;2;u\n3;4,0;v\n", TableOptions(sep=";", decimal=",")),
    "a named separator": ("t.txt", "a\tb c\ty\n1\t2\tu\n3\t4\tv\n", TableOptions(sep="tab")),
    "columns of blanks": ("t.data", '  a  "b c"  y\n\n 1.0 \t2   u  \n3 4 v\n', TableOptions(sep="whitespace")),
    "single blanks": ("t.txt", 'a "b c" y\n1 2 u\n3 4 v\n', TableOptions(sep="space")),
    "UTF-16": ("t.csv", "a,b c,y\n1,2,u\n3,4,v\n", TableOptions(encoding="utf-16")),
    "byte order mark": ("t.csv", "\ufeffa,b c,y\r\n1,2,u\r\n3,4,v\r\n", TableOptions()),
    "blanks around names": ("t.csv", " a ,\tb c, y \n1,2,u\n3,4,v\n", TableOptions()),
    "columns chosen": ("t.csv", "a,n,b c,y\n1,x,2,u\n3,,4,v\n", TableOptions(columns=["b c", "a"])),
    "a column dropped": ("t.csv", "a,n,b c,y\n1,x,2,u\n3,,4,v\n", TableOptions(drop=["n"])),
    "pandas' index dropped": ("t.csv", ",a,b c,y\n0,1,2,u\n1,3,4,v\n", TableOptions(drop=["Unnamed: 0"])),
}


@pytest.mark.parametrize(("name", "content", "options"), READABLE.values(), ids=READABLE.keys())
def test_tables_are_read_as_they_are_written(name: str, content: str, options: TableOptions, tmp_path: Path) -> None:
    data = load(tmp_path / name, content, options)
    assert (data.name, data.feature_names, data.class_names) == ("t", ["a", "b c"], ["u", "v"])
    assert data.features.tolist() == [[1, 2], [3, 4]]


def test_names_may_be_those_of_another_encoding(tmp_path: Path) -> None:
    data = load(tmp_path / "t.csv", "größe,y\n1,ü\n2,ä\n", TableOptions(encoding="cp1252"))
    assert (data.feature_names, data.class_names) == (["größe"], ["ä", "ü"])


# Where a message says what is wrong, the line is the file's, whatever its compression, separator and encoding.
MISPLACED = {
    "gzip": ("t.csv.gz", "a,y\n\n1,u\nx,v\n", TableOptions(), "line 4, column 'a': 'x' is not a number"),
    "tabs": ("t.tsv", 'a\ty\n"1"\tu\n\nx\t"v\nw"\n', TableOptions(), "line 5, column 'a': 'x' is not a number"),
    "tabs alone are values": ("t.tsv", "a\tb\ty\n1\t2\tu\n\t\t\n", TableOptions(), "line 3, column 'a': the value is"),
    "whitespace": ("t.txt", " a y\n \n 1 u \n x v\n", TableOptions(sep="whitespace"), "line 4, column 'a': 'x'"),
    "no header": ("t.csv", "1,u\n\nx,v\n", TableOptions(no_header=True), "line 3, column '1': 'x' is not a number"),
    "UTF-16": ("t.csv", "a,y\n1,u\nx,v\n", TableOptions(encoding="utf-16"), "line 3, column 'a': 'x'"),
    "short row": ("t.tsv", "a\tb\ty\n1\t2\tu\n\n1\tv\n", TableOptions(), "line 4 has 2 values, expected 3"),
    "long row": ("t.csv.gz", "a,b,y\n1,2,u\n1,2,v,3\n", TableOptions(), "line 3 has 4 values, expected 3"),
    "short row, last column dropped": ("t.csv", "y,a,b\nu,1,2\nv,1\n", TableOptions(drop=["b"]), "line 3 has 2 values"),
    "long row, last column dropped": ("t.csv", "y,a,b\nu,1,\nv,1,2,3\n", TableOptions(drop=["b"]), "line 3 has 4"),
    "point where the comma is decimal": ("t.csv", "a;y\n1,5;u\n1.5;v\n", TableOptions(sep=";", decimal=","), "line 3"),
}


@pytest.mark.parametrize(("name", "content", "options", "message"), MISPLACED.values(), ids=MISPLACED.keys())
def test_errors_name_the_line(name: str, content: str, options: TableOptions, message: str, tmp_path: Path) -> None:
    target = "2" if options.no_header else "y"
    with pytest.raises(gpunet.GpunetError, match=message):
        load(tmp_path / name, content, options, target=target)


def test_a_row_too_short_is_no_missing_value(tmp_path: Path) -> None:
    with pytest.raises(gpunet.FileFormatError, match="line 3 has 2 values, expected 3"):
        load(tmp_path / "t.csv", "y,a,b\nu,1,2\nv,1\n", missing="mean")
    assert load(tmp_path / "t.csv", "y,a,b\nu,1,2\nv,1,\n", missing="mean").rows == 2


# What helps is named, as the argument that the shell turns into an option.
HELPFUL = {
    "semicolons": ("a;b;y\n1;2;u\n", {}, "looks like ';', expected ','. sep=\";\" reads such"),
    "tabs": ("a\tb\ty\n1\t2\tu\n", {}, 'sep="tab" reads such'),
    "semicolons among commas": ("a, in m;b;y\n1;2;u\n", {}, "line 1: the separator looks like ';'"),
    "commas": ("a,b,y\n1,2,u\n", {"options": TableOptions(sep=";")}, 'sep="," reads such'),
    "decimal commas": ("a;y\n1,5;u\n", {"options": TableOptions(sep=";")}, 'decimal="," reads such'),
    "pandas' index": (",a,y\n0,1,u\n", {}, 'column 1 has no name, as pandas writes the index.* drop="Unnamed: 0"'),
    "pandas' index, written twice": ("Unnamed: 0,a,y\n0,1,u\n", {}, 'column 1 has no name, as pandas .*Unnamed: 0"'),
    "separator at the end": (
        "a,y,\n1,u,\n",
        {},
        'drop="Unnamed: 2" leaves it out; if .*columns="Unnamed: 2,..." takes',
    ),
    "no header": ("1,u\n2,v\n", {}, "Expected one of: 1, u. If its first line is a row .* no_header=True"),
    "text": ("a,y\nred,u\n", {}, 'Features must be numbers; categorical="a" .* drop="a" leaves the column out'),
    "missing": ("a,y\n,u\n", {}, 'missing="mean" fills such in, drop="a" leaves the column out'),
    "the question mark of other tables": ("a,y\n?,u\n", {}, "line 2, column 'a': the value is missing"),
    "missing text": ("a,y\nred,u\n,u\n", {"categorical": ["a"]}, "line 3, column 'a': the value is missing"),
    "a few texts among numbers": ("a,y\n1,u\n2,u\nx,v\n", {"categorical": ["auto"]}, "line 4.*'x' is not a number"),
    "unknown category column": ("a,y\n1,u\n", {"categorical": ["b"]}, "categorical: 'b' is not known. .* one of: a"),
    "unknown column": ("a,y\n1,u\n", {"options": TableOptions(columns=["b"])}, "columns: 'b' is not known"),
    "unknown column to drop": ("a,y\n1,u\n", {"options": TableOptions(drop=["b"])}, "drop: 'b' is not known"),
    "target dropped": ("a,y\n1,u\n", {"options": TableOptions(drop=["y"])}, "drop: 'y' is the target"),
    "target among features": (
        "a,y\n1,u\n",
        {"options": TableOptions(columns=["a", "y"])},
        "columns: 'y' is the target",
    ),
    "nothing left": ("a,y\n1,u\n", {"options": TableOptions(drop=["a"])}, "^drop: .* has no features left"),
    "decimal that separates": ("a,y\n1,u\n", {"options": TableOptions(decimal=",")}, "decimal: ',' separates"),
    "names alike but for blanks": ("a, a ,y\n1,2,u\n", {}, "line 1: the column name 'a' occurs twice"),
    "no column of a kind": ("a,y\n1,u\n", {"missing": "mode"}, "missing: 'mode' is not known"),
    "a name for a list": ("a,y\n1,u\n", {"categorical": "a"}, "categorical: got 'a'. Expected a list of names"),
}


@pytest.mark.parametrize(("content", "choices", "message"), HELPFUL.values(), ids=HELPFUL.keys())
def test_errors_say_what_helps(content: str, choices: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(gpunet.GpunetError, match=message):
        load(tmp_path / "t.csv", content, **choices)


def test_texts_of_every_row_are_no_categories_unless_named(tmp_path: Path) -> None:
    content = "a,y\n" + "".join(f"name {row},{row % 2}\n" for row in range(MOST_CATEGORIES + 1))
    with pytest.raises(gpunet.InvalidValueError, match=r"column 'a': holds 101 different texts.*\"auto,a\" encodes it"):
        load(tmp_path / "t.csv", content, categorical=["auto"])
    assert len(load(tmp_path / "t.csv", content, categorical=["auto", "a"]).raw.categories["a"]) == MOST_CATEGORIES + 1


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("a,ö\n1,2\n".encode("latin-1"), 'in utf-8 .* encoding="cp1252" may be what it was written in'),
        ("a,y\n1,u\n".encode("utf-16"), 'encoding="utf-16" may be'),
        (gzip.compress(b"a,y\n1,u\n", mtime=0), "It is compressed: its name needs the ending .gz"),
    ],
)
def test_other_encodings_are_guessed_in_the_message(written: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(written)
    with pytest.raises(gpunet.FileFormatError, match=message):
        load_for_training(str(tmp_path / "t.csv"), target="y")


@pytest.mark.parametrize("kept", [5, 40, -4])
def test_a_gzip_file_that_ends_too_early_is_refused(kept: int, tmp_path: Path) -> None:
    whole = gzip.compress(b"a,y\n" + b"".join(b"%d,u\n" % row for row in range(30_000)), mtime=0)
    (tmp_path / "t.csv.gz").write_bytes(whole[:kept])
    with pytest.raises(gpunet.FileFormatError, match=r"t.csv.gz: is no whole gzip file"):
        load_for_training(str(tmp_path / "t.csv.gz"), target="y")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"sep": ";;"}, "sep: got ';;'"),
        ({"sep": ""}, "sep: got ''"),
        ({"sep": '"'}, "sep: got"),
        ({"sep": 3}, "sep: got 3"),
        ({"decimal": "·"}, "decimal: got '·'. Expected '.' or ','"),
        ({"encoding": "utf-9"}, "encoding: 'utf-9' is not known"),
        ({"encoding": "base64"}, "encoding: 'base64' is not known"),
        ({"encoding": None}, "encoding: None is not known"),
        ({"columns": []}, "columns: names no column"),
        ({"columns": "a"}, "columns: got 'a'. Expected a list"),
        ({"drop": [1]}, r"drop: got \[1\]. Expected a list"),
    ],
)
def test_options_are_checked(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(gpunet.GpunetError, match=message):
        TableOptions(**choices)


@pytest.mark.parametrize("task", ["regression", None])
def test_targets_with_decimal_commas_are_numbers(task: str | None, tmp_path: Path) -> None:
    options = TableOptions(sep=";", decimal=",")
    if task is None:
        with pytest.raises(
            gpunet.InvalidTypeError, match=r"holds numbers with a decimal point, such as 3\.5 in line 2"
        ):
            load(tmp_path / "t.csv", "a;y\n1;3,5\n2;4\n", options)
        return
    data = load(tmp_path / "t.csv", "a;y\n1;3,5\n2;4\n", options, task=task)
    assert data.targets is not None
    assert data.targets.tolist() == [3.5, 4.0]


def test_truths_with_missing_values_are_numbers(tmp_path: Path) -> None:
    features = load(tmp_path / "t.csv", "a,y\nTrue,u\n,v\nfalse,u\n", missing="mean").features[:, 0]
    assert features[[0, 2]].tolist() == [1, 0]
    assert features[1] != features[1]


def model_of(data: DataSet) -> Preparation:
    return Preparation.learn(data, split_rows(data, 0), 0)


ROWS = "".join(f"{row % 2},{row},{row}.5,{row * row}\n" for row in range(30))


def test_a_model_passes_over_what_was_left_out_in_training(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    model = model_of(load(path, f"y,id,a,b\n{ROWS}", TableOptions(drop=["id"])))
    found = load_for_model(str(path), model, need_target=True)
    assert found.feature_names == ["a", "b"]
    path.write_text("b,a\n4,2\n")
    assert load_for_model(str(path), model, need_target=False).features.tolist() == [[2, 4]]
    path.write_text("b,new,a\n4,x,2\n")
    with pytest.raises(
        gpunet.InvalidValueError, match=r"line 1: column: 'new' is not known.*drop=\"new\" leaves it out"
    ):
        load_for_model(str(path), model, need_target=False)
    for options in (TableOptions(drop=["new"]), TableOptions(columns=["a", "b"])):
        assert load_for_model(str(path), model, need_target=False, options=options).features.tolist() == [[2, 4]]
    for argument, options in (("drop", TableOptions(drop=["a", "new"])), ("columns", TableOptions(columns=["b"]))):
        with pytest.raises(gpunet.InvalidValueError, match=f"^{argument}: leaves out 'a', which the model needs"):
            load_for_model(str(path), model, need_target=False, options=options)


@pytest.mark.parametrize("target_is_there", [True, False])
def test_without_a_header_columns_go_by_those_of_the_training_data(target_is_there: bool, tmp_path: Path) -> None:
    """Also where the target, which may stand first, is not there; and where the training data had a header."""
    path, bare = tmp_path / "t.csv", TableOptions(no_header=True)
    row = ("0," if target_is_there else "") + "7,2.5,4"
    for model in (
        model_of(load(path, ROWS, TableOptions(no_header=True, drop=["2"]), target="1")),
        model_of(load(path, f"y,id,a,b\n{ROWS}", TableOptions(drop=["id"]))),
    ):
        path.write_text(f"{row}\n")
        found = load_for_model(str(path), model, need_target=target_is_there, options=bare)
        assert found.features.tolist() == [[2.5, 4]]
        path.write_text("2.5,4\n")
        assert load_for_model(str(path), model, need_target=False, options=bare).features.tolist() == [[2.5, 4]]
        path.write_text("2.5\n")
        with pytest.raises(gpunet.ShapeError, match=r"has 1 column\. The model was trained on"):
            load_for_model(str(path), model, need_target=False, options=bare)


@pytest.mark.parametrize(
    "choices",
    [
        {"options": TableOptions(sep=";")},
        {"options": TableOptions(drop=["a"])},
        {"categorical": ["a"]},
        {"target": "y"},
    ],
)
def test_what_is_no_table_has_no_columns_to_choose(choices: dict[str, Any]) -> None:
    with pytest.raises(gpunet.InvalidValueError, match=": only a table has columns to choose from, and 'digits' is"):
        load_for_training("digits", **choices)
