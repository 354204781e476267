"""Splits: sizes, strata, and what is too small to be split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpunet
from gpunet.data import DataSet, load_for_training, split_rows
from gpunet.data.datasets import RawData


def labelled(counts: list[int]) -> DataSet:
    """A data set with so many rows of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    features = np.arange(len(labels), dtype=np.float64).reshape(-1, 1)
    raw = RawData(features, labels, ["x0"], "counted", "arrays", Path("counted.npz"))
    return DataSet(features, labels, ["x0"], [str(label) for label in range(len(counts))], raw)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.integers(3, 30), min_size=2, max_size=8), st.integers(0, 2**32 - 1))
def test_every_class_is_in_the_training_part_and_each_row_in_one_part(counts: list[int], seed: int) -> None:
    # Where there are fewer than 13 rows per class, the validation part may be too small for one of each.
    data = labelled([*counts[:-1], counts[-1] + 13 * len(counts)])
    split = split_rows(data, seed)
    assert np.array_equal(np.sort(np.concatenate([split.train, split.validation, split.test])), np.arange(data.rows))
    assert data.targets is not None
    assert set(data.targets[split.train]) == set(range(len(counts)))
    assert np.array_equal(split.test, split_rows(data, seed).test)


@pytest.mark.parametrize("classes", [2, 3, 7, 10])
def test_the_rows_that_the_refusal_asks_for_are_enough(classes: int) -> None:
    with pytest.raises(gpunet.InvalidValueError, match="counted") as refused:
        split_rows(labelled([3] * classes), 0)
    least = int(str(refused.value).split("at least ")[1].split()[0])
    counts = [least // classes + (label < least % classes) for label in range(classes)]
    split_rows(labelled(counts), 0)
    counts[0] -= 1
    with pytest.raises(gpunet.InvalidValueError):
        split_rows(labelled(counts), 0)


@pytest.mark.parametrize("rare", [[1], [2], [1, 2]])
def test_rare_classes_are_for_training_and_leave_the_split_of_the_others_as_it_was(rare: list[int]) -> None:
    split, without = split_rows(labelled([40, 30, *rare]), 3), split_rows(labelled([40, 30]), 3)
    assert np.array_equal(split.test, without.test)
    assert np.array_equal(split.validation, without.validation)
    assert np.array_equal(np.sort(split.train), np.sort([*without.train, *range(70, 70 + sum(rare))]))


def test_rows_of_rare_classes_do_not_count_among_those_that_are_split() -> None:
    with pytest.raises(gpunet.InvalidValueError, match=r"has 13 rows of classes of at least 3\. Expected at least 14"):
        split_rows(labelled([7, 6, 2]), 0)
    split_rows(labelled([7, 7, 2]), 0)


def test_most_classes_must_not_be_rare() -> None:
    split_rows(labelled([40, 30, 1, 1]), 0)
    with pytest.raises(gpunet.InvalidValueError, match="3 of 5 classes have fewer"):
        split_rows(labelled([40, 30, 1, 1, 2]), 0)


def test_one_class_of_two_rows_beside_one_is_too_rare() -> None:
    with pytest.raises(gpunet.InvalidValueError, match=r"counted.npz, array 'y', row 50: the class '1' has 2 rows"):
        split_rows(labelled([50, 2]), 0)


def test_proportions() -> None:
    data = load_for_training("digits")
    split = split_rows(data, 0)
    assert data.targets is not None
    shares = np.bincount(data.targets[split.test]) / np.bincount(data.targets)
    assert np.allclose(shares, 0.2, atol=0.01)
    assert len(split.validation) == 144


@pytest.mark.parametrize("seed", range(4))
def test_classes_are_in_proportion_in_each_part(seed: int) -> None:
    counts = np.array([400, 150, 50, 30])
    data = labelled(counts.tolist())
    assert data.targets is not None
    split = split_rows(data, seed)
    for part, share in ((split.train, 0.72), (split.validation, 0.08), (split.test, 0.2)):
        found = np.bincount(data.targets[part], minlength=len(counts))
        assert np.abs(found - share * counts).max() < 1.5  # rounded twice
