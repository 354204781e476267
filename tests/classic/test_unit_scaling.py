"""Numbers of any size for units that hold numbers from 0 to 1; the oracle is scikit-learn's MinMaxScaler."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import get_tags

from gpunet.classic import Autoencoder, PretrainedClassifier, RestrictedBoltzmannMachine
from gpunet.classic.unit_scaling import learn_scaling
from gpunet.errors import InvalidValueError
from tests.helpers.classic import METHODS, Y, small
from tests.helpers.classic import X as UNITS

KINDS = [RestrictedBoltzmannMachine, Autoencoder, PretrainedClassifier]
# Columns of other sizes, one of them constant.
NUMBERS = np.column_stack([[-3.0, 0.5, 1e4] + UNITS * [2.0, 0.25, -5e3], np.full(len(UNITS), 7.5)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_are_mapped_as_by_scikit_learn_and_back(dtype):
    X = NUMBERS.astype(dtype)
    scaling, theirs = learn_scaling("X", X, scales=True), MinMaxScaler(clip=True).fit(X.astype(np.float64))
    further = 2 * X - 3  # also beyond the range
    for rows in (X, further):
        ours = scaling.scaled(rows)
        assert ours.dtype == dtype
        tolerance = 8 * np.finfo(dtype).eps
        np.testing.assert_allclose(ours[:, :3], theirs.transform(rows)[:, :3], rtol=0, atol=tolerance)
        assert not ours[:, 3].any()
    np.testing.assert_allclose(scaling.restored(scaling.scaled(X)), X, rtol=4 * np.finfo(dtype).eps)
    assert (scaling.restored(np.ones((1, 4), dtype))[0, 3] == X[0, 3]).all()


def test_ranges_of_any_width_are_mapped_without_a_warning():
    """pytest turns NumPy's warnings into errors."""
    for column in ([-1e140, 1e140], [-5e-324, 5e-324], [0.0, 1.5], [1.0 + 2**-52, 1.0]):
        X = np.array(column)[:, np.newaxis]
        scaled = learn_scaling("X", X, scales=True).scaled(np.vstack([X, [[1e140]], [[-1e140]]]))[:, 0]
        assert scaled.tolist() == [*(X[:, 0] == X.max()).astype(float), 1.0, 0.0]
    with pytest.raises(InvalidValueError, match=r"X: 1e\+150 in row 0, column 0 is too large .*: scale X\."):
        learn_scaling("X", np.array([[1e150]]), scales=True)


def state(model):
    """What a model says of every method's X, and the arrays that it learnt."""
    learnt = model.components_ if hasattr(model, "components_") else model.network_.get_parameters()["W1"]
    return learnt.tolist(), model.score(UNITS, Y)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_from_0_to_1_are_taken_as_they_are(kind):
    model = small(kind).fit(UNITS, Y)
    assert model.scaling_ is None
    assert state(model) == state(small(kind, scale_inputs=False).fit(UNITS, Y))
    for method in METHODS:
        if hasattr(model, method) and method != "inverse_transform":
            with pytest.raises(InvalidValueError, match=r"X: .* is out of range. Expected numbers from 0 to 1"):
                getattr(model, method)(2 * UNITS)


@pytest.mark.parametrize("kind", KINDS)
def test_others_are_learnt_as_a_scaler_before_would_have_it(kind):
    model = small(kind, dtype="float64").fit(NUMBERS, Y)
    units = model.scaling_.scaled(NUMBERS)
    same = small(kind, dtype="float64").fit(units, Y)
    further = 2 * NUMBERS - 3
    for method in ("transform", "predict_proba", "predict", "free_energy", "reconstruction_error", "gibbs"):
        if hasattr(kind, method):
            expected = getattr(same, method)(model.scaling_.scaled(further))
            np.testing.assert_array_equal(getattr(model, method)(further), expected)
    assert model.score(NUMBERS, Y) == same.score(units, Y)
    if hasattr(kind, "reconstruct"):
        restored = model.scaling_.restored(same.reconstruct(units))
        np.testing.assert_array_equal(model.reconstruct(NUMBERS), restored)
        np.testing.assert_array_equal(model.inverse_transform(model.transform(NUMBERS)), restored)
        assert (restored >= NUMBERS.min(axis=0)).all()
        assert (restored <= NUMBERS.max(axis=0)).all()
    assert model.fit(UNITS, Y).scaling_ is None


@pytest.mark.parametrize("kind", KINDS)
def test_without_scaling_other_numbers_are_refused_and_the_tags_say_so(kind):
    strict = small(kind, scale_inputs=False)
    with pytest.raises(InvalidValueError, match=r"X: -?[\d.]+ in row 0, column 0 is out of range"):
        strict.fit(NUMBERS, Y)
    assert get_tags(strict).input_tags.positive_only
    assert not get_tags(small(kind)).input_tags.positive_only


def test_the_first_part_settles_the_scaling():
    machine = small(RestrictedBoltzmannMachine, dtype="float64")
    machine.partial_fit(NUMBERS[:12])
    scaling = machine.scaling_
    np.testing.assert_array_equal(scaling.largest, NUMBERS[:12].max(axis=0))
    assert machine.partial_fit(NUMBERS[12:]).scaling_ is scaling
    same = small(RestrictedBoltzmannMachine, dtype="float64")
    same.partial_fit(scaling.scaled(NUMBERS[:12])).partial_fit(scaling.scaled(NUMBERS[12:]))
    np.testing.assert_array_equal(machine.components_, same.components_)
    first = small(RestrictedBoltzmannMachine).partial_fit(UNITS)
    with pytest.raises(InvalidValueError, match=r"X: .* is out of range"):
        first.partial_fit(2 * UNITS)


def test_unlabelled_rows_are_mapped_as_the_labelled_ones():
    model = small(PretrainedClassifier, dtype="float64").fit(NUMBERS, Y, unlabelled=3 * NUMBERS)
    scaled = model.scaling_.scaled
    same = small(PretrainedClassifier, dtype="float64").fit(scaled(NUMBERS), Y, unlabelled=scaled(3 * NUMBERS))
    np.testing.assert_array_equal(model.predict_proba(NUMBERS), same.predict_proba(scaled(NUMBERS)))
