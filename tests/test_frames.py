"""DataFrames of any library where arrays of numbers are asked for: networks, training and estimators."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest

import gpunet

COLUMNS: dict[str, list[Any]] = {
    "integer": [3, 1, 2, 5] * 5,
    "flag": [True, False, False, True] * 5,
    "number": [0.5, -1.0, 2.0, 0.25] * 5,
}
VALUES = np.array(list(COLUMNS.values()), dtype=np.float64).T
LABELS = np.arange(20) % 2

FRAMES: dict[str, Callable[[dict[str, list[Any]]], Any]] = {
    "pandas": pandas.DataFrame,
    "pandas, nullable": lambda columns: pandas.DataFrame(columns).convert_dtypes(),
    "pandas, objects": lambda columns: pandas.DataFrame(columns).astype(object),
    "pandas, Arrow's types": lambda columns: pyarrow.table(columns).to_pandas(types_mapper=pandas.ArrowDtype),
    "polars": polars.DataFrame,
    "Arrow": pyarrow.table,
}


def network() -> gpunet.Network:
    return gpunet.Network([3, 4, 2], seed=1, device="cpu")


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES.keys())
def test_frames_of_numbers_are_arrays(make: Callable[..., Any]) -> None:
    frame = make(COLUMNS)
    assert np.array_equal(network().predict_proba(frame), network().predict_proba(VALUES))
    histories = [gpunet.fit(network(), X, LABELS, epochs=2)["loss"] for X in (frame, VALUES)]
    assert histories[0] == histories[1]


@pytest.mark.filterwarnings("ignore::gpunet.estimators.stopping.NotConvergedWarning")
@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES.keys())
def test_estimators_take_frames_and_know_their_names(make: Callable[..., Any]) -> None:
    models = [gpunet.MLPClassifier(max_iter=2, random_state=0).fit(X, LABELS) for X in (make(COLUMNS), VALUES)]
    assert np.array_equal(models[0].predict_proba(make(COLUMNS)), models[1].predict_proba(VALUES))
    assert list(models[0].feature_names_in_) == list(COLUMNS)


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES.keys())
def test_columns_are_put_into_the_order_of_the_networks_names(make: Callable[..., Any]) -> None:
    known = network()
    known.metadata = {"data": {"feature_names": list(COLUMNS), "target_name": "y"}}
    swapped = make({name: COLUMNS[name] for name in ("number", "integer", "flag")})
    assert np.array_equal(known.predict_proba(swapped), network().predict_proba(VALUES))
    with pytest.raises(gpunet.InvalidValueError, match="X: lacks the column 'flag'"):
        known.predict(make({name: COLUMNS[name] for name in ("number", "integer")}))


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES.keys())
def test_a_missing_value_is_named_with_its_place(make: Callable[..., Any]) -> None:
    with pytest.raises(gpunet.NonFiniteError, match=r"row 2, column ('flag'|1)") as refused:
        network().predict(make(COLUMNS | {"flag": [True, False, None, True] * 5}))
    assert refused.value.row == 2


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES.keys())
def test_text_is_refused_by_row_and_column(make: Callable[..., Any]) -> None:
    with pytest.raises(gpunet.InvalidTypeError, match=r"X: 'a' in row 1, column 'flag' is text.*ColumnTransformer"):
        network().predict(make(COLUMNS | {"flag": [None, "a", "b", "c"] * 5}))
    assert np.array_equal(network().predict(make(COLUMNS)), network().predict(VALUES))


def test_plain_numbers_need_no_other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "narwhals", None)
    assert np.array_equal(network().predict(pandas.DataFrame(VALUES)), network().predict(VALUES))
    with pytest.raises(gpunet.MissingDependencyError, match=r"'narwhals', .* pip install 'gpunet\[data\]'"):
        network().predict(pandas.DataFrame(COLUMNS).astype(object))
