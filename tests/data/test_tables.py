"""Reading tables and arrays: names, types, line numbers, classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gpunet
from gpunet.data import DataSet, load_for_training
from gpunet.data.text_files import TextFile


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def read(path: Path, content: str, task: str | None = None) -> DataSet:
    path.write_text(content, encoding="utf-8")
    return load_for_training(str(path), target="y", task=task)


def test_integer_classes_are_sorted_as_numbers(table: Path) -> None:
    data = read(table, "a,y\n1,10\n2,9\n3,-1\n4,10\n")
    assert data.class_names == ["-1", "9", "10"]
    assert data.targets is not None
    assert data.targets.tolist() == [2, 1, 0, 2]
    assert (data.name, data.kind) == ("table", "table")


def test_text_classes_are_sorted_as_text(table: Path) -> None:
    data = read(table, "a,y\n1,b\n2, a \n3,10\n4,NA\n")
    assert data.class_names == ["10", "NA", "a", "b"]


def test_each_number_can_be_a_class(table: Path) -> None:
    assert read(table, "a,y\n1,1.5\n2,2\n", "classification").class_names == ["1.5", "2"]


def test_regression_takes_integers_and_floats(table: Path) -> None:
    data = read(table, "a,y\n1,1\n2,2.5\n", "regression")
    assert data.class_names is None
    assert data.targets is not None
    assert data.targets.tolist() == [1.0, 2.5]


def test_the_target_may_stand_anywhere_and_values_may_be_quoted_and_spaced(table: Path) -> None:
    data = read(table, '\ufeffa, y ,"b, c"\r\n1, u,"2"\r\n3,v, 4e1\r\n'.replace(" y ", "y"))
    assert data.feature_names == ["a", "b, c"]
    assert data.features.tolist() == [[1, 2], [3, 40]]


# What pandas, Python and people read as a number differs; features and targets of a regression must not.
@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("\xa05", 5.0),
        ("5\xa0", 5.0),
        ("\x1d5\u2003", 5.0),
        ("18446744073709551616", 2.0**64),
        ("-18446744073709551616", -(2.0**64)),
        ("9" * 400, None),
        ("1E-50", 1e-50),
        ("+.5", 0.5),
    ],
)
def test_what_is_a_number_is_one_as_feature_and_as_target(text: str, number: float | None, table: Path) -> None:
    if number is None:
        for content, column in ((f"a,y\n0,1\n{text},1\n", "a"), (f"a,y\n0,1\n1,{text}\n", "y")):
            with pytest.raises(gpunet.NonFiniteError, match=f"{column}'.*inf is not a finite number") as refused:
                read(table, content, "regression")
            assert "line 3" in str(refused.value)
        return
    data = read(table, f"a,y\n0,1\n{text},{text}\n", "regression")
    assert data.targets is not None
    assert data.features[1, 0] == data.targets[1] == number


def test_numbers_are_rounded_as_python_rounds_them(table: Path) -> None:
    """To the last bit, whatever pandas does by itself."""
    generator = np.random.default_rng(0)
    numbers = generator.standard_normal(2000) * 10.0 ** generator.integers(-20, 20, 2000)
    data = read(table, "a,y\n" + "".join(f"{number!r},{number!r}\n" for number in numbers.tolist()), "regression")
    assert np.array_equal(data.features[:, 0], numbers)
    assert np.array_equal(data.targets, numbers)


@pytest.mark.parametrize("text", ["1_000", "٣", "\uff11", "0x10", "1\xa0000", "1e", "--1", "1.2.3"])
def test_what_is_no_number_is_blamed_as_feature_and_as_target(text: str, table: Path) -> None:
    for content, column in ((f"a,y\n0,1\n{text},1\nx,1\n", "a"), (f"a,y\n0,1\n1,{text}\n1,x\n", "y")):
        with pytest.raises(gpunet.InvalidTypeError, match=f"column '{column}'") as refused:
            read(table, content, "regression")
        assert "line 3" in str(refused.value)
        assert f"{text!r} is not a number" in str(refused.value)


@pytest.mark.parametrize("text", ["NAN", "Nan", "nAn", "na", "-NAN", "None", "NA\t", "\xa0"])
def test_a_missing_feature_is_named_however_it_is_spelled(text: str, table: Path) -> None:
    with pytest.raises(gpunet.InvalidValueError, match="line 3, column 'b': the value is missing"):
        read(table, f"a,b,y\n0,0,1\n1,{text},1\n1,1,1\n", "regression")


def test_true_and_false_are_numbers(table: Path) -> None:
    assert read(table, "a,y\nTrue,u\nFalse,v\n").features.tolist() == [[1], [0]]


def test_line_numbers_count_blank_lines_and_quoted_line_breaks(table: Path) -> None:
    table.write_text('\n"a\nb",y\n1,2\n\n   \n"3\n",4\n5,6\n')
    assert [TextFile(table).line_number(row) for row in range(3)] == [4, 8, 9]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("blank", ["", " ", "\t", " \t "])
def test_blank_lines_are_no_rows_and_count_as_lines(blank: str, end: str, table: Path) -> None:
    with pytest.raises(gpunet.InvalidTypeError, match="line 5, column 'a': 'x' is not a number"):
        read(table, end.join(["a,y", "1,u", blank, "3,v", "x,u"]))


@pytest.mark.parametrize("short", ['""', '" "', "\xa0", "\v", "\u2028"])
def test_a_line_that_only_looks_blank_is_a_row(short: str, table: Path) -> None:
    with pytest.raises(gpunet.FileFormatError, match="line 3 has 1 value, expected 2"):
        read(table, f"a,y\n1,u\n{short}\nx,v\n")
    table.write_text(f"{short}\na,y\n1,u\n", encoding="utf-8")
    with pytest.raises(gpunet.GpunetError, match="line 1"):
        load_for_training(str(table), target="y")


def test_arrays_take_text_integers_and_booleans(tmp_path: Path) -> None:
    path = tmp_path / "arrays.NPZ"
    with path.open("wb") as file:
        np.savez(file, X=np.arange(6, dtype=np.uint8).reshape(3, 2), y=np.array(["b", "a", "b"]))
    data = load_for_training(str(path))
    assert (data.class_names, data.feature_names, data.kind) == (["a", "b"], ["x0", "x1"], "arrays")
    assert data.features.dtype == np.float64
    with path.open("wb") as file:
        np.savez(file, X=np.ones((2, 2)), y=np.array([True, False]))
    assert load_for_training(str(path)).class_names == ["False", "True"]


@pytest.mark.parametrize(("name", "shape", "largest"), [("digits", (1797, 64), 16), ("mnist5k", (5000, 784), 255)])
def test_named_sets(name: str, shape: tuple[int, int], largest: int) -> None:
    data = load_for_training(name)
    assert data.features.shape == shape
    assert data.features.max() == data.raw.largest == largest
    assert len(data.feature_names) == shape[1]
    assert data.class_names == list("0123456789")
    assert (data.name, data.kind) == (name, "images")


def test_errors_are_gpunet_errors(table: Path) -> None:
    with pytest.raises(gpunet.MissingFileError):
        load_for_training(str(table), target="y")
    with pytest.raises(gpunet.InvalidTypeError, match="decimal point"):
        read(table, "a,y\n1,1.5\n2,2.5\n")
