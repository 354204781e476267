"""Targets: a class is the text that stands there, and a model finds its own classes in every file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpunet
from gpunet.data.datasets import RawData
from gpunet.data.targets import known_labels, learn_targets, read_numbers


def raw(targets: Any) -> RawData:
    """Targets as they are read from a table (a list of text) or from an array."""
    values = np.array(targets, dtype=object) if isinstance(targets, list) else targets
    return RawData(np.zeros((len(values), 1)), values, ["x0"], "made", "arrays", Path("made.npz"))


@pytest.mark.parametrize(
    ("texts", "classes"),
    [
        ("1_0 10 1_1 11", ["10", "11", "1_0", "1_1"]),
        ("01 1 001", ["001", "01", "1"]),
        ("07 08 9", ["07", "08", "9"]),
        ("+1 -1", ["+1", "-1"]),
        ("12345678901234567890 12345678901234567891", ["12345678901234567890", "12345678901234567891"]),
        ("10 9 -1", ["-1", "9", "10"]),
        ("10 9 2 -1 9", ["-1", "2", "9", "10"]),
        ("٣ 3", ["3", "٣"]),
        ("NA 0 1", ["0", "1", "NA"]),
        ("nan 0 1", ["0", "1", "nan"]),
        ("9" * 5000 + " 10 9", ["10", "9", "9" * 5000]),
    ],
)
def test_the_name_of_a_class_is_its_text(texts: str, classes: list[str]) -> None:
    labels, names = learn_targets(raw(texts.split()), None)
    assert names == classes
    assert [names[label] for label in labels] == texts.split()


@pytest.mark.parametrize(
    ("texts", "classes"),
    [
        ("1e2 100", ["100", "1e2"]),
        ("1e400 2", ["1e400", "2"]),
        ("1.0 1", ["1", "1.0"]),
        ("10.5 9.5 2", ["2", "9.5", "10.5"]),
        ("1.50 1.5", ["1.5", "1.50"]),
    ],
)
def test_numbers_that_are_written_otherwise_are_other_classes(texts: str, classes: list[str]) -> None:
    labels, names = learn_targets(raw(texts.split()), "classification")
    assert names == classes
    assert [classes[label] for label in labels] == texts.split()


@given(st.lists(st.text(st.sampled_from("0123456789.eE+-_ aN٣"), min_size=1, max_size=5), min_size=2, max_size=20))
def test_no_two_texts_are_one_class(texts: list[str]) -> None:
    if len(set(texts)) < 2:
        return
    labels, names = learn_targets(raw(texts), "classification")
    assert names is not None
    assert [names[label] for label in labels] == texts
    assert np.array_equal(known_labels(raw(texts), names), labels)


@pytest.mark.parametrize(
    ("array", "classes"),
    [
        (np.array([1.0, 2.0]), ["1.0", "2.0"]),
        (np.array([0.1, 10], dtype=np.float32), ["0.1", "10.0"]),
        (np.array([10, 9], dtype=np.uint8), ["9", "10"]),
        (np.array([True, False]), ["False", "True"]),
        (np.array(["10", "9"]), ["9", "10"]),
        (np.array(["10", "9", "2"]), ["2", "9", "10"]),
    ],
)
def test_the_name_of_a_class_in_an_array_is_what_its_value_prints_as(array: Any, classes: list[str]) -> None:
    labels, names = learn_targets(raw(array), "classification")
    assert names == classes
    assert [classes[label] for label in labels] == array.astype(str).tolist()


@pytest.mark.parametrize(
    ("targets", "row", "text"),
    [
        ("1 2.5", 1, "2.5"),
        ("NA 1e2 3", 1, "1e2"),
        (np.array([1.0, 2.0]), 0, "1.0"),
        (np.array(["1", "1.5"]), 1, "1.5"),
    ],
)
def test_quantities_need_a_task(targets: Any, row: int, text: str) -> None:
    targets = targets.split() if isinstance(targets, str) else targets
    with pytest.raises(gpunet.InvalidTypeError, match=rf"such as {text} in row {row}\. .* task=\"regression\""):
        learn_targets(raw(targets), None)


@pytest.mark.parametrize(
    ("classes", "texts", "labels"),
    [
        (["1", "2", "other"], "2 1 2", [1, 0, 1]),  # the file lacks the one class that is no number
        (["01", "1", "x"], "1 01", [1, 0]),
        (["1", "1.0"], "1.0 1", [1, 0]),
        (["0", "1"], "1.0 0.0", [1, 0]),
        (["0.0", "1.0"], "1 0", [1, 0]),
        (["nan", "0"], "nan nan", [0, 0]),
        (["2", "9", "10"], "10 9 2 10", [2, 1, 0, 2]),  # in another order than the texts
    ],
)
def test_a_model_finds_its_classes_by_their_text_first(classes: list[str], texts: str, labels: list[int]) -> None:
    assert known_labels(raw(texts.split()), classes).tolist() == labels


def test_a_model_finds_its_classes_in_numbers() -> None:
    assert known_labels(raw(np.array([2.0, 1.0])), ["1", "2"]).tolist() == [1, 0]
    assert known_labels(raw(np.array([2, 1])), ["1.0", "2.0"]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("classes", "text"), [(["1", "2"], "01"), (["01", "2"], "1"), (["1", "2"], "1e0"), (["0", "0.0"], "-0.0")]
)
def test_text_that_only_means_the_same_number_is_another_class(classes: list[str], text: str) -> None:
    with pytest.raises(gpunet.InvalidValueError, match=f"row 1: class: '{text}' is not known"):
        known_labels(raw([classes[0], text]), classes)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1700000000.25", 1700000000.25),
        ("12345678901234567890123", 12345678901234567890123.0),
        ("-18446744073709551616", -18446744073709551616.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1E-50", 1e-50),
    ],
)
def test_the_targets_of_a_regression(text: str, number: float) -> None:
    assert read_numbers(raw(["1", text])).tolist() == [1.0, number]
    assert read_numbers(raw(np.array(["1", text]))).tolist() == [1.0, number]


@pytest.mark.parametrize("text", ["NaN", "NAN", "Nan", "-nan", "NA", "null"])
def test_a_target_that_is_missing_is_named(text: str) -> None:
    with pytest.raises(gpunet.NonFiniteError, match=f"row 1: {text} is not a finite number"):
        read_numbers(raw(["0", text, "x"]))


@pytest.mark.parametrize("text", ["1_000", "٣", "0x10", "1 000", "1\xa0000", "True", "1,5"])
def test_a_target_that_is_no_number_is_named(text: str) -> None:
    with pytest.raises(gpunet.InvalidTypeError, match=r"row 1: .* is not a number") as refused:
        read_numbers(raw(["0", text, "x"]))
    assert repr(text) in str(refused.value)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(gpunet.InvalidValueError, match=r"task: 'regresion' is not known\. Did you mean"):
        learn_targets(raw(["1", "2"]), "regresion")
