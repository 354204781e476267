"""Models that take raw rows: networks as ``gpunet train`` leaves them, and fitted estimators."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import gpunet
from gpunet.data.imputation import Imputation
from gpunet.data.preparation import Preparation
from gpunet.data.scaling import Scaling

Array = npt.NDArray[Any]


class Case(NamedTuple):
    """A model, raw rows, and what it says of them."""

    model: Any
    X: Array
    answers: Array
    probabilities: Array | None


def raw_rows(rows: int = 61) -> Array:
    """Return columns whose offsets and scales are far apart; years among them."""
    generator = np.random.default_rng(3)
    centre, spread = np.array([2013.0, -0.004, 7.0, 1e5]), np.array([1.5, 1e-3, 40.0, 2e4])
    rows_ = generator.standard_normal((rows, 4)) * spread + centre
    rows_[:, 0] = np.round(rows_[:, 0])
    return rows_


def prepared(X: Array, classes: list[str] | None, **arguments: Any) -> tuple[gpunet.Network, Preparation]:
    """Return a network of small weights that knows its data as one of ``gpunet train`` does."""
    outputs = 1 if classes is None else len(classes)
    loss = "squared_error" if classes is None else "softmax_cross_entropy"
    network = gpunet.Network([X.shape[1], 6, outputs], loss=loss, device="cpu", **arguments)
    names = [f"column {place}" for place in range(X.shape[1])]
    preparation = Preparation(
        data_set="table",
        task="regression" if classes is None else "classification",
        feature_names=names,
        class_names=classes,
        target_name="target",
        scaling=Scaling.standardising(X, names),
        target_scaling=Scaling([1e6], [30.0]) if classes is None else None,
        seed=0,
        fingerprint="",
        test_fingerprint="",
    )
    network.metadata = preparation.to_metadata()
    if any(network.batch_norm):
        y = np.arange(len(X)) % outputs if classes else X[:, :1] % 2
        gpunet.fit(network, preparation.inputs(X), y, epochs=2, batch_size=16)
    return network, preparation


def trained_classifier(**arguments: Any) -> Case:
    X = raw_rows()
    network, preparation = prepared(X, ["9", "10", "Zürich"], **arguments)
    inputs = preparation.inputs(X)
    names = np.array(preparation.class_names)
    return Case(network, X, names[network.predict(inputs)], network.predict_proba(inputs))


def trained_with_gaps(**arguments: Any) -> Case:
    """Return a network whose training rows lacked values in two columns, and rows that lack some in a third too."""
    X = raw_rows()
    fill = X.mean(axis=0)
    missing = np.random.default_rng(5).random(X.shape) < 0.2
    missing[:, 3] = False
    network, preparation = prepared(np.column_stack([X, missing[:, [0, 2]]]), ["a", "b"], **arguments)
    names = [f"column {place}" for place in range(4)]
    preparation = replace(
        preparation,
        feature_names=names,
        imputation=Imputation("mean", dict(zip(names, fill.tolist(), strict=True)), [names[0], names[2]]),
    )
    network.metadata = preparation.to_metadata()
    raw = np.where(missing, np.nan, X)
    inputs = preparation.inputs(raw)
    assert inputs.shape == (len(X), 6)
    assert np.isfinite(inputs).all()
    labels = network.logits(inputs).argmax(axis=1)
    return Case(network, raw, np.array(["a", "b"])[labels], network.predict_proba(inputs))


def trained_regression(**arguments: Any) -> Case:
    X = raw_rows()
    network, preparation = prepared(X, None, **arguments)
    return Case(network, X, preparation.numbers(network.logits(preparation.inputs(X))), None)


def classifier(labels: Any, **arguments: Any) -> Case:
    X = raw_rows()
    y = np.resize(labels, (len(X), *np.shape(labels)[1:]))
    model = fitted(gpunet.MLPClassifier, X, y, **arguments)
    return Case(model, X, model.predict(X), model.predict_proba(X))


def regressor(targets: int, **arguments: Any) -> Case:
    X = raw_rows()
    y = X[:, :targets] * 3 + 1e5
    model = fitted(gpunet.MLPRegressor, X, y[:, 0] if targets == 1 else y, **arguments)
    return Case(model, X, model.predict(X), None)


def fitted(kind: type, X: Array, y: Array, **arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that two epochs are not enough
        return kind((6, 5), max_iter=2, random_state=0, device="cpu", **arguments).fit(X, y)


CASES: dict[str, Callable[..., Case]] = {
    "trained classifier": trained_classifier,
    "missing values": trained_with_gaps,
    "trained regression": trained_regression,
    "text": lambda **arguments: classifier(["b", "a", "ü"], **arguments),
    "integers": lambda **arguments: classifier([7, -1, 1000], **arguments),
    "two classes": lambda **arguments: classifier([True, False], **arguments),
    "numbers": lambda **arguments: classifier([0.0, 2.0, 4.0], **arguments),
    "several labels": lambda **arguments: classifier([[0, 1, 1], [1, 0, 1]], **arguments),
    "one target": lambda **arguments: regressor(1, **arguments),
    "two targets": lambda **arguments: regressor(2, **arguments),
}
