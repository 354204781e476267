"""Estimators with a ``gpunet.CustomLoss``: the numbers of gpunet's own where it is the same function."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

import gpunet
from gpunet import MLPClassifier, MLPRegressor
from tests.layers.test_custom_loss import labels, numbers

pytestmark = pytest.mark.filterwarnings("ignore:max_iter")

GENERATOR = np.random.default_rng(0)
X = GENERATOR.standard_normal((121, 4))
NAMES = np.array(["oak", "ash", "yew"])[np.abs(X[:, :3]).argmax(axis=1)]
Y = 7 + 3 * X[:, 0] - X[:, 1] * X[:, 2]
COUNTS = GENERATOR.poisson(np.exp(0.5 * X[:, 0]))
GIVEN: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 4, "tol": 0, "random_state": 0, "device": "cpu"}


def poisson_value(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return (np.exp(outputs) - targets * outputs).sum(axis=1)


def poisson_gradient(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.exp(outputs) - targets


POISSON = gpunet.CustomLoss("poisson", value=poisson_value, gradient=poisson_gradient)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_classifier_learns_what_it_learns_from_gpunets_own(solver: str, early_stopping: bool) -> None:
    given = GIVEN | {"solver": solver, "early_stopping": early_stopping, "class_weight": "balanced"}
    own, built_in = (MLPClassifier(**given, loss=loss).fit(X, NAMES) for loss in (labels(), None))
    assert (own.network_.loss, own.out_activation_) == ("mine", "softmax")
    np.testing.assert_allclose(own.predict_proba(X), built_in.predict_proba(X), rtol=1e-8)
    assert own.predict(X).tolist() == built_in.predict(X).tolist()
    assert own.score(X, NAMES) == built_in.score(X, NAMES)


@pytest.mark.parametrize(("given", "same"), [(None, False), (False, False), (True, True)])
@pytest.mark.parametrize("columns", [1, 2])
def test_a_regressor_scales_the_targets_of_such_a_loss_where_it_is_told_to(
    given: bool | None, same: bool, columns: int
) -> None:
    y = Y if columns == 1 else np.stack([Y, X[:, 3]], axis=1)
    own = MLPRegressor(**GIVEN, loss=numbers(), scale_targets=given).fit(X, y)
    built_in = MLPRegressor(**GIVEN, scale_targets=same).fit(X, y)
    np.testing.assert_allclose(own.predict(X), built_in.predict(X), rtol=1e-8)


def test_counts_are_learnt_as_they_are() -> None:
    model = MLPRegressor(**GIVEN | {"solver": "lbfgs", "max_iter": 100}, loss=POISSON).fit(X, COUNTS)
    means = np.exp(model.predict(X))
    assert means.mean() == pytest.approx(COUNTS.mean(), rel=1e-3)  # which holds where the gradient by b2 is 0


@pytest.mark.parametrize(
    ("model", "y"), [(MLPClassifier(**GIVEN, loss=labels()), NAMES), (MLPRegressor(**GIVEN, loss=POISSON), COUNTS)]
)
def test_it_is_cloned_pickled_and_searched(model: Any, y: np.ndarray) -> None:
    fitted = clone(model).fit(X, y)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict(X), fitted.predict(X))
    assert again.set_params(warm_start=True).fit(X, y).n_iter_ == 2 * fitted.n_iter_
    search = GridSearchCV(model, {"loss": [model.loss, type(model)().loss]}, cv=2)
    assert len(search.fit(X, y).cv_results_["params"]) == 2


def test_a_classifier_goes_on_with_it() -> None:
    model = MLPClassifier(**GIVEN, loss=labels())
    model.partial_fit(X[:60], NAMES[:60], classes=np.unique(NAMES)).partial_fit(X[60:], NAMES[60:])
    assert model.network_.loss == "mine"
    with pytest.raises(gpunet.InvalidValueError, match=r"^loss: got None, and the network to go on with was made with"):
        model.set_params(loss=None).partial_fit(X, NAMES)


TWICE = gpunet.CustomLoss(
    "poisson",
    value=lambda outputs, targets: 2 * poisson_value(outputs, targets),
    gradient=lambda outputs, targets: 2 * poisson_gradient(outputs, targets),
)


def bend(size: float) -> gpunet.Activation:
    return gpunet.Activation(
        "bend",
        forward=lambda s: size * np.tanh(s),
        derivative=lambda s: size / np.cosh(s) ** 2,
        derivative_of="input",
    )


@pytest.mark.parametrize(
    ("parameter", "one", "other"),
    [("loss", POISSON, TWICE), ("activation", bend(1), bend(2)), ("activation", [bend(1)], [bend(2)])],
)
def test_what_has_but_the_name_in_common_is_not_gone_on_with(parameter: str, one: Any, other: Any) -> None:
    model = clone(MLPRegressor(**GIVEN | {parameter: one})).fit(X, Y)
    before = model.set_params(**{parameter: one}).partial_fit(X, Y).predict(X)
    with pytest.raises(gpunet.InvalidValueError, match=f"^{parameter}: got .* of other functions, and the network"):
        model.set_params(**{parameter: other}).partial_fit(X, Y)
    np.testing.assert_array_equal(model.predict(X), before)


SEVERAL = np.stack([X[:, 0] > 0, X[:, 1] > 0], axis=1).astype(int)


@pytest.mark.parametrize(
    ("model", "y", "error", "message"),
    [
        (MLPClassifier(loss=numbers()), NAMES, gpunet.InvalidValueError, "loss: .*mine.* targets='labels'"),
        (MLPClassifier(loss=labels()), SEVERAL, gpunet.InvalidValueError, "loss: .*several labels per row"),
        (MLPClassifier(loss="huber"), NAMES, gpunet.InvalidTypeError, "loss: .*CustomLoss or None"),
        (MLPClassifier(loss=labels(), label_smoothing=0.1), NAMES, gpunet.InvalidValueError, "label_smoothing: .*own"),
        (MLPRegressor(loss=labels()), Y, gpunet.InvalidValueError, "loss: .*targets='numbers', or a .*MLPClassifier"),
        (MLPRegressor(loss=gpunet.Huber(2)), Y, gpunet.InvalidTypeError, "loss: .*huber, quantile, or a .*CustomLoss"),
        (MLPRegressor(loss="hubr"), Y, gpunet.InvalidValueError, "loss: .*'huber'"),
        (MLPRegressor(loss=None), Y, gpunet.InvalidTypeError, "loss: got None"),
    ],
)
def test_what_an_estimator_cannot_use_is_refused(
    model: Any, y: np.ndarray, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        model.fit(X, y)
    assert not hasattr(model, "network_")


@pytest.mark.filterwarnings("ignore")  # scikit-learn's own suites warn on purpose
@parametrize_with_checks(
    [MLPClassifier(max_iter=100, loss=labels(), device="cpu"), MLPRegressor(max_iter=100, loss=numbers(), device="cpu")]
)
def test_scikit_learn_finds_nothing(estimator: Any, check: Any) -> None:
    check(estimator)
