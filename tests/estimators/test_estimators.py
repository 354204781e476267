"""``MLPClassifier`` and ``MLPRegressor`` beyond what scikit-learn's own checks look at."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.neural_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_digits, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import gpunet
from gpunet import MLPClassifier, MLPRegressor

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])
# Few epochs, and no plateau that ends them, nor a warning that they are over.
QUICK: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0, "device": "cpu"}

pytestmark = pytest.mark.filterwarnings("ignore:max_iter")


def same_weights(one: Any, other: Any, tolerance: float = 0.0) -> bool:
    first, second = one.network_.get_parameters(), other.network_.get_parameters()
    return all(np.allclose(first[name], second[name], rtol=tolerance, atol=tolerance) for name in first)


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [Y_IRIS, NAMES[Y_IRIS], NAMES[Y_IRIS].astype(object), Y_IRIS == 2, Y_IRIS * 10.0 - 5],
    ids=["integers", "text", "objects", "booleans", "floats"],
)
def test_labels_of_any_kind_come_back(labels: np.ndarray) -> None:
    model = MLPClassifier((16,), max_iter=60, random_state=0, device="cpu", learning_rate_init=0.03).fit(X_IRIS, labels)
    assert np.array_equal(model.classes_, np.unique(labels))
    predicted = model.predict(X_IRIS)
    assert predicted.dtype == np.asarray(labels).dtype
    assert np.mean(predicted == labels) > 0.9
    assert model.predict_proba(X_IRIS).shape == (150, len(model.classes_))


def test_several_labels_per_row() -> None:
    X, Y = make_multilabel_classification(200, n_classes=3, random_state=0)
    model = MLPClassifier((16,), random_state=0, device="cpu", learning_rate_init=0.01).fit(X, Y)
    assert model.out_activation_ == "logistic"
    assert model.predict(X).shape == Y.shape
    assert np.mean(model.predict(X) == Y) > 0.85
    np.testing.assert_array_equal(model.predict_proba(X) > 0.5, model.predict(X) == 1)


def test_a_label_that_was_not_announced_is_refused() -> None:
    model = MLPClassifier(**QUICK).partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
    with pytest.raises(gpunet.InvalidValueError, match="label '7' is not one of"):
        model.partial_fit(X_IRIS, np.full(150, 7))
    assert model.n_iter_ == 1


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_predictions_are_in_the_units_of_the_targets() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = MLPRegressor((16,), random_state=0, device="cpu", learning_rate_init=0.01).fit(X, y)
    assert model.predict(X).shape == y.shape
    assert model.score(X, y) > 0.5
    both = np.column_stack([y, 1000 - 2 * y])
    several = MLPRegressor((16,), random_state=0, device="cpu", learning_rate_init=0.01).fit(X, both)
    assert several.predict(X).shape == both.shape
    assert several.score(X, both) > 0.5


@pytest.mark.parametrize("size", [1e-170, 1e160, 1e200])
def test_numbers_that_cannot_be_standardised_are_refused(size: float) -> None:
    X, y = load_diabetes(return_X_y=True)
    with pytest.raises(gpunet.NonFiniteError, match="y: the numbers of column 0, from"):
        MLPRegressor(**QUICK).fit(X, y * size)
    with pytest.raises(gpunet.NonFiniteError, match="X: the numbers of column 2, from"):
        MLPRegressor(**QUICK).fit(X * np.where(np.arange(10) == 2, 100 * size, 1), y)


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_a_warm_start_goes_on_with_the_moments(solver: str) -> None:
    whole = MLPClassifier(**{**QUICK, "max_iter": 4}, tol=0.0, solver=solver).fit(X_IRIS, Y_IRIS)
    parts = MLPClassifier(**{**QUICK, "max_iter": 2}, tol=0.0, solver=solver, warm_start=True)
    parts.fit(X_IRIS, Y_IRIS)
    parts = pickle.loads(pickle.dumps(parts)).fit(X_IRIS, Y_IRIS)
    assert same_weights(whole, parts)
    assert whole.loss_curve_ == parts.loss_curve_
    assert [record.epoch for record in parts.history_] == [1, 2, 3, 4]


@pytest.mark.parametrize("change", [{"hidden_layer_sizes": (4,)}, {"precision": "float32"}, {"dropout": 0.5}], ids=str)
def test_another_network_is_no_warm_start(change: dict[str, Any]) -> None:
    model = MLPClassifier(**QUICK, warm_start=True).fit(X_IRIS, Y_IRIS).set_params(**change)
    for learn in (model.fit, model.partial_fit):
        with pytest.raises(gpunet.InvalidValueError, match=f"{next(iter(change))}: got .* to go on with"):
            learn(X_IRIS, Y_IRIS)
    assert model.set_params(warm_start=False).fit(X_IRIS, Y_IRIS).n_iter_ == 3


def test_partial_fit_is_an_epoch() -> None:
    whole = MLPClassifier(**QUICK, tol=0.0).fit(X_IRIS, Y_IRIS)
    parts = MLPClassifier(**QUICK)
    for _ in range(3):
        parts.partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
    assert same_weights(whole, parts)


def test_a_fit_that_fails_leaves_what_was_learnt() -> None:
    model = MLPClassifier(**QUICK, warm_start=True).fit(X_IRIS, NAMES[Y_IRIS])
    before, weights = model.predict_proba(X_IRIS), model.network_.get_parameters()
    with pytest.raises(gpunet.InvalidValueError, match="classes"):
        model.fit(X_IRIS, Y_IRIS)
    with pytest.raises(gpunet.TrainingDivergedError):
        model.set_params(optimizer=gpunet.SGD(1e300), warm_start=False).fit(X_IRIS, NAMES[Y_IRIS])
    assert np.array_equal(model.predict_proba(X_IRIS), before)
    assert all(np.array_equal(model.network_.get_parameters()[name], values) for name, values in weights.items())


@pytest.mark.parametrize("scale", [True, False])
def test_quantiles_and_outliers_in_the_units_of_the_targets(scale: bool) -> None:
    generator = np.random.default_rng(0)
    X = generator.standard_normal((400, 3))
    y = 5 + 10 * X[:, 0] + generator.exponential(3, 400)
    given: dict[str, Any] = {"max_iter": 150, "tol": 0, "random_state": 0, "learning_rate_init": 0.03, "device": "cpu"}

    def fitted(**parameters: Any) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return MLPRegressor((8,), scale_targets=scale, **given, **parameters).fit(X, y).predict(X)

    several = fitted(loss="quantile", quantile=[0.1, 0.5, 0.9])
    assert several.shape == (400, 3)
    np.testing.assert_allclose((y[:, np.newaxis] < several).mean(axis=0), [0.1, 0.5, 0.9], atol=0.08)
    assert (y < fitted(loss="quantile", quantile=0.9)).mean() == pytest.approx(0.9, abs=0.08)
    assert np.median(abs(y - fitted(loss="huber", delta=0.3))) < 3


def test_labels_are_smoothed() -> None:
    X, y = load_iris(return_X_y=True)
    model = MLPClassifier((8,), label_smoothing=0.2, max_iter=3, tol=1, random_state=0, device="cpu").fit(X, y)
    assert model.network_.configuration["loss"] == "softmax_cross_entropy(0.2)"


def test_an_optimizer_of_the_users_is_not_used_up() -> None:
    optimizer = gpunet.SGD(gpunet.CosineRate(0.1, steps=10), momentum=0.5)
    first = MLPClassifier(**QUICK, optimizer=optimizer).fit(X_IRIS, Y_IRIS)
    second = MLPClassifier(**QUICK, optimizer=optimizer).fit(X_IRIS, Y_IRIS)
    assert same_weights(first, second)
    assert optimizer.step == 0


# --- weights ----------------------------------------------------------------------------------------------------------


def test_class_weights_are_sample_weights() -> None:
    weight = {"setosa": 1.0, "versicolor": 2.5, "virginica": 0.5}
    labels = NAMES[Y_IRIS]
    by_class = MLPClassifier(**QUICK, class_weight=weight).fit(X_IRIS, labels)
    by_row = MLPClassifier(**QUICK).fit(X_IRIS, labels, sample_weight=[weight[label] for label in labels])
    assert same_weights(by_class, by_row)
    assert not same_weights(by_class, MLPClassifier(**QUICK).fit(X_IRIS, labels))


def test_rows_of_weight_zero_are_left_out_of_everything() -> None:
    spoiled = np.vstack([X_IRIS, np.full((5, 4), 1e6)])
    weights = np.repeat([1.0, 0.0], [150, 5])
    labels = np.append(Y_IRIS, np.full(5, 9))
    left_out = MLPClassifier(**QUICK).fit(spoiled, labels, sample_weight=weights)
    assert left_out.classes_.tolist() == [0, 1, 2]
    assert same_weights(left_out, MLPClassifier(**QUICK).fit(X_IRIS, Y_IRIS), 1e-9)  # sums of another kind


def test_alpha_is_scikit_learns() -> None:
    """One full batch, one step of plain gradient descent: W moves by -rate alpha W / n beside the data's gradient."""
    rate, alpha = 0.1, 30.0
    moved = []
    for strength in (0.0, alpha):
        model = MLPClassifier(
            (5,), alpha=strength, optimizer=gpunet.SGD(rate), batch_size=150, max_iter=1, random_state=3, device="cpu"
        ).fit(X_IRIS, Y_IRIS)
        moved.append(model.network_.get_parameters()["W1"])
    start = gpunet.Network([4, 5, 3], batch_norm=False, dtype="float64", device="cpu", seed=model.network_.seed)
    np.testing.assert_allclose(moved[1] - moved[0], -rate * alpha / 150 * start.get_parameters()["W1"], rtol=1e-9)


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_early_stopping_takes_the_best_epoch() -> None:
    X, y = load_digits(return_X_y=True)
    model = MLPClassifier(
        (32,), early_stopping=True, n_iter_no_change=3, learning_rate_init=0.01, random_state=0, device="cpu"
    ).fit(X, y)
    assert model.validation_scores_ is not None
    assert model.history_.stopped_early
    assert model.best_validation_score_ == max(model.validation_scores_) > 0.9
    assert model.best_loss_ is None


def test_a_plateau_ends_training_and_the_last_epoch_warns() -> None:
    flat = MLPClassifier(**{**QUICK, "max_iter": 100}, tol=10.0, n_iter_no_change=2).fit(X_IRIS, Y_IRIS)
    assert flat.n_iter_ == 4  # the first sets the mark, more than two may miss it
    with pytest.warns(ConvergenceWarning, match="after 3 epochs the loss"):
        MLPClassifier(**QUICK, tol=0.0).fit(X_IRIS, Y_IRIS)
    with pytest.warns(gpunet.ConvergenceWarning):
        MLPRegressor(**QUICK, tol=0.0).fit(X_IRIS, X_IRIS[:, 0])


def test_verbose_prints_each_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    MLPClassifier(**QUICK, verbose=True).fit(X_IRIS, Y_IRIS)
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        f"Iteration {epoch}" for epoch in (1, 2, 3)
    ]


# --- among scikit-learn's tools ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_grid_search_with_processes_and_threads(backend: str) -> None:
    from joblib import parallel_config

    search = GridSearchCV(MLPClassifier(**QUICK), {"alpha": [1e-4, 1.0], "batch_norm": [False, True]}, cv=2, n_jobs=2)
    alone = clone(search).set_params(n_jobs=1).fit(X_IRIS, Y_IRIS)
    with parallel_config(backend=backend):
        search.fit(X_IRIS, Y_IRIS)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


def test_columns_of_text_and_pipelines() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X_IRIS, columns=["a", "b", "c", "d"])
    frame["colour"] = np.where(Y_IRIS == 1, "red", "blue")
    prepare = make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough")
    model = make_pipeline(prepare, MLPClassifier(**QUICK)).fit(frame, Y_IRIS)
    assert model.predict(frame[["colour", "d", "c", "b", "a"]]).shape == (150,)
    alone = MLPClassifier(**QUICK).fit(frame[["a", "b"]], Y_IRIS)
    assert alone.feature_names_in_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="feature names should match"):
        alone.predict(frame[["c", "d"]])


def test_calibration_and_the_page_of_a_notebook() -> None:
    calibrated = CalibratedClassifierCV(MLPClassifier(**QUICK), cv=2).fit(X_IRIS, Y_IRIS)
    assert calibrated.predict_proba(X_IRIS).shape == (150, 3)
    assert "MLPClassifier" in MLPClassifier(batch_norm=True)._repr_html_()
    assert repr(MLPClassifier(batch_norm=True)) == "MLPClassifier(batch_norm=True)"


def test_metadata_routing_brings_the_weights_of_the_rows() -> None:
    weights = np.linspace(0.5, 2, 150)
    scaler = StandardScaler().fit(X_IRIS)
    with sklearn.config_context(enable_metadata_routing=True):
        asks = MLPClassifier(**QUICK).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        unweighted = StandardScaler().set_fit_request(sample_weight=False)
        piped = make_pipeline(unweighted, asks).fit(X_IRIS, Y_IRIS, sample_weight=weights)
        scores = [piped.score(X_IRIS, Y_IRIS, sample_weight=weights)]
        with pytest.raises(ValueError, match="not explicitly set as requested"):
            make_pipeline(unweighted, MLPClassifier(**QUICK)).fit(X_IRIS, Y_IRIS, sample_weight=weights)
    alone = MLPClassifier(**QUICK).fit(scaler.transform(X_IRIS), Y_IRIS, weights)
    assert same_weights(piped[-1], alone)
    assert scores == [alone.score(scaler.transform(X_IRIS), Y_IRIS, weights)]


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_the_import_is_all_that_changes() -> None:
    """Every parameter that is there under scikit-learn's name has its default, and the scores are as good."""
    theirs, ours = sklearn.neural_network.MLPClassifier(), MLPClassifier()
    shared = theirs.get_params().keys() & ours.get_params().keys()
    assert {name: ours.get_params()[name] for name in shared} == {name: theirs.get_params()[name] for name in shared}
    assert shared == theirs.get_params().keys()
    X, y = load_digits(return_X_y=True)
    scores = []
    for module in (sklearn.neural_network, gpunet):
        model = module.MLPClassifier((64,), max_iter=40, random_state=0, learning_rate_init=0.005)
        scores.append(make_pipeline(StandardScaler(), model).fit(X[::2], y[::2]).score(X[1::2], y[1::2]))
    assert scores[1] > scores[0] - 0.01


# --- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_network_computes_as_the_data_are(dtype: str) -> None:
    model = MLPClassifier(**QUICK).fit(X_IRIS.astype(dtype), Y_IRIS)
    assert model.network_.dtype == model.predict_proba(X_IRIS).dtype == np.dtype(dtype)
    assert MLPClassifier(**QUICK, precision="float32").fit(X_IRIS, Y_IRIS).network_.dtype == np.float32


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"alpha": -1}, gpunet.InvalidValueError),
        ({"solver": "rmsprop"}, gpunet.InvalidValueError),
        ({"batch_size": "all"}, gpunet.InvalidValueError),
        ({"learning_rate_init": 0.0}, gpunet.InvalidValueError),
        ({"early_stopping": "yes"}, gpunet.InvalidTypeError),
        ({"optimizer": "adam"}, gpunet.InvalidTypeError),
        ({"hidden_layer_sizes": (0,)}, gpunet.InvalidValueError),
        ({"hidden_layer_sizes": 0}, gpunet.InvalidValueError),
        ({"hidden_layer_sizes": 3.5}, gpunet.InvalidTypeError),
        ({"hidden_layer_sizes": None}, gpunet.InvalidTypeError),
        ({"hidden_layer_sizes": "9"}, gpunet.InvalidTypeError),
        ({"callbacks": None}, gpunet.InvalidTypeError),
        ({"callbacks": print}, gpunet.InvalidTypeError),
        ({"callbacks": [print]}, gpunet.InvalidTypeError),
        ({"activation": "softmax"}, gpunet.InvalidValueError),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, Any], error: type[Exception]) -> None:
    (name,) = parameters
    with pytest.raises(error, match=rf"^{name}(\[0\])?: "):
        MLPClassifier(**{**QUICK, **parameters}).fit(X_IRIS, Y_IRIS)
