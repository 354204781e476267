"""Names and tables of what transformers return: scikit-learn's own checks, and its habits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from gpunet.classic import Autoencoder, RestrictedBoltzmannMachine, pretrain_stack
from gpunet.errors import InvalidValueError, NotFittedError, ShapeError
from tests.helpers.classic import X, small

KINDS = [RestrictedBoltzmannMachine, Autoencoder]
FRAME = pd.DataFrame(X, columns=["age", "height", "weight"], index=range(50, 50 + len(X)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_transformer_get_feature_names_out,
        estimator_checks.check_transformer_get_feature_names_out_pandas,
        estimator_checks.check_set_output_transform,
        estimator_checks.check_set_output_transform_pandas,
        estimator_checks.check_global_output_transform_pandas,
        estimator_checks.check_set_output_transform_polars,
        estimator_checks.check_global_set_output_transform_polars,
    ],
)
def test_scikit_learn_finds_nothing(kind, check):
    check(kind.__name__, small(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_tables_have_names_and_the_index_of_x(kind):
    model = small(kind).fit(FRAME).set_output(transform="pandas")
    table = model.transform(FRAME)
    assert table.columns.tolist() == model.get_feature_names_out().tolist()
    assert table.columns[1] == f"{kind.__name__.lower()}1"
    assert table.index.equals(FRAME.index)
    assert clone(model).fit_transform(FRAME).equals(table)
    np.testing.assert_array_equal(model.set_output(transform="default").transform(FRAME), table)
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(model.transform(FRAME), np.ndarray), "what the estimator was told counts"
    assert model.set_output() is model
    with pytest.raises(InvalidValueError, match=r"transform: 'panda' is not known\. Did you mean 'pandas'"):
        model.set_output(transform="panda")


@pytest.mark.parametrize("kind", KINDS)
def test_names_pass_through_pipelines_and_column_transformers(kind):
    columns = ColumnTransformer([("units", small(kind), ["height", "age"])], remainder="passthrough")
    table = make_pipeline(StandardScaler(), columns).set_output(transform="pandas").fit_transform(FRAME)
    assert table.columns[0] == f"units__{kind.__name__.lower()}0"
    assert table.columns[-1] == "remainder__weight"


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_are_not_those_of_fit_are_refused(kind):
    with pytest.raises(NotFittedError):
        small(kind).get_feature_names_out()
    model = small(kind).fit(FRAME)
    with pytest.raises(ShapeError, match=r"should have length equal to number of features \(3\), got 2"):
        model.get_feature_names_out(["age", "height"])
    with pytest.raises(InvalidValueError, match="input_features is not equal to feature_names_in_"):
        model.get_feature_names_out(["age", "weight", "height"])


def test_stacks_do_not_care_what_transformers_return():
    arguments = {"hidden_layer_sizes": (4, 3), "epochs": 1, "device": "cpu"}
    with sklearn.config_context(transform_output="pandas"):
        tables = pretrain_stack(FRAME, **arguments)
        assert isinstance(tables[0].reconstruct(FRAME), np.ndarray)
    arrays = pretrain_stack(X, **arguments)
    np.testing.assert_array_equal(tables[1].components_, arrays[1].components_)
    assert not hasattr(tables[1], "feature_names_in_")
