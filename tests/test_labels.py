"""Labels of any kind: learnt by the first ``fit``, kept with the network, and what everything speaks of afterwards."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.diagnostics import DiagnosticsCallback, check_gradients, inspect
from gpunet.diagnostics.callback import spread_rows
from tests.helpers.networks import learnable

X, PLACES = learnable(90)
COUNT = int(PLACES.max()) + 1
NAMES = np.array([f"class {place}" for place in range(COUNT)])
# What is given, and what comes back.
KINDS: dict[str, tuple[Any, np.ndarray]] = {
    "text": (NAMES[PLACES], NAMES),
    "text objects": (NAMES[PLACES].astype(object), NAMES),
    "lists": (NAMES[PLACES].tolist(), NAMES),
    "integers from 1": (PLACES + 1, np.arange(1, COUNT + 1)),
    "negative integers": (PLACES.astype(np.int8) * -3, np.arange(COUNT) * 3 - 3 * (COUNT - 1)),
    "large integers": (PLACES.astype(np.uint64) * 2**61, np.arange(COUNT) * 2**61),
    "integer objects": ((PLACES + 1).astype(object), np.arange(1, COUNT + 1)),
    "whole floats": (PLACES * 10.0 - 5, np.arange(COUNT) * 10.0 - 5),
}


def new(outputs: int = COUNT, **arguments: Any) -> gpunet.Network:
    return gpunet.Network([X.shape[1], 8, outputs], seed=3, device="cpu", **arguments)


def train(network: gpunet.Network, y: Any, **arguments: Any) -> gpunet.History:
    return gpunet.fit(network, X, y, epochs=3, batch_size=20, optimizer=gpunet.SGD(0.2), **arguments)


def same(one: gpunet.Network, other: gpunet.Network) -> bool:
    expected = other.get_parameters()
    return all(np.array_equal(values, expected[name]) for name, values in one.get_parameters().items())


@pytest.fixture(scope="module")
def plain() -> gpunet.Network:
    """Trained with labels from 0 on."""
    network = new()
    train(network, PLACES, validation=(X, PLACES))
    return network


def test_labels_from_zero_need_no_translation(plain: gpunet.Network) -> None:
    assert plain.metadata == {}
    assert plain.classes is None
    assert plain.predict(X).dtype == np.int64


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_any_kind_come_back(kind: str, plain: gpunet.Network, tmp_path: Path) -> None:
    given, classes = KINDS[kind]
    network = new()
    history = train(network, given, validation=(X, given))
    ordered = np.sort(classes)
    assert network.classes is not None
    np.testing.assert_array_equal(network.classes, ordered)
    if kind != "negative integers":  # sorted, they are the other way round
        assert same(network, plain)
    accuracy = history["validation_accuracy"][-1]
    copies = [network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    copies += [gpunet.load(network.save(tmp_path / f"network{kind}.npz"), device="cpu")]
    for one in copies:
        found = one.predict(X)
        assert found.dtype.kind == classes.dtype.kind
        np.testing.assert_array_equal(found, ordered[network.predict_proba(X).argmax(axis=1)])
        assert gpunet.evaluate(one, X, given).accuracy == np.mean(found == np.asarray(given)) == accuracy
    cost, _ = network.loss_and_gradients(X, given)
    network.metadata = {}
    assert cost == network.loss_and_gradients(X, np.searchsorted(ordered, np.asarray(given)))[0]


def test_booleans_come_back() -> None:
    network = new(2)
    train(network, PLACES == 0)
    assert network.metadata == {"class_labels": [False, True]}
    assert network.predict(X).dtype == bool
    twin = new(2)
    train(twin, (PLACES == 0).astype(int))
    assert same(network, twin)


def test_classes_may_be_told_in_any_order(plain: gpunet.Network) -> None:
    """The order is that of the outputs; a batch may lack some of them then."""
    network = new()
    network.metadata["class_labels"] = NAMES[::-1].tolist()
    train(network, NAMES[::-1][PLACES])
    assert same(network, plain)
    rare = PLACES[PLACES < 2]
    assert gpunet.evaluate(network, X[PLACES < 2], NAMES[::-1][rare]).rows == len(rare)


def test_class_weights_go_by_label(plain: gpunet.Network) -> None:
    by_name, by_place = new(), new()
    train(by_name, NAMES[PLACES], class_weight={"class 1": 3.0})
    train(by_place, PLACES, class_weight={1: 3.0})
    assert same(by_name, by_place)
    assert not same(by_name, plain)
    with pytest.raises(gpunet.InvalidValueError, match=r"class_weight: label 1 is not one of \['class 0'"):
        train(by_name, NAMES[PLACES], class_weight={1: 3.0})


def test_a_run_of_names_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    whole, parts = new(), new()
    gpunet.fit(whole, X, NAMES[PLACES], epochs=4)
    gpunet.fit(parts, X, NAMES[PLACES], epochs=2, checkpoint=path)
    again = new()
    gpunet.fit(again, X, NAMES[PLACES], epochs=4, checkpoint=path, resume=True)
    assert same(again, whole)
    np.testing.assert_array_equal(again.predict(X), whole.predict(X))


def test_a_column_is_taken_with_one_warning_that_says_how_to_avoid_it(plain: gpunet.Network) -> None:
    for column in (PLACES.reshape(-1, 1), NAMES[PLACES].reshape(-1, 1)):
        network = new()
        with pytest.warns(UserWarning, match=r"y: got a column of labels, .* y\.ravel\(\) makes it \(90,\)") as caught:
            train(network, column)
        assert [warning.filename for warning in caught] == [__file__]
        assert same(network, plain)


UNFIT: dict[str, tuple[Any, type[Exception], str]] = {
    "too few": (NAMES[PLACES.clip(max=1)], gpunet.InvalidValueError, "y: has 2 different labels, 'class 0', 'class 1'"),
    "too many": (list(map(str, range(90))), gpunet.InvalidValueError, "y: has 90 different labels"),
    "fractions": (PLACES + 0.5, gpunet.InvalidTypeError, r"y: got .*\.5 in row 0, of dtype float64"),
    "NaN": (np.where(np.arange(len(X)) == 7, np.nan, PLACES), gpunet.InvalidTypeError, "y: got nan in row 7, of dtype"),
    "missing": (np.where(PLACES == 1, None, NAMES[PLACES]), gpunet.InvalidTypeError, "y: got None in row"),
    "mixed": (np.where(PLACES == 1, 1, NAMES[PLACES].astype(object)), gpunet.InvalidTypeError, "y: got .* in row"),
    "bytes": (NAMES[PLACES].astype("S"), gpunet.InvalidTypeError, "y: got dtype .S7"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_cannot_be_learnt_changes_nothing(case: str) -> None:
    value, error, message = UNFIT[case]
    network = new()
    with pytest.raises(error, match=message):
        train(network, value)
    assert network.metadata == {}


def test_a_run_that_cannot_begin_leaves_no_classes() -> None:
    network = new()
    with pytest.raises(gpunet.InvalidValueError, match="validation y: label 'other' in row 0 is not known"):
        train(network, NAMES[PLACES], validation=(X[:1], ["other"]))
    with pytest.raises(gpunet.InvalidTypeError, match=r"validation y: got dtype int64\. Expected labels among"):
        train(network, NAMES[PLACES], validation=(X, PLACES))
    assert network.metadata == {}
    network.metadata = None  # type: ignore[assignment]
    with pytest.raises(gpunet.InvalidTypeError, match="metadata: got NoneType"):
        train(network, NAMES[PLACES])


def test_a_trained_network_learns_no_others(plain: gpunet.Network) -> None:
    for unfit in (NAMES[PLACES], PLACES + 1):
        with pytest.raises(gpunet.GpunetError, match=r"^y: "):
            train(plain, unfit)
    assert plain.metadata == {}


@pytest.mark.parametrize("told", ["abc", {}, [], ["a"], ["a", "a", "b"], ["a", "b", 3], [None] * 3, [[1], [2], [3]]])
def test_metadata_that_tell_no_classes_do_not_count(told: Any) -> None:
    network = new(3)
    network.metadata = {"class_labels": told}
    assert network.classes is None
    assert network.predict(X).dtype == np.int64
    assert new(3, loss="squared_error").classes is None


def test_an_output_of_numbers_has_no_column_to_itself() -> None:
    numbers = X[:, 0]
    network = gpunet.Network([X.shape[1], 8, 1], loss="squared_error", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for targets in (numbers, numbers.reshape(-1, 1)):
            gpunet.fit(network, X, targets, epochs=1)
    assert network.predict(X).shape == (90,)
    assert network.predict(X[:1]).shape == (1,)
    np.testing.assert_array_equal(network.predict(X), network.logits(X)[:, 0])
    assert new(2, loss="squared_error").predict(X).shape == (90, 2)
    assert new(1, loss="sigmoid_cross_entropy").predict(X).shape == (90, 1)


def test_looking_inside_speaks_of_the_same_labels() -> None:
    losses = []
    for given in (PLACES, NAMES[PLACES]):
        network = new(activation="tanh")
        callback = DiagnosticsCallback(X, given, rows=30)
        train(network, given, callbacks=[callback])
        np.testing.assert_array_equal(callback.sample[1], given[spread_rows(90, 30)])
        errors = check_gradients(network, X, given, directions=1)
        assert max(errors.values()) < 1e-6
        losses.append([record.loss for record in callback.records] + [inspect(network, X, given).loss])
    assert losses[0] == losses[1]
