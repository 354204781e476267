"""What the classic learning rules share: scikit-learn's contract, binary labels, and how bad input is refused."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn.exceptions
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpunet
from gpunet.classic import (
    Adaline,
    DeltaRule,
    Madaline,
    Perceptron,
    PretrainedClassifier,
    RestrictedBoltzmannMachine,
    encoder_network,
)
from gpunet.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from tests.helpers import classic

CLASSIFIERS = [Perceptron, Adaline, Madaline]
ALL = [*CLASSIFIERS, DeltaRule]


def separable(rows: int = 60, seed: int = 0):
    """Two classes, 3 features, that a hyperplane off the origin separates with room."""
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((rows, 3))
    scores = X @ [1.0, -2.0, 0.5] + 0.4
    return X[np.abs(scores) > 0.3], scores[np.abs(scores) > 0.3] > 0


def small(kind, **parameters):
    """An estimator that learns `separable` quickly."""
    if kind is DeltaRule:
        parameters = {"epochs": 5, "device": "cpu", **parameters}
    return kind(**parameters)


def attributes(model):
    """Every attribute of an estimator, as bytes."""
    return {name: pickle.dumps(value) for name, value in vars(model).items() if name != "network_"}


@pytest.mark.parametrize("kind", classic.KINDS)
def test_parameters_are_stored_as_given_and_cloned(kind):
    model = classic.small(kind, seed=3)
    assert model.get_params() == kind().get_params() | classic.SMALL[kind] | {"seed": 3}
    classic.fit_quietly(model, classic.X, classic.Y)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "n_features_in_")
    assert copy.set_params(seed=4) is copy
    assert copy.seed == 4


@pytest.mark.parametrize("kind", classic.KINDS)
def test_constructor_takes_keywords_only_and_checks_nothing(kind):
    with pytest.raises(TypeError, match="positional"):
        kind(1)
    assert kind(seed="later").seed == "later"


@pytest.mark.parametrize("kind", classic.KINDS)
def test_a_subclass_may_have_a_constructor_of_its_own(kind):
    class Own(kind):
        def __init__(self, *, start=7):
            super().__init__(**classic.SMALL[kind], seed=start)
            self.start = start

    model = classic.fit_quietly(Own(), classic.X, classic.Y)
    assert model.get_params() == clone(model).get_params() == {"start": 7}
    assert repr(Own(start=8)) == "Own(start=8)"
    expected = classic.fit_quietly(classic.small(kind, seed=7), classic.X, classic.Y)
    assert model.score(classic.X, classic.Y) == expected.score(classic.X, classic.Y)


def test_repr_is_a_call_with_what_differs_from_the_defaults():
    assert repr(Perceptron()) == "Perceptron()"
    assert repr(Madaline(hidden_units=3, output="majority")) == "Madaline(hidden_units=3, output='majority')"
    assert repr(Adaline(batch_size=None)) == "Adaline(batch_size=None)"
    assert repr(Madaline(learning_rate=float("0.1"), max_epochs=int("100"))) == "Madaline()"
    assert repr(Perceptron(max_epochs=1000.0)) == "Perceptron(max_epochs=1000.0)"
    assert repr(DeltaRule(hidden_units=np.array([3, 2]))) == "DeltaRule(hidden_units=array([3, 2]))"


@pytest.mark.parametrize("kind", classic.KINDS)
def test_unknown_parameters_are_refused_before_any_is_set(kind):
    model = kind(seed=1)
    with pytest.raises(InvalidValueError, match=r"'sede' is not known\. Did you mean 'seed'"):
        model.set_params(seed=2, sede=3)
    assert model.seed == 1


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize(
    ("low", "high"), [(-1, 1), (0, 1), (3, 7), (-2.5, 0.5), ("no", "yes"), (False, True)], ids=lambda value: repr(value)
)
def test_any_two_labels_stand_for_minus_and_plus_one(kind, low, high):
    X, positive = separable()
    labels = np.array([low, high])[positive.astype(int)]
    model = small(kind).fit(X, labels)
    reference = small(kind).fit(X, np.where(positive, 1, -1))
    assert model.classes_.tolist() == [low, high]
    assert model.classes_.dtype == labels.dtype
    np.testing.assert_array_equal(model.decision_function(X), reference.decision_function(X))
    np.testing.assert_array_equal(model.predict(X), np.where(reference.predict(X) == 1, high, low))
    assert model.score(X, labels) == np.mean(model.predict(X) == labels)


@pytest.mark.parametrize(
    ("low", "high", "kind"), [("no", "yes", "U"), (False, True, "b"), (3, 7, "i"), (-0.5, 2.0, "f")], ids=repr
)
def test_labels_of_one_kind_may_be_objects(low, high, kind):
    X, positive = separable()
    labels = np.array([low, high], dtype=object)[positive.astype(int)]
    model = Perceptron().fit(X, labels)
    assert model.classes_.dtype.kind == kind
    assert model.classes_.tolist() == [low, high]
    assert model.score(X, labels) == 1.0


@pytest.mark.parametrize("kind", [*CLASSIFIERS, PretrainedClassifier])
def test_labels_in_one_column_are_taken_with_a_warning_at_the_line_of_fit(kind):
    model, same = classic.small(kind), classic.fit_quietly(classic.small(kind), classic.X, classic.Y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataConversionWarning)
        warnings.simplefilter("ignore", gpunet.ConvergenceWarning)
        model.fit(classic.X, classic.Y[:, np.newaxis])
    (warning,) = caught
    assert warning.category is DataConversionWarning
    assert warning.filename == __file__
    assert "A column-vector y was passed when a 1d array was expected: y.ravel()" in str(warning.message)
    np.testing.assert_array_equal(model.predict(classic.X), same.predict(classic.X))
    assert model.score(classic.X, classic.Y[:, np.newaxis]) == same.score(classic.X, classic.Y)


@pytest.mark.parametrize("kind", classic.KINDS)
def test_objects_that_are_numbers_are_read_as_numbers(kind):
    """As a data frame's columns of several dtypes come; missing values and text are refused."""
    objects = classic.X.astype(object)
    model, same = (classic.fit_quietly(classic.small(kind), X, classic.Y) for X in (objects, classic.X))
    assert model.score(objects, classic.Y) == same.score(classic.X, classic.Y)
    for value, message in ((None, "nan in row 1, column 2"), ("0.5", "got dtype object"), ({}, "got objects that")):
        objects[1, 2] = value
        with pytest.raises((InvalidTypeError, NonFiniteError), match=f"X: {message}"):
            model.score(objects, classic.Y)
    frame = pd.DataFrame(
        {"a": pd.array([1, 0] * 12, "Int64"), "b": classic.X[:, 0], "c": pd.array([True] * 24, "boolean")}
    )
    model = classic.fit_quietly(classic.small(kind), frame, classic.Y)
    assert model.score(frame, classic.Y) == model.score(frame.astype(float), classic.Y)
    frame.loc[3, "a"] = pd.NA
    with pytest.raises(NonFiniteError, match="X: the value in row 3, column 'a' is missing"):
        model.score(frame, classic.Y)


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 1, 1], r"1 class \(1\)"),
        ([0, 1, 2], r"3 classes \(0, 1, 2\)"),
        (["a", "b", "c"], r"3 classes \('a', 'b', 'c'\)"),
        (list(range(9)), r"9 classes \(0, 1, 2, 3, 4, 5, \.\.\.\)"),
    ],
)
def test_other_numbers_of_classes_are_refused_by_name(kind, labels, message):
    with pytest.raises(InvalidValueError, match=message):
        kind().fit(np.eye(len(labels)), labels)


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        ([[1.0], [2.0]], [0, np.nan], NonFiniteError, "y: nan in row 1"),
        ([[1.0], [np.nan]], [0, 1], NonFiniteError, "X: nan in row 1, column 0"),
        ([[1.0], [np.inf]], [0, 1], NonFiniteError, "X: inf in row 1, column 0"),
        ([1.0, 2.0], [0, 1], ShapeError, r"X: got shape \(2,\).*X\.reshape"),
        (np.empty((0, 3)), [], ShapeError, "X: got no rows"),
        (np.empty((2, 0)), [0, 1], ShapeError, r"X: got 0 feature\(s\)"),
        ([[1.0], [2.0]], [0, 1, 1], ShapeError, "y: got 3 labels for 2 rows"),
        ([[1.0], [2.0]], None, InvalidValueError, "y: this estimator requires y to be passed"),
        ([[1.0], [2.0], [3.0]], [0.5, 1, 2], InvalidValueError, r"y: Unknown label type: continuous\. Got 3 classes"),
        ([[1j], [2.0]], [0, 1], InvalidValueError, "X: Complex data not supported, got dtype complex128"),
        ([[{}], [2.0]], [0, 1], InvalidTypeError, "X: got objects that are no numbers"),
        (np.array([["2.5"], [2.0]], object), [0, 1], InvalidTypeError, r"X: got dtype object \('2.5' in row 0"),
        ([[1.0], [2.0]], [[0, 1], [1, 0]], ShapeError, r"y: got shape \(2, 2\)"),
        ([[1.0], [2.0]], [None, 1], InvalidTypeError, "y: got None in row 0"),
        ([[1.0], [2.0]], np.array([True, 1], object), InvalidTypeError, "y: got 1 in row 1"),
        ([[1.0], [2.0]], np.array([[0], [1, 2]], object), InvalidTypeError, r"y: got \[0\] in row 0"),
        ([[1.0], [2.0]], [[0], [1, 2]], ShapeError, "y: cannot be read as an array"),
        ([[1.0], [2.0]], np.ma.masked_array([0, 1], [False, True]), InvalidTypeError, "y: got a masked array"),
        ([[1.0], [-2e140]], [0, 1], InvalidValueError, r"X: -2e\+140 in row 1, column 0 is too large"),
        ([[1.0], [2.0]], [1j, 1], InvalidTypeError, "y: got dtype complex128"),
        ([["a"], ["b"]], [0, 1], InvalidTypeError, "X: got dtype"),
    ],
)
def test_data_that_make_no_sense_are_refused_and_change_nothing(kind, X, y, error, message):
    model = small(kind).fit(*separable())
    before = attributes(model)
    with pytest.raises(error, match=message):
        model.fit(X, y)
    assert attributes(model) == before


@pytest.mark.parametrize("kind", ALL)
def test_prediction_needs_the_features_of_fit(kind):
    X, y = separable()
    model = small(kind).fit(X, y)
    assert model.n_features_in_ == 3
    with pytest.raises(ShapeError, match=f"X has 2 features, but {kind.__name__} is expecting 3 features as input"):
        model.predict(X[:, :2])
    with pytest.raises(NonFiniteError, match="X: nan in row 0, column 1"):
        model.predict([[0.0, np.nan, 0.0]])


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_features_too_large_to_multiply_are_refused_by_every_method(kind):
    """And those that are not overflow nothing: pytest turns NumPy's warnings into errors."""
    X, y = separable()
    model = small(kind).fit(X, y)
    for method in ("predict", "decision_function"):
        with pytest.raises(InvalidValueError, match=r"X: 1e\+200 in row 0, column 1 is too large"):
            getattr(model, method)([[0.0, 1e200, 0.0]])
    with pytest.raises(InvalidValueError, match=r"X: 1e\+200 in row 0, column 1"):
        model.score([[0.0, 1e200, 0.0]], [True])
    parameters = {"learning_rate": 1e-300} if kind is Adaline else {}
    large = classic.fit_quietly(small(kind, **parameters), 1e139 / np.abs(X).max() * X, y)
    assert np.isfinite(large.decision_function(1e140 / np.abs(X).max() * X)).all()


def test_labels_of_another_kind_are_never_right():
    X, y = separable()
    assert Perceptron().fit(X, np.where(y, "1", "0")).score(X, y.astype(int)) == 0.0


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_score_needs_one_label_per_row(kind):
    X, y = separable()
    model = small(kind).fit(X, y)
    with pytest.raises(ShapeError, match="1 label for"):
        model.score(X, y[:1])


@pytest.mark.parametrize("kind", ALL)
def test_same_seed_same_model_and_a_second_fit_forgets_the_first(kind):
    X, y = separable()
    X = X[:, :2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gpunet.ConvergenceWarning)
        first, again = small(kind, shuffle=True).fit(X, y), small(kind, shuffle=True).fit(*separable()).fit(X, y)
        other = small(kind, shuffle=True, seed=1).fit(X, y)
    np.testing.assert_array_equal(first.predict(X), again.predict(X))
    assert first.history_ == again.history_
    assert first.history_ != other.history_


@pytest.mark.parametrize("kind", ALL)
def test_estimators_work_in_pipelines_and_searches(kind):
    X, y = separable()
    pipeline = make_pipeline(StandardScaler(), small(kind))
    step = kind.__name__.lower()
    assert pipeline.fit(X, y).predict(X).shape == y.shape
    assert len(cross_val_score(pipeline, X, y, cv=3)) == 3
    search = GridSearchCV(pipeline, {f"{step}__shuffle": [True, False]}, cv=2).fit(X, y)
    assert search.best_params_.keys() == {f"{step}__shuffle"}
    assert is_classifier(small(kind)) == (kind is not DeltaRule)
    assert is_regressor(small(kind)) == (kind is DeltaRule)


@pytest.mark.parametrize("kind", classic.KINDS)
def test_fitted_estimators_are_pickled(kind):
    model = classic.fit_quietly(classic.small(kind), classic.X, classic.Y)
    twin = pickle.loads(pickle.dumps(model))
    for method in ("predict", "decision_function", "predict_proba", "transform", "reconstruct"):
        if hasattr(kind, method):
            np.testing.assert_array_equal(getattr(twin, method)(classic.X), getattr(model, method)(classic.X))


def test_scikit_learn_is_not_imported():
    code = """
import sys, warnings, gpunet, gpunet.classic as c

with warnings.catch_warnings(record=True) as caught:
    c.Perceptron(max_epochs=None).fit([[0.0], [1.0]], [[0], [1]]).predict([[2.0]])
assert [warning.category for warning in caught] == [UserWarning]
repr(c.Adaline())
try:
    c.Madaline().predict([[2.0]])
except gpunet.NotFittedError as error:
    assert type(error) is gpunet.NotFittedError
machine = c.RestrictedBoltzmannMachine(n_components=2, device="cpu").fit([[-3.0], [7.0]])
assert machine.transform([[2.0]]).shape == (1, 2)
assert machine.get_feature_names_out().tolist() == ["restrictedboltzmannmachine0", "restrictedboltzmannmachine1"]
sys.exit(any(name.split(".")[0] in ("sklearn", "scipy") for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_to_scikit_learn_the_error_before_fit_is_its_own():
    with pytest.raises(sklearn.exceptions.NotFittedError) as caught:
        Perceptron().predict([[1.0]])
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error, gpunet.NotFittedError)
    assert str(error) == str(caught.value)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        encoder_network([RestrictedBoltzmannMachine()], 2)
