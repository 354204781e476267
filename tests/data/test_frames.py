"""Parquet files and DataFrames of pandas, polars and Arrow as data sets."""

from __future__ import annotations

import datetime
import decimal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest
from pyarrow.parquet import write_table

import gpunet
from gpunet.data import Preparation, TableOptions, load_for_model, load_for_training, split_rows

ROWS = 30
INTEGERS = [None if row % 7 == 3 else row for row in range(ROWS)]
COLUMNS: dict[str, list[Any]] = {
    "integer": INTEGERS,
    "flag": [None if row % 5 == 2 else row % 3 == 0 for row in range(ROWS)],
    "number": [row / 4 for row in range(ROWS)],
    "exact": [decimal.Decimal(row) / 8 for row in range(ROWS)],
    "text": [None if row % 9 == 1 else "abc"[row % 3] for row in range(ROWS)],
    "y": ["no" if row % 2 else "yes" for row in range(ROWS)],
}
OBJECTS = {name: pandas.Series(values, dtype=object) for name, values in COLUMNS.items()}
FRAMES: dict[str, Callable[[], Any]] = {
    "pandas, as objects": lambda: pandas.DataFrame(OBJECTS),
    "pandas, nullable": lambda: pandas.DataFrame(OBJECTS).astype(
        {"integer": "Int64", "flag": "boolean", "number": "Float64", "text": "string"}
    ),
    "pandas, categories": lambda: pandas.DataFrame(OBJECTS).astype({"text": "category", "y": "category"}),
    "pandas, Arrow's types": lambda: pyarrow.table(COLUMNS).to_pandas(types_mapper=pandas.ArrowDtype),
    "polars": lambda: polars.DataFrame(COLUMNS),
    "polars, categories": lambda: polars.DataFrame(COLUMNS).with_columns(
        polars.col("text").cast(polars.Categorical), polars.col("y").cast(polars.Enum(["yes", "no"]))
    ),
    "Arrow": lambda: pyarrow.table(COLUMNS),
    "Arrow, dictionaries": lambda: pyarrow.table(
        {
            name: pyarrow.array(values).dictionary_encode() if name in "text y" else values
            for name, values in COLUMNS.items()
        }
    ),
}
CHOICES: dict[str, Any] = {"target": "y", "categorical": ["auto"], "missing": "mean"}


def inputs(source: Any) -> tuple[Any, Preparation]:
    data = load_for_training(source, **CHOICES)
    preparation = Preparation.learn(data, split_rows(data, 0), 0)
    return preparation.inputs_of(data), preparation


@pytest.fixture
def expected(tmp_path: Path) -> tuple[Any, Preparation]:
    """The inputs and the preparation of the same table in a text file."""
    pandas.DataFrame(OBJECTS).to_csv(tmp_path / "data.csv", index=False)
    return inputs(str(tmp_path / "data.csv"))


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES.keys())
def test_a_frame_is_the_table_it_is_written_as(make: Callable[[], Any], expected: Any) -> None:
    found, preparation = inputs(make())
    assert np.array_equal(found, expected[0])
    assert preparation == expected[1]
    data = load_for_model(make(), expected[1], need_target=True)
    assert np.array_equal(expected[1].inputs_of(data), expected[0])
    assert data.fingerprint() == expected[1].fingerprint


def test_a_parquet_file_is_the_table_it_is_written_as(expected: Any, tmp_path: Path) -> None:
    write_table(pyarrow.table(COLUMNS), tmp_path / "data.parquet", row_group_size=7)
    found, preparation = inputs(str(tmp_path / "data.parquet"))
    assert np.array_equal(found, expected[0])
    assert preparation == expected[1]
    text_as_numbers = load_for_model(str(tmp_path / "data.csv"), preparation, need_target=True)
    assert text_as_numbers.fingerprint() == preparation.fingerprint


def parquet(folder: Path, columns: dict[str, Any]) -> str:
    write_table(pyarrow.table(columns), folder / "t.parquet")
    return str(folder / "t.parquet")


DAY = datetime.date(2026, 1, 1)
REFUSED = {
    "lists": ([[1], [2]], "t.parquet, column 'a': holds List.* Expected numbers or text; drop=\"a\" leaves the column"),
    "structures": ([{"p": 1}, {"p": 2}], "column 'a': holds Struct"),
    "dates": ([DAY, DAY], "column 'a': holds Date"),
    "times": ([datetime.datetime(2026, 1, 1)] * 2, "column 'a': holds Datetime"),
    "bytes": ([b"1", b"2"], "column 'a': holds Binary"),
    "text": (["1", "x"], "row 1, column 'a': 'x' is not a number. Features must be numbers; categorical=\"a\""),
    "missing": ([1, None], "row 1, column 'a': the value is missing. Expected one; missing=\"mean\" fills such in"),
    "infinite": ([1.0, np.inf], "row 1, column 'a': inf is not a finite number"),
}


@pytest.mark.parametrize(
    "options", [{"sep": ";"}, {"encoding": "cp1252"}, {"no_header": True}], ids=lambda of: next(iter(of))
)
def test_what_is_said_of_a_text_file_is_refused_of_others(options: dict[str, Any], tmp_path: Path) -> None:
    columns = {"a": [1, 2], "y": ["u", "v"]}
    for source in (parquet(tmp_path, columns), polars.DataFrame(columns)):
        with pytest.raises(gpunet.InvalidValueError, match=f"^{next(iter(options))}: is for text files"):
            load_for_training(source, target="y", options=TableOptions(**options))


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_feature_is_refused_by_column_and_row(values: list[Any], message: str, tmp_path: Path) -> None:
    for source in (
        parquet(tmp_path, {"a": values, "b": [1, 2], "y": ["u", "v"]}),
        polars.DataFrame({"a": values, "y": ["u", "v"]}),
    ):
        with pytest.raises(gpunet.GpunetError, match=message.replace("t.parquet", "(t.parquet|data)")):
            load_for_training(source, target="y")
    data = load_for_training(str(tmp_path / "t.parquet"), target="y", options=TableOptions(drop=["a"]))
    assert data.feature_names == ["b"]


@pytest.mark.parametrize("value", [{1}, 1j, DAY, [1], b"1"])
def test_objects_that_are_neither_numbers_nor_text_are_refused(value: Any) -> None:
    frame = pandas.DataFrame({"a": pandas.Series([1, value], dtype=object), "y": ["u", "v"]})
    with pytest.raises(gpunet.InvalidTypeError, match=r"data, row 1, column 'a': .* is a "):
        load_for_training(frame, target="y")


@pytest.mark.parametrize("missing", [None, np.nan, pandas.NA, pandas.NaT, np.float32("nan")])
def test_missing_objects_are_named_with_their_place(missing: Any) -> None:
    frame = pandas.DataFrame({"a": pandas.Series([1, True, missing], dtype=object), "y": ["u", "v", "u"]})
    with pytest.raises(gpunet.InvalidValueError, match="data, row 2, column 'a': the value is missing"):
        load_for_training(frame, target="y")


def test_names_of_columns(tmp_path: Path) -> None:
    data = load_for_training(parquet(tmp_path, {" a.b ": [1, 2], "y": ["u", "v"]}), target="y")
    assert data.feature_names == ["a.b"]
    assert load_for_training(pandas.DataFrame({0: [1, 2], "y": ["u", "v"]}), target="y").feature_names == ["0"]
    twice = pandas.DataFrame([[1, 2, "u"], [1, 2, "v"]], columns=["a", "a", "y"])
    with pytest.raises(gpunet.InvalidValueError, match=r"'a' 2 times\. Expected different names"):
        load_for_training(twice, target="y")


def test_the_index_that_pandas_wrote_is_named_with_what_drops_it(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pandas.DataFrame({"a": [1, 2], "y": ["u", "v"]}, index=["p", "q"]).to_parquet(path)
    with pytest.raises(
        gpunet.InvalidValueError, match=r'as pandas writes the index of its rows. drop="__index_level_0__"'
    ):
        load_for_training(str(path), target="y")
    options = TableOptions(drop=["__index_level_0__"])
    assert load_for_training(str(path), target="y", options=options).feature_names == ["a"]


def test_columns_that_nobody_asks_for_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import parquet as module

    asked = []
    read = module.ParquetFile.read
    monkeypatch.setattr(
        module.ParquetFile,
        "read",
        lambda self, columns, **options: asked.append(columns) or read(self, columns, **options),
    )
    path = parquet(tmp_path, {"a": [1, 2], "b": [1, 2], "y": ["u", "v"]})
    load_for_training(path, target="y", options=TableOptions(columns=["b"]))
    assert asked == [["b", "y"]]


@pytest.mark.parametrize("damage", [b"", b"a,y\n1,2\n", b"PAR1PAR1", None])
def test_damaged_files_are_refused(damage: bytes | None, tmp_path: Path) -> None:
    path = Path(parquet(tmp_path, {"a": [1, 2] * 50, "y": ["u", "v"] * 50}))
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(gpunet.FileFormatError, match=r"t\.parquet: cannot be read as Parquet"):
        load_for_training(str(path), target="y")


def test_tables_without_rows_and_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(gpunet.FileFormatError, match="has columns but no rows"):
        load_for_training(pandas.DataFrame({"a": [], "y": []}), target="y")
    with pytest.raises(gpunet.InvalidTypeError, match=r"got a LazyFrame. Expected its rows: data.collect\(\)"):
        load_for_training(polars.DataFrame({"a": [1], "y": [1]}).lazy(), target="y")
    for nothing in (None, [[1, 2]], np.zeros((2, 2)), 3):
        with pytest.raises(gpunet.InvalidTypeError, match=r"data: got .* Expected a file's name or a DataFrame"):
            load_for_training(nothing, target="y")


def test_parquet_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path, {"a": [1, 2], "y": ["u", "v"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(gpunet.MissingDependencyError, match=r"'pyarrow', .* pip install 'gpunet\[parquet\]'"):
        load_for_training(path, target="y")
