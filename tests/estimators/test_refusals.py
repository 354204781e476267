"""What does not fit is refused by a typed error that names the parameter, whichever way is taken through ``fit``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpunet
from gpunet import MLPClassifier, MLPRegressor

X = np.random.default_rng(0).standard_normal((30, 3))
Y = np.arange(30) % 3
WAYS: dict[str, dict[str, Any]] = {
    "adam": {},
    "early stopping": {"early_stopping": True},
    "sgd": {"solver": "sgd", "learning_rate": "invscaling"},
    "lbfgs": {"solver": "lbfgs"},
}
ODD: list[Any] = [object(), "nonsense", -1.5, float("nan"), np.ones((2, 2)), {"a": 1}, [None]]

pytestmark = pytest.mark.filterwarnings("ignore:max_iter", "ignore:lbfgs")


def refusal(model: Any) -> str | None:
    """Return what a typed error says, and let every other error through."""
    try:
        model.fit(X, Y)
    except gpunet.errors.GpunetError as error:
        return str(error)
    return None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", sorted({**MLPClassifier().get_params(), **MLPRegressor().get_params()}))
def test_odd_values_are_refused_by_name(name: str, way: str) -> None:
    """Or not read at all: what belongs to another solver, as ``momentum`` to SGD."""
    kind = MLPClassifier if name in MLPClassifier().get_params() else MLPRegressor
    for value in ODD:
        model = kind(**{"hidden_layer_sizes": (4,), "max_iter": 1, "device": "cpu", **WAYS[way], name: value})
        message = refusal(model)
        assert message is None or (message.startswith(name) and not hasattr(model, "network_"))


REFUSED: list[tuple[str, dict[str, Any], type[Exception]]] = [
    ("validation_fraction", {"early_stopping": True, "validation_fraction": 1.0}, gpunet.InvalidValueError),
    ("validation_fraction", {"early_stopping": True, "validation_fraction": 0.01}, gpunet.InvalidValueError),
    ("random_state", {"random_state": "seed"}, gpunet.InvalidValueError),
    ("random_state", {"random_state": -1}, gpunet.InvalidValueError),
    ("class_weight", {"class_weight": "even"}, gpunet.InvalidValueError),
    ("class_weight", {"class_weight": {7: 2.0}}, gpunet.InvalidValueError),
    ("class_weight", {"class_weight": {0: -2.0}}, gpunet.InvalidValueError),
    ("class_weight", {"class_weight": {0: np.nan}}, gpunet.InvalidValueError),
    ("class_weight", {"class_weight": 3.0}, gpunet.InvalidValueError),
    ("learning_rate", {"learning_rate": "cosine"}, gpunet.InvalidValueError),
    ("power_t", {"power_t": -0.5}, gpunet.InvalidValueError),
    ("max_fun", {"max_fun": 0}, gpunet.InvalidValueError),
    ("momentum", {"solver": "sgd", "momentum": "high"}, gpunet.InvalidTypeError),
]


@pytest.mark.parametrize(("name", "parameters", "error"), REFUSED)
def test_what_scikit_learn_would_say_without_a_name(
    name: str, parameters: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=rf"^{name}: "):
        MLPClassifier((4,), max_iter=1, device="cpu", **parameters).fit(X, Y)


@pytest.mark.filterwarnings("default:max_iter")
def test_a_rate_that_watches_what_is_not_there_says_what_helps() -> None:
    plateau = gpunet.ReduceOnPlateauRate(0.01)
    for early_stopping, method in ((False, "fit"), (False, "partial_fit"), (True, "partial_fit")):
        model = MLPRegressor((3,), max_iter=2, schedule=plateau, early_stopping=early_stopping)
        with pytest.raises(gpunet.InvalidValueError, match=r"^schedule: .*'validation_loss'.*early_stopping=True"):
            getattr(model, method)(np.eye(20), np.arange(20.0))
    schedule = gpunet.ReduceOnPlateauRate(0.01, monitor="loss")
    MLPRegressor((3,), max_iter=2, tol=0.0, schedule=schedule).partial_fit(np.eye(20), np.arange(20.0))


def test_several_quantiles_have_no_single_score() -> None:
    model = MLPRegressor((3,), max_iter=200, loss="quantile", quantile=(0.1, 0.9), tol=10.0)
    model.fit(np.eye(20), np.arange(20.0))
    with pytest.raises(gpunet.InvalidValueError, match=r"score: .*mean_pinball_loss"):
        model.score(np.eye(20), np.arange(20.0))


def test_a_warning_points_to_the_line_that_called_fit() -> None:
    model = MLPClassifier((4,), max_iter=1, tol=0.0, batch_size=99, device="cpu")
    for outer in (model, make_pipeline(StandardScaler(), model)):
        with pytest.warns(UserWarning, match=r"^(batch_size|max_iter): ") as caught:
            outer.fit(X, Y)
        assert {str(warning.message).split(":")[0] for warning in caught} == {"batch_size", "max_iter"}
        assert {warning.filename for warning in caught} == {__file__}
