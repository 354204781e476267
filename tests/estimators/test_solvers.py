"""Learning rates by name and ``solver="lbfgs"``: what scikit-learn does under these names, held against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.neural_network
from sklearn.datasets import load_diabetes, load_iris

import gpunet
from gpunet import MLPClassifier, MLPRegressor

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_IRIS = (X_IRIS - X_IRIS.mean(axis=0)) / X_IRIS.std(axis=0)
QUICK: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 6, "random_state": 0, "device": "cpu"}

# scipy ends where a step lowers the cost by a smaller part of it; a gradient is about the root of what it could lower.
SMALLEST_GAIN = 1e7 * np.finfo(np.float64).eps

pytestmark = pytest.mark.filterwarnings("ignore:max_iter", "ignore:Stochastic Optimizer", "ignore:lbfgs failed")


def rates(model: Any) -> list[float]:
    return model.history_["learning_rate"]


# --- learning rates ---------------------------------------------------------------------------------------------------


def test_inverse_scaling_divides_by_a_power_of_the_rows() -> None:
    theirs = sklearn.neural_network.MLPClassifier(
        (8,), solver="sgd", learning_rate="invscaling", power_t=0.3, learning_rate_init=0.2, max_iter=6
    ).fit(X_IRIS, Y_IRIS)
    ours = MLPClassifier(
        **QUICK, solver="sgd", learning_rate="invscaling", power_t=0.3, learning_rate_init=0.2, tol=0.0
    ).fit(X_IRIS, Y_IRIS)
    np.testing.assert_allclose(rates(ours), [0.2] + [0.2 / (150 * epochs + 1) ** 0.3 for epochs in range(1, 6)])
    assert ours._optimizer is not None
    assert ours._optimizer.learning_rate == pytest.approx(theirs._optimizer.learning_rate, rel=1e-12)


def test_inverse_scaling_goes_on_in_parts() -> None:
    settings = {**QUICK, "solver": "sgd", "learning_rate": "invscaling", "tol": 0.0}
    whole = MLPClassifier(**settings).fit(X_IRIS, Y_IRIS)
    parts = MLPClassifier(**settings)
    for _ in range(6):
        parts.partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
    assert rates(parts) == rates(whole)
    continued = MLPClassifier(**{**settings, "max_iter": 3}, warm_start=True).fit(X_IRIS, Y_IRIS).fit(X_IRIS, Y_IRIS)
    assert rates(continued) == rates(whole)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_an_adaptive_rate_is_divided_by_five_until_it_is_tiny(early_stopping: bool) -> None:
    """No epoch improves by ``tol`` here, so that the plateaus come in step; training ends at the last of them."""
    settings: dict[str, Any] = {
        "solver": "sgd",
        "learning_rate": "adaptive",
        "learning_rate_init": 1e-4,
        "tol": 10.0,
        "n_iter_no_change": 2,
        "max_iter": 100,
        "early_stopping": early_stopping,
    }
    theirs = sklearn.neural_network.MLPClassifier((8,), random_state=0, **settings).fit(X_IRIS, Y_IRIS)
    ours = MLPClassifier(**{**QUICK, **settings}).fit(X_IRIS, Y_IRIS)
    assert ours.n_iter_ == theirs.n_iter_
    assert sorted(set(rates(ours)), reverse=True) == pytest.approx([1e-4, 2e-5, 4e-6, 8e-7])
    assert rates(ours)[-1] == pytest.approx(theirs._optimizer.learning_rate)


@pytest.mark.parametrize("learning_rate", ["invscaling", "adaptive"])
def test_other_solvers_keep_their_rate(learning_rate: str) -> None:
    for others in ({"solver": "adam"}, {"optimizer": gpunet.SGD(1e-3)}, {"schedule": gpunet.ConstantRate(1e-3)}):
        model = MLPClassifier(**QUICK, **others, learning_rate=learning_rate, tol=10.0, n_iter_no_change=1)
        assert set(rates(model.fit(X_IRIS, Y_IRIS))) == {1e-3}


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
@pytest.mark.parametrize("patience", [1, 4])
def test_early_stopping_waits_as_long_as_scikit_learn(kind: str, patience: int) -> None:
    settings: dict[str, Any] = {"early_stopping": True, "n_iter_no_change": patience, "tol": 100.0, "random_state": 0}
    theirs = getattr(sklearn.neural_network, kind)(hidden_layer_sizes=(8,), **settings).fit(X_IRIS, Y_IRIS)
    ours = getattr(gpunet, kind)((8,), **settings, device="cpu").fit(X_IRIS, Y_IRIS)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.history_.stopped_early


# --- L-BFGS -----------------------------------------------------------------------------------------------------------


def test_lbfgs_ends_where_scikit_learn_does() -> None:
    """From the same weights, the same cost is minimised by the same library."""
    settings: dict[str, Any] = {"hidden_layer_sizes": (4,), "activation": "tanh", "solver": "lbfgs", "alpha": 1.0}
    theirs = sklearn.neural_network.MLPClassifier(**settings, max_iter=1000, tol=1e-8, random_state=0).fit(
        X_IRIS, Y_IRIS
    )
    model = MLPClassifier(**settings, max_iter=1000, tol=1e-8, scale_inputs=False, warm_start=True, device="cpu")
    model.set_params(max_iter=1).fit(X_IRIS, Y_IRIS).set_params(max_iter=1000)
    model.network_.set_parameters(gpunet.from_sklearn(theirs, device="cpu").get_parameters())
    found = model.fit(X_IRIS, Y_IRIS)
    assert theirs.loss_ >= found.loss_ == pytest.approx(theirs.loss_, rel=100 * SMALLEST_GAIN)  # of some steps
    np.testing.assert_allclose(found.predict_proba(X_IRIS), theirs.predict_proba(X_IRIS), atol=1e-3)


@pytest.mark.parametrize("weights", [None, np.linspace(0, 2, 150)])
def test_lbfgs_finds_a_minimum(weights: np.ndarray | None) -> None:
    model = MLPClassifier((5,), activation="tanh", solver="lbfgs", alpha=1.0, max_iter=2000, tol=1e-7, device="cpu")
    model.fit(X_IRIS, Y_IRIS, weights)
    kept = slice(None) if weights is None else weights > 0
    total = 150.0 if weights is None else weights.sum()
    cost, gradients = model.network_.loss_and_gradients(
        model._scaled(X_IRIS[kept]),
        Y_IRIS[kept],
        l2=1.0 / (2 * total),
        sample_weight=None if weights is None else weights[kept],
    )
    assert model.loss_ == pytest.approx(cost, rel=1e-9)
    assert max(np.abs(gradient).max() for gradient in gradients.values()) < 10 * SMALLEST_GAIN**0.5
    assert model.loss_curve_ == sorted(model.loss_curve_, reverse=True)
    assert model.n_iter_ == len(model.loss_curve_) == model.network_.steps


def test_lbfgs_learns_numbers() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = MLPRegressor((5,), solver="lbfgs", alpha=10.0, max_iter=500, random_state=0, device="cpu").fit(X, y)
    assert model.score(X, y) > 0.5
    assert model.predict(X).shape == (442,)


@pytest.mark.parametrize("limit", [{"max_iter": 2}, {"max_fun": 2}], ids=str)
def test_lbfgs_says_when_it_is_not_done(limit: dict[str, int]) -> None:
    model = MLPClassifier((5,), solver="lbfgs", device="cpu", **limit)
    with pytest.warns(gpunet.ConvergenceWarning, match=r"max_iter: after \d epochs? the loss"):
        model.fit(X_IRIS, Y_IRIS)
    assert model.n_iter_ <= 2


def test_lbfgs_prints_and_other_solvers_go_on_from_it(capsys: pytest.CaptureFixture[str]) -> None:
    model = MLPClassifier(**{**QUICK, "max_iter": 2}, solver="lbfgs", verbose=True, warm_start=True)
    model.fit(X_IRIS, Y_IRIS).set_params(solver="adam").fit(X_IRIS, Y_IRIS)
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        f"Iteration {number}" for number in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize(
    "unfit",
    [
        {"batch_norm": True},
        {"batch_norm": [True]},
        {"dropout": 0.1},
        {"clip_norm": 1.0},
        {"schedule": gpunet.ConstantRate(0.1)},
        {"callbacks": [gpunet.Callback()]},
    ],
    ids=lambda unfit: next(iter(unfit)),
)
def test_lbfgs_refuses_what_it_would_leave_out(unfit: dict[str, Any]) -> None:
    (name,) = unfit
    with pytest.raises(gpunet.InvalidValueError, match=rf"^{name}: got .* with solver='lbfgs'.*'adam'"):
        MLPClassifier(**QUICK, solver="lbfgs", **unfit).fit(X_IRIS, Y_IRIS)


def test_lbfgs_does_not_learn_in_parts() -> None:
    with pytest.raises(gpunet.InvalidValueError, match=r"^solver: 'lbfgs' learns all rows at once"):
        MLPClassifier(solver="lbfgs").partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
