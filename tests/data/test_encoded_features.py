"""Text encoded one-hot and missing values filled in, as by scikit-learn, learnt on training rows, kept as JSON."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import gpunet
from gpunet.data import Preparation, load_for_model, load_for_training, scale_inputs, split_rows

ROWS = 90
NUMBERS, TEXTS = ["age", "fare"], ["sex", "port"]


def people(seed: int = 0) -> pandas.DataFrame:
    generator = np.random.default_rng(seed)
    frame = pandas.DataFrame(
        {
            "age": generator.normal(40, 10, ROWS).round(1),
            "sex": generator.choice(["f", "m"], ROWS),
            "fare": generator.integers(1, 9, ROWS).astype(float),
            "port": generator.choice(["Q", "S", "C"], ROWS),
            "y": generator.choice(["no", "yes"], ROWS),
        }
    )
    frame.loc[::7, "age"] = np.nan
    frame.loc[::11, "port"] = None
    return frame


def written(frame: pandas.DataFrame, path: Path) -> str:
    frame.to_csv(path, index=False)
    return str(path)


def learned(source: Any, missing: str | None = "mean") -> tuple[Any, Any, Preparation]:
    data = load_for_training(source, target="y", categorical=["auto"], missing=missing)
    split = split_rows(data, 0)
    return data, split, Preparation.learn(data, split, 0)


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent"])
def test_inputs_are_those_of_a_column_transformer(strategy: str, tmp_path: Path) -> None:
    frame = people()
    data, split, preparation = learned(written(frame, tmp_path / "people.csv"), strategy)
    found = preparation.inputs_of(data)

    transformer = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy=strategy), StandardScaler()), NUMBERS),
            ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), TEXTS),
        ]
    )
    # A missing text is a category of scikit-learn's, and an indicator of gpunet's.
    expected = transformer.fit(frame.iloc[split.train]).transform(frame)
    names = [column.name for column in preparation.input_columns]
    theirs = ["age", "fare", "sex = f", "sex = m", "port = C", "port = Q", "port = S", "port is missing"]
    assert sorted(names) == sorted([*theirs, "age is missing"])
    np.testing.assert_allclose(found[:, [names.index(name) for name in theirs]], expected, rtol=1e-12, atol=1e-12)
    assert np.array_equal(found[:, names.index("age is missing")], frame["age"].isna())


def test_every_step_learns_from_the_training_rows_only(tmp_path: Path) -> None:
    frame = people()
    _, split, before = learned(written(frame, tmp_path / "people.csv"))
    others = np.concatenate([split.validation, split.test])
    frame.loc[others, "age"] = 1e6
    frame.loc[others[0], "port"] = "Z"
    frame.loc[others, "fare"] = np.nan
    data, after_split, after = learned(written(frame, tmp_path / "people.csv"))
    assert np.array_equal(split.train, after_split.train)
    assert (after.imputation, after.one_hot, after.scaling) == (before.imputation, before.one_hot, before.scaling)
    assert after.imputation is not None
    assert "fare" not in after.imputation.indicated
    inputs = after.inputs_of(data, others)
    names = [column.name for column in after.input_columns]
    assert np.array_equal(inputs[0, [names.index(f"port = {port}") for port in "CQS"]], [0, 0, 0])
    assert np.abs(inputs[:, names.index("fare")]).max() < 1e-12, "a mean that is filled in is 0 when it is scaled"


def test_what_is_learnt_is_text_and_numbers(tmp_path: Path) -> None:
    data, _, preparation = learned(written(people(), tmp_path / "people.csv"))
    metadata = json.loads(json.dumps(preparation.to_metadata(), allow_nan=False))
    again = Preparation.from_metadata(metadata, [len(preparation.input_columns), 2], "m")
    assert again == preparation
    assert np.array_equal(again.inputs_of(data), preparation.inputs_of(data))
    assert metadata["data"]["one_hot"] == {"categories": {"sex": ["f", "m"], "port": ["C", "Q", "S"]}}
    assert metadata["data"]["imputation"]["indicated"] == ["age", "port"]


@pytest.mark.parametrize(
    "change",
    [
        {"one_hot": {"categories": {"sex": ["f", "m"], "town": ["C"]}}},
        {"one_hot": {"categories": {"sex": ["f", "f"], "port": ["C", "Q", "S"]}}},
        {"one_hot": {"categories": {"sex": "fm", "port": ["C", "Q", "S"]}}},
        {"one_hot": {"categories": {"sex": [1, 2], "port": ["C", "Q", "S"]}}},
        {"one_hot": {"categories": []}},
        {"one_hot": {}},
        {"one_hot": 3},
        {"one_hot": None},
        {"imputation": None},
        {"imputation": {"strategy": "mean", "fill": {"age": 1.0}, "indicated": ["age", "port"]}},
        {"imputation": {"strategy": "mean", "fill": {"age": 1.0, "fare": "x"}, "indicated": ["age", "port"]}},
        {"imputation": {"strategy": "mean", "fill": {"age": 1.0, "fare": 10**400}, "indicated": ["age", "port"]}},
        {"imputation": {"strategy": "mean", "fill": {"age": 1.0, "fare": 1.0}, "indicated": ["age", "town"]}},
        {"imputation": {"strategy": "mean", "fill": [1.0, 1.0], "indicated": ["age", "port"]}},
        {"imputation": {"strategy": "guess", "fill": {"age": 1.0, "fare": 1.0}, "indicated": ["age", "port"]}},
        {"column_names": "age"},
        {"column_names": [1]},
    ],
)
def test_a_damaged_preparation_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    _, _, preparation = learned(written(people(), tmp_path / "people.csv"))
    metadata = {"data": json.loads(json.dumps(preparation.to_metadata()))["data"] | change}
    with pytest.raises(gpunet.FileFormatError, match="preparation"):
        Preparation.from_metadata(metadata, [len(preparation.input_columns), 2], "m")


def test_an_unknown_category_counts_as_none_and_is_told_once(tmp_path: Path) -> None:
    _, _, preparation = learned(written(people(), tmp_path / "people.csv"))
    new = tmp_path / "new.csv"
    new.write_text("age,sex,fare,port\n40,f,3,S\n\n50,m,2,X\n,f,2,X\n30,?,1,S\n")
    with pytest.warns(gpunet.UnknownCategoryWarning, match="column 'port': 'X' in line 4 and 1 more: no train") as told:
        data = load_for_model(str(new), preparation, need_target=False)
    assert len(told) == 1
    inputs = preparation.inputs_of(data)
    names = [column.name for column in preparation.input_columns]
    assert not inputs[1:3, [names.index(f"port = {port}") for port in "CQS"]].any()
    # A value may be missing in a column that lacked none in training, which then has no input that tells.
    assert not inputs[3, [names.index("sex = f"), names.index("sex = m")]].any()


def test_without_imputation_data_must_be_complete(tmp_path: Path) -> None:
    frame = people().fillna({"age": 40.0, "port": "S"})
    _, _, preparation = learned(written(frame, tmp_path / "people.csv"), None)
    for row, column in (("40,f,3,", "port"), (",f,3,S", "age")):
        (tmp_path / "new.csv").write_text(f"age,sex,fare,port\n40,f,3,S\n{row}\n")
        with pytest.raises(gpunet.InvalidValueError, match=f"line 3, column '{column}': the value is missing"):
            load_for_model(str(tmp_path / "new.csv"), preparation, need_target=False)


@pytest.mark.parametrize("column", ["age", "port"])
def test_a_column_without_a_value_in_any_training_row_is_refused(column: str, tmp_path: Path) -> None:
    frame = people()
    _, split, _ = learned(frame)
    frame[column] = frame[column].where(np.arange(ROWS) == split.test[0])
    with pytest.raises(gpunet.InvalidValueError, match=f"column '{column}': no training row has a value.*drop="):
        learned(written(frame, tmp_path / "people.csv"))


def test_numbers_can_be_categories(tmp_path: Path) -> None:
    frame = people()[["age", "fare", "y"]].fillna(40.0).astype({"fare": int})
    for source in (written(frame, tmp_path / "people.csv"), frame):
        data = load_for_training(source, target="y", categorical=["fare"])
        preparation = Preparation.learn(data, split_rows(data, 0), 0)
        assert preparation.one_hot is not None
        assert preparation.one_hot.categories == {"fare": list("12345678")}


def test_missing_values_of_arrays_are_filled_in(tmp_path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((ROWS, 2))
    features[::5, 1] = np.nan
    np.savez(tmp_path / "arrays.npz", X=features, y=np.arange(ROWS) % 2)
    data = load_for_training(str(tmp_path / "arrays.npz"), missing="mean")
    preparation = Preparation.learn(data, split_rows(data, 0), 0)
    assert preparation.inputs_of(data).shape == (ROWS, 3)
    assert load_for_model(str(tmp_path / "arrays.npz"), preparation, need_target=True).rows == ROWS
    network = gpunet.Network([3, 2], device="cpu")
    network.metadata = preparation.to_metadata()
    assert np.array_equal(scale_inputs(network, features), preparation.inputs_of(data))


@pytest.fixture
def network(tmp_path: Path) -> gpunet.Network:
    _, _, preparation = learned(written(people(), tmp_path / "people.csv"))
    network = gpunet.Network([len(preparation.input_columns), 4, 2], device="cpu")
    network.metadata = preparation.to_metadata()
    return network


def test_scale_inputs_takes_frames_and_rows_of_objects(network: gpunet.Network, tmp_path: Path) -> None:
    frame = people().drop(columns="y")
    data, _, preparation = learned(str(tmp_path / "people.csv"))
    expected = preparation.inputs_of(data)
    assert np.array_equal(scale_inputs(network, frame), expected)
    assert np.array_equal(scale_inputs(network, frame[["port", "fare", "sex", "age"]]), expected)
    assert np.array_equal(scale_inputs(network, frame.to_numpy(dtype=object)), expected)
    assert np.array_equal(scale_inputs(network, frame.to_numpy(dtype=object).tolist()), expected)
    with pytest.warns(gpunet.UnknownCategoryWarning, match="X, column 'sex': 'd' in row 1"):
        scale_inputs(network, [[1.0, "f", 2.0, "S"], [1.0, "d", 2.0, None]])
    with pytest.raises(gpunet.ShapeError, match=r"Expected \(rows, 4\)"):
        scale_inputs(network, [[1.0, "f", 2.0]])
    with pytest.raises(gpunet.InvalidTypeError, match="X, row 1, column 'age': 'old' is not a number"):
        scale_inputs(network, [[1.0, "f", 2.0, "S"], ["old", "f", 2.0, "S"]])
    with pytest.raises(gpunet.InvalidValueError, match="X: the column 'port', which the model needs, is not there"):
        scale_inputs(network, frame.drop(columns="port"))


def test_a_network_of_encoded_features_takes_inputs_by_their_order(network: gpunet.Network) -> None:
    """Its metadata name the features, not the inputs."""
    inputs = scale_inputs(network, people().drop(columns="y"))
    names = [f"input {place}" for place in range(inputs.shape[1])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = network.predict(pandas.DataFrame(inputs, columns=names))
    assert np.array_equal(found, network.predict(inputs))


def test_a_model_of_text_takes_tables_only(network: gpunet.Network) -> None:
    preparation = Preparation.from_metadata(network.metadata, network.layer_sizes, "m")
    with pytest.raises(gpunet.InvalidValueError, match="data: 'digits' is no table"):
        load_for_model("digits", preparation, need_target=False)
