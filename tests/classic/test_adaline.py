"""ADALINE (L10): scikit-learn and closed forms as oracles, and the learning rates at which it is stable."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.linear_model import SGDRegressor

import gpunet
from gpunet.classic import Adaline
from gpunet.classic.adaline import rate_bound, single_example_bound
from gpunet.errors import InvalidValueError, ShapeError, TrainingDivergedError
from tests.helpers.classic import fit_quietly


def classes(rows: int = 57, columns: int = 4, seed: int = 0):
    """Two overlapping classes, and their labels as -1 and +1; features of different sizes."""
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((rows, columns)) * generator.uniform(0.5, 1.5, columns) + 0.3
    y = np.sign(X @ generator.standard_normal(columns) + 0.5 * generator.standard_normal(rows))
    return X, y


def with_ones(X):
    return np.column_stack([X, np.ones(len(X))])


def weights(model):
    """(w, b)."""
    return np.append(model.coef_, model.intercept_)


def least_squares(X, y):
    return np.linalg.lstsq(with_ones(X), y, rcond=None)[0]


def test_updates_by_hand():
    """yhat = 0, error 1: w = (.5, 1), b = .5; then yhat = .5 - 1 + .5 = 0, error -1: w = (0, 1.5), b = 0."""
    model = Adaline(learning_rate=0.5, epochs=1, shuffle=False).fit([[1.0, 2.0], [1.0, -1.0]], [1, -1])
    assert model.coef_.tolist() == [0.0, 1.5]
    assert model.intercept_ == 0.0
    assert model.history_ == {"loss": [((1 - 3.0) ** 2 + (-1 + 1.5) ** 2) / 2]}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("epochs", [1, 2, 9])
def test_weights_equal_scikit_learns(epochs, bias):
    X, y = classes()
    ours = Adaline(learning_rate=0.02, epochs=epochs, shuffle=False, bias=bias).fit(X, y)
    theirs = SGDRegressor(
        loss="squared_error",
        penalty=None,
        learning_rate="constant",
        eta0=0.02,
        shuffle=False,
        tol=None,
        max_iter=epochs,
        fit_intercept=bias,
    ).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-12)
    assert ours.intercept_ == pytest.approx(theirs.intercept_[0] if bias else 0.0, abs=1e-12)
    np.testing.assert_allclose(ours.decision_function(X), theirs.predict(X), rtol=0, atol=1e-12)
    assert ours.history_["loss"][-1] == pytest.approx(np.mean((y - theirs.predict(X)) ** 2), rel=1e-10)


@pytest.mark.parametrize("batch_size", [2, 10, 57, 1000, None])
def test_batches_average_their_examples(batch_size):
    """Textbook loop; 10 leaves a last batch of 7."""
    X, y = classes()
    w, b, rows = np.zeros(4), 0.0, batch_size or 57
    for _ in range(3):
        for start in range(0, 57, rows):
            batch, errors = X[start : start + rows], y[start : start + rows] - (X[start : start + rows] @ w + b)
            w, b = w + 0.1 * np.mean(errors[:, None] * batch, axis=0), b + 0.1 * np.mean(errors)
    model = Adaline(learning_rate=0.1, epochs=3, batch_size=batch_size, shuffle=False).fit(X, y)
    np.testing.assert_allclose(weights(model), np.append(w, b), rtol=0, atol=1e-13)


@pytest.mark.parametrize("epochs", [1, 10, 100])
def test_all_examples_at_once_follow_the_closed_form(epochs):
    """w_t = (I - (I - eta C)^t) w*, with the least-squares solution w*."""
    X, y = classes()
    inputs = with_ones(X)
    step = np.eye(5) - 0.2 * inputs.T @ inputs / len(inputs)
    expected = (np.eye(5) - np.linalg.matrix_power(step, epochs)) @ least_squares(X, y)
    model = Adaline(learning_rate=0.2, epochs=epochs, batch_size=None).fit(X, y)
    np.testing.assert_allclose(weights(model), expected, rtol=0, atol=1e-12)


def test_all_examples_at_once_reach_the_least_squares_solution():
    X, y = classes()
    model = Adaline(learning_rate=0.5, epochs=3000, batch_size=None).fit(X, y)
    np.testing.assert_allclose(weights(model), least_squares(X, y), rtol=0, atol=1e-10)
    loss = np.mean((y - with_ones(X) @ least_squares(X, y)) ** 2)
    assert model.history_["loss"][-1] == pytest.approx(loss, rel=1e-12)
    assert all(np.diff(model.history_["loss"]) <= 1e-15), "gradient descent below the bound only descends"


def test_single_examples_come_closer_the_smaller_the_rate_is():
    X, y = classes()
    distances = [
        np.linalg.norm(weights(Adaline(learning_rate=rate, epochs=epochs).fit(X, y)) - least_squares(X, y))
        for rate, epochs in [(0.05, 200), (0.005, 2000), (0.0005, 4000)]
    ]
    assert distances[0] > 2 * distances[1] > 4 * distances[2]
    assert distances[2] < 0.01


def test_single_examples_solve_consistent_equations_exactly():
    """Where a hyperplane gives every y, no error keeps the weights moving, and the bound 2 / max ||x||^2 is enough."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((40, 3))
    y = generator.choice([-1, 1], 40)
    X[:, 0] = (y + 0.5 - X[:, 1:] @ [0.7, -1.1]) / 0.8
    rate = 0.99 * single_example_bound(with_ones(X))
    model = Adaline(learning_rate=rate, epochs=500).fit(X, y)
    np.testing.assert_allclose(weights(model), [0.8, 0.7, -1.1, -0.5], atol=1e-9)
    assert model.score(X, y) == 1.0


# --- learning rates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_just_below_the_bound_converges(seed, bias):
    X, y = classes(seed=seed)
    inputs = with_ones(X) if bias else X
    bound = 2 / np.linalg.eigvalsh(inputs.T @ inputs / len(inputs)).max()
    assert rate_bound(inputs) == pytest.approx(bound, rel=1e-12)
    model = Adaline(learning_rate=0.99 * bound, epochs=3000, batch_size=None, bias=bias).fit(X, y)
    solution = np.linalg.lstsq(inputs, y, rcond=None)[0]
    np.testing.assert_allclose(weights(model)[: inputs.shape[1]], solution, rtol=0, atol=1e-8)


def test_just_above_the_bound_is_refused_with_the_bound():
    X, y = classes()
    bound = rate_bound(with_ones(X))
    for rate in (1.0001 * bound, 100 * bound):
        model = Adaline(learning_rate=rate, batch_size=None)
        with pytest.raises(InvalidValueError, match=rf"learning_rate.*2 / lambda_max = {re.escape(f'{bound:.6g}')}"):
            model.fit(X, y)
        assert vars(model) == vars(Adaline(learning_rate=rate, batch_size=None))
    with pytest.raises(InvalidValueError, match="lambda_max"):
        Adaline(learning_rate=1.01 * bound, batch_size=len(X)).fit(X, y)


def test_just_above_the_bound_diverges_at_the_predicted_pace():
    """partial_fit refuses nothing: along the first eigenvector each pass multiplies the distance by 1 - eta lambda."""
    X, y = classes()
    inputs = with_ones(X)
    eigenvalues, vectors = np.linalg.eigh(inputs.T @ inputs / len(inputs))
    rate = 1.01 * 2 / eigenvalues[-1]
    model, distances = Adaline(learning_rate=rate, batch_size=None), []
    for _ in range(400):
        model.partial_fit(X, y)
        distances.append(vectors[:, -1] @ (weights(model) - least_squares(X, y)))
    np.testing.assert_allclose(np.divide(distances[1:], distances[:-1]), -1.02, rtol=1e-9)
    assert model.history_["loss"][-1] > 1e3
    assert model.history_["loss"][-1] > model.history_["loss"][200] > model.history_["loss"][100]


def epoch_map(inputs, rate):
    """The matrix M of an epoch of single examples in order, w -> M w + c."""
    matrix = np.eye(inputs.shape[1])
    for x in inputs:
        matrix -= rate * np.outer(x, x @ matrix)
    return matrix


def test_rates_refused_for_single_examples_are_unstable_and_those_below_the_bound_are_not():
    """Oracle: the largest eigenvalue of an epoch's map, for the order of X and for others."""
    refused = 0
    for seed in range(12):
        X, y = classes(rows=15, columns=2, seed=seed)
        inputs, bound = with_ones(X), single_example_bound(with_ones(X))
        generator = np.random.default_rng(seed)
        for factor in (0.5, 0.999, 1.5, 3, 6, 12):
            radii = [
                np.abs(np.linalg.eigvals(epoch_map(inputs[generator.permutation(15)], factor * bound))).max()
                for _ in range(5)
            ]
            model = Adaline(learning_rate=factor * bound, epochs=1)
            if np.prod([1 - model.learning_rate * x @ x for x in inputs]) ** 2 > 1:
                refused += 1
                assert min(radii) > 1
                expected = re.escape(f"in any order. Expected less; below 2 / max ||x||^2 = {bound:.6g}")
                with pytest.raises(InvalidValueError, match=expected):
                    model.fit(X, y)
            else:
                fit_quietly(model, X, y)
                assert factor > 1 or max(radii) <= 1 + 1e-12
    assert 20 <= refused <= 60


def test_a_loss_that_overflows_is_an_error_that_changes_nothing():
    """Batches of 2: no rate is refused beforehand."""
    X, y = classes()
    model = Adaline(learning_rate=0.01, epochs=2, batch_size=2).fit(X, y)
    before = weights(model).tolist(), dict(model.history_)
    model.set_params(learning_rate=50.0, epochs=500)
    with pytest.raises(
        TrainingDivergedError, match=r"learning_rate: with 50\.0 the loss became inf in epoch"
    ) as caught:
        model.fit(X, y)
    assert 1 < caught.value.epoch < 500
    assert (weights(model).tolist(), dict(model.history_)) == before


def test_partial_fit_keeps_finite_weights():
    X, y = classes()
    model = Adaline(learning_rate=1e6, batch_size=None)
    while np.abs(weights(model.partial_fit(X, y))).max() < 1e140:
        pass
    before = weights(model).tolist(), len(model.history_["loss"])
    model.set_params(learning_rate=1e200)
    with pytest.raises(TrainingDivergedError, match=f"in epoch {before[1] + 1}"):
        model.partial_fit(X, y)
    assert (weights(model).tolist(), len(model.history_["loss"])) == before


def test_features_of_zero_have_no_bound():
    model = Adaline(learning_rate=5.0, bias=False, batch_size=None, epochs=1).fit(np.zeros((3, 2)), [0, 1, 1])
    assert model.coef_.tolist() == [0.0, 0.0]
    assert model.predict([[1.0, 1.0]]).tolist() == [0]


def test_an_unstable_rate_that_is_not_refused_is_warned_of():
    """Factors of 0.1 make up for those of more than 1 in the volume, but not in every direction."""
    X, y = [[1.0, 0.0], [0.0, 2.0], [0.0, -2.2]], [0, 1, 0]
    model = Adaline(learning_rate=0.9, bias=False, epochs=20)
    factors = 1 - 0.9 * np.square(X).sum(axis=1)
    assert abs(np.prod(factors)) < 1 < np.abs(factors).max()
    with pytest.warns(gpunet.ConvergenceWarning, match=r"the loss is .* after 20 epochs, and 1 with weights of zero"):
        model.fit(X, y)
    assert model.history_["loss"][-1] > 10


@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_the_default_rate_is_one_at_which_nothing_diverges(batch_size):
    """0.01 for features of about 1; half of what is safe for the others, whatever their size."""
    X, y = classes()
    model = Adaline(batch_size=batch_size).fit(X, y)
    assert model.learning_rate_ == 0.01
    assert model.history_ == Adaline(batch_size=batch_size, learning_rate=0.01).fit(X, y).history_
    for scale in (30.0, 1e120):
        large = Adaline(batch_size=batch_size).fit(scale * X, y)
        assert large.learning_rate_ == pytest.approx(1 / np.square(with_ones(scale * X)).sum(axis=1).max())
        assert large.history_["loss"][-1] < 1
        assert large.partial_fit(X[:1], y[:1]).learning_rate_ == 0.01
    with pytest.raises(InvalidValueError, match=r"^learning_rate: 0\.01 diverges"):
        Adaline(learning_rate=0.01).fit(30 * X, y)


def test_rates_in_messages_are_plain_numbers():
    with pytest.raises(InvalidValueError, match=r"^learning_rate: 50\.0 diverges"):
        Adaline(learning_rate=np.float64(50)).fit([[1.0], [-1.0]], [0, 1])


# --- the rest -----------------------------------------------------------------------------------------------------


def test_right_answers_teach_too():
    """Unlike a perceptron, it asks a score of 3 to come back to 1."""
    model = Adaline(learning_rate=0.1, bias=False).partial_fit([[1.0]], [1], classes=[-1, 1])
    model.coef_[:] = 3.0
    model.partial_fit([[1.0]], [1])
    assert model.coef_[0] == pytest.approx(3 + 0.1 * (1 - 3))


@pytest.mark.parametrize("bias", [True, False])
def test_one_example_at_a_time_equals_an_epoch(bias):
    X, y = classes()
    whole = Adaline(epochs=1, shuffle=False, bias=bias).fit(X, y)
    parts = Adaline(bias=bias)
    for row in range(len(X)):
        parts.partial_fit(X[row : row + 1], y[row : row + 1], classes=[-1, 1])
    np.testing.assert_array_equal(weights(parts), weights(whole))
    assert parts.n_iter_ == len(parts.history_["loss"]) == len(X)


def test_partial_fit_keeps_to_the_first_classes_and_features():
    model = Adaline().partial_fit([[1.0, 2.0]], ["b"], classes=["a", "b"])
    with pytest.raises(InvalidValueError, match="'c' in row 0"):
        model.partial_fit([[1.0, 2.0]], ["c"])
    with pytest.raises(ShapeError, match="X has 1 features, but Adaline is expecting 2"):
        model.partial_fit([[1.0]], ["b"])
