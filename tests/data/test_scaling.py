"""Scaling and fingerprints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import gpunet
from gpunet.data import Preparation, Scaling, load_for_training, split_rows

NUMBERS = arrays(np.float64, st.tuples(st.integers(2, 20), st.integers(1, 4)), elements=st.floats(-1e6, 1e6, width=32))


@given(NUMBERS)
def test_standardised_columns_have_mean_0_and_deviation_1_and_come_back(values: npt.NDArray[Any]) -> None:
    names = [str(column) for column in range(values.shape[1])]
    scaling = Scaling.standardising(values, names)
    scaled = scaling.apply(values)
    constant = values.min(axis=0) == values.max(axis=0)
    assert np.array_equal(np.array(scaling.scale)[constant], np.ones(constant.sum()))
    # A spread far below the mean leaves few digits of the difference.
    digits = 1e-9 + 1e-14 * np.abs(values).max(axis=0) / np.array(scaling.scale)
    assert (np.abs(scaled.mean(axis=0)) <= digits).all()
    assert (np.abs(scaled.std(axis=0) - 1)[~constant] <= digits[~constant]).all()
    assert np.allclose(scaling.invert(scaled), values, rtol=1e-9, atol=1e-9 * np.abs(values).max())


def test_a_constant_column_with_rounding_keeps_scale_1() -> None:
    columns = [np.full((rows, 1), 0.1) for rows in range(2, 30)]
    assert any(column.std(axis=0) > 0 for column in columns)
    for column in columns:
        assert Scaling.standardising(column, ["a"]).scale == [1.0]


def test_images_are_divided_by_their_largest_value() -> None:
    assert np.array_equal(Scaling.dividing(2, 16.0).apply(np.array([[0.0, 16.0]])), [[0.0, 1.0]])


def test_numbers_without_a_deviation_are_refused_by_name() -> None:
    values = np.array([[0.0, 1e300], [1.0, -1e300]])
    with pytest.raises(gpunet.NonFiniteError, match="column 'b'"):
        Scaling.standardising(values, ["a", "b"])


def test_only_the_training_part_is_looked_at(tmp_path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((40, 2))
    np.savez(tmp_path / "arrays.npz", X=features, y=np.arange(40) % 2)
    data = load_for_training(str(tmp_path / "arrays.npz"))
    split = split_rows(data, 0)
    before = Preparation.learn(data, split, 0).scaling
    data.features[split.test] = 1e6
    data.features[split.validation] = -1e6
    assert Preparation.learn(data, split, 0).scaling == before
    assert before == Scaling.standardising(features[split.train], data.feature_names)


def test_fingerprints_tell_data_apart() -> None:
    data = load_for_training("digits")
    whole, part = data.fingerprint(), data.fingerprint(np.arange(10))
    assert whole == load_for_training("digits").fingerprint()
    assert len({whole, part, data.fingerprint(np.arange(10)[::-1])}) == 3
    data.features[0, 0] += 1
    assert data.fingerprint() != whole
