"""What the classic estimators know of the columns of X: scikit-learn's rule, with scikit-learn as the oracle."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import SGDClassifier

import gpunet
from gpunet.classic import Perceptron, PretrainedClassifier
from gpunet.classic.inputs import column_names
from gpunet.errors import InvalidTypeError, InvalidValueError, ShapeError
from tests.helpers.classic import KINDS, METHODS, X, Y, fit_quietly, same_state, small

NAMES = ["age", "height", "weight"]
FRAME = pd.DataFrame(X, columns=NAMES)
# What comes to a fitted estimator: the columns may be others, be in another order, or have no names.
COMING = {
    "the same": FRAME,
    "swapped": FRAME[["height", "age", "weight"]],
    "renamed": FRAME.rename(columns={"age": "years"}),
    "missing": FRAME[["age", "weight"]],
    "more": FRAME.assign(shoes=0.5),
    "numbers": pd.DataFrame(X),
    "array": X,
}


def outcome(call):
    """Return the kind of error, or of warning, that a call ends in."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
        except ValueError:
            return ValueError
    return {warning.category for warning in caught} - {gpunet.ConvergenceWarning}


def calls(model, data):
    """Return a call of every method of an estimator that takes X, on a fitted one."""
    for name in METHODS:
        if hasattr(model, name) and name != "inverse_transform":
            yield lambda name=name: getattr(model, name)(data)
    yield lambda: model.score(data, Y)
    if hasattr(model, "partial_fit"):
        yield lambda: pickle.loads(pickle.dumps(model)).partial_fit(data, Y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("learnt", ["the same", "numbers", "array"])
@pytest.mark.parametrize("coming", COMING)
def test_every_method_does_with_names_what_scikit_learn_does(kind, learnt, coming):
    data = COMING[coming]
    theirs = SGDClassifier().fit(COMING[learnt], Y)
    expected = outcome(lambda: theirs.predict(data))
    assert expected in (ValueError, {UserWarning}, set())
    model = fit_quietly(small(kind), COMING[learnt], Y)
    assert hasattr(model, "feature_names_in_") == hasattr(theirs, "feature_names_in_")
    assert model.n_features_in_ == theirs.n_features_in_
    for call in calls(model, data):
        assert outcome(call) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_recorded_and_forgotten_by_the_next_fit(kind):
    model = fit_quietly(small(kind), FRAME, Y)
    assert model.feature_names_in_.tolist() == NAMES
    assert model.feature_names_in_.dtype == SGDClassifier().fit(FRAME, Y).feature_names_in_.dtype
    assert pickle.loads(pickle.dumps(model)).feature_names_in_.tolist() == NAMES
    np.testing.assert_array_equal(*(fit_quietly(small(kind), data, Y).score(data, Y) for data in (FRAME, X)))
    if hasattr(model, "partial_fit"):
        first = small(kind).partial_fit(FRAME, Y)
        assert first.feature_names_in_.tolist() == NAMES
    fit_quietly(model, X, Y)
    assert not hasattr(model, "feature_names_in_")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("coming", "message"),
    [
        (
            "swapped",
            r"X: got the columns 'height', 'age', 'weight'\. Expected .* order, 'age', 'height', 'weight'\..*Use",
        ),
        ("renamed", r"X: columns that differ from those of fit: unknown 'years'; missing 'age'\."),
        ("missing", r"X: columns that differ from those of fit: missing 'height'\."),
        ("twice", r"X: columns that differ from those of fit: missing 'height'\."),
        ("more", r"X: columns that differ from those of fit: unknown 'shoes'\."),
    ],
)
def test_what_differs_is_named_and_nothing_changes(kind, coming, message):
    model = fit_quietly(small(kind), FRAME, Y)
    before = dict(vars(model))
    for call in calls(model, FRAME[["age", "age", "weight"]] if coming == "twice" else COMING[coming]):
        with pytest.raises(InvalidValueError, match=message):
            call()
    assert same_state(model, before)


def test_the_hint_of_a_wrong_order_helps():
    model = Perceptron().fit(FRAME, Y)
    swapped = COMING["swapped"]
    np.testing.assert_array_equal(model.predict(swapped[model.feature_names_in_]), model.predict(FRAME))


def test_many_names_are_not_all_shown():
    many = pd.DataFrame(np.eye(9), columns=list("abcdefghi"))
    model = Perceptron().fit(many, np.arange(9) % 2)
    with pytest.raises(InvalidValueError, match="unknown 'A', 'B', 'C', 'D', 'E' and 4 more; missing 'a'"):
        model.predict(many.rename(columns=str.upper))


@pytest.mark.parametrize("kind", KINDS)
def test_text_beside_other_names_is_refused_as_scikit_learn_refuses_it(kind):
    mixed = FRAME.rename(columns={"age": 0})
    with pytest.raises(TypeError, match="string"):
        SGDClassifier().fit(mixed, Y)
    model = small(kind)
    with pytest.raises(InvalidTypeError, match="X: got 0 for a column's name beside names that are text"):
        model.fit(mixed, Y)
    assert vars(model) == vars(small(kind))


def test_unlabelled_rows_have_the_columns_of_the_labelled_ones():
    model = small(PretrainedClassifier)
    with pytest.raises(InvalidValueError, match="unlabelled: got the columns 'height', 'age'"):
        model.fit(FRAME, Y, unlabelled=COMING["swapped"])
    assert not model.__sklearn_is_fitted__()
    assert model.fit(FRAME, Y, unlabelled=FRAME).feature_names_in_.tolist() == NAMES


def test_any_table_with_columns_will_do_and_no_package_is_imported():
    code = """
import sys, numpy as np, gpunet.classic as c, gpunet

class Table:
    def __init__(self, columns): self.columns = columns
    def __array__(self, dtype=None, copy=None): return np.eye(2)

model = c.Perceptron().fit(Table(["a", "b"]), [0, 1])
assert model.feature_names_in_.tolist() == ["a", "b"]
try:
    model.predict(Table(["b", "a"]))
    sys.exit("not refused")
except gpunet.InvalidValueError:
    pass
sys.exit(any(name.split(".")[0] in ("sklearn", "scipy", "pandas") for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Odd:
    """Has an attribute of that name which is no list of names."""

    def __init__(self, columns):
        self.columns = columns


def test_what_is_no_table_has_no_names():
    for values in (X, X.tolist(), None, 3, Odd(None), Odd(3), Odd(len), Odd(np.array(1.0))):
        assert column_names("X", values) is None


def test_a_table_of_another_width_without_names_is_refused_by_its_width():
    model = Perceptron().fit(pd.DataFrame(X), Y)
    with pytest.raises(ShapeError, match="X has 2 features, but Perceptron is expecting 3"):
        model.predict(pd.DataFrame(X[:, :2]))
