"""The perceptron (L9): scikit-learn's as oracle, Novikoff's bound, and when it stops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import linprog, nnls
from sklearn.linear_model import Perceptron as TheirPerceptron
from sklearn.linear_model import SGDClassifier

import gpunet
from gpunet.classic import Perceptron, perceptron_loss, separation
from gpunet.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from tests.helpers.classic import fit_quietly

XOR = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]), np.array([-1, 1, 1, -1])


def signed_examples(X, signs):
    """Return the p_i = y_i (x_i, 1)."""
    return np.column_stack([X, np.ones(len(X))]) * signs[:, np.newaxis]


def noisy(rows: int = 101, columns: int = 5, seed: int = 0):
    """Two classes that overlap."""
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((rows, columns))
    scores = X @ generator.standard_normal(columns) + 0.7 * generator.standard_normal(rows)
    return X, np.where(scores > 0.3, "yes", "no")


def with_margin(margin: float, rows: int, columns: int, seed: int):
    """Points whose signed examples (x, 1) y have a margin of at least `margin` to a known unit vector (w, b)."""
    generator = np.random.default_rng(seed)
    w = np.append(generator.uniform(0.6, 1, columns) * generator.choice([-1, 1], columns), 0.15)
    w /= np.linalg.norm(w)
    X = generator.uniform(-1, 1, (40 * rows, columns))
    scores = X @ w[:-1] + w[-1]
    keep = np.flatnonzero(np.abs(scores) >= margin)[:rows]
    assert len(keep) == rows
    return X[keep], np.sign(scores[keep])


# --- the rule -----------------------------------------------------------------------------------------------------


def test_updates_by_hand():
    """Scores 0, 0 - a mistake each - then -1 + 0 < 0 for a +1."""
    X, y = [[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], [1, -1, 1]
    model = fit_quietly(Perceptron(shuffle=False, max_epochs=1), X, y)
    # w = (1, 0), b = 1; second: score 1, y = -1: w = (1, -2), b = 0; third: score -1, y = 1: w = (2, -1), b = 1
    assert model.coef_.tolist() == [2.0, -1.0]
    assert model.intercept_ == 1.0
    assert (model.mistakes_, model.n_iter_, model.history_, model.converged_) == (3, 1, {"mistakes": [3]}, False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_weights_equal_scikit_learns(epochs, bias):
    X, y = noisy()
    ours = fit_quietly(Perceptron(max_epochs=epochs, shuffle=False, bias=bias), X, y)
    theirs = TheirPerceptron(
        max_iter=epochs, shuffle=False, tol=None, eta0=1, penalty=None, fit_intercept=bias, random_state=0
    )
    theirs.fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_[0], rtol=0, atol=1e-12)
    assert ours.intercept_ == pytest.approx(theirs.intercept_[0], abs=1e-12)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_averaged_weights_equal_scikit_learns(epochs, bias):
    X, y = noisy(seed=1)
    ours = fit_quietly(Perceptron(max_epochs=epochs, shuffle=False, bias=bias, averaged=True), X, y)
    theirs = SGDClassifier(
        loss="perceptron",
        learning_rate="constant",
        eta0=1,
        penalty=None,
        average=True,
        shuffle=False,
        tol=None,
        max_iter=epochs,
        fit_intercept=bias,
        random_state=0,
    )
    theirs.fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_[0], rtol=0, atol=1e-11)
    assert ours.intercept_ == pytest.approx(theirs.intercept_[0], abs=1e-11)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 3), (8, 2), (9, 2), (1000, 4)])
def test_looking_for_mistakes_in_blocks_changes_nothing(rows, columns):
    """Integers are exact, so the textbook loop gives the very same weights."""
    generator = np.random.default_rng(rows)
    X = generator.integers(-3, 4, (rows + 1, columns)).astype(float)
    y = generator.choice([-1, 1], rows + 1)
    y[:2] = -1, 1
    w, b, mistakes, total, total_b, seen = np.zeros(columns), 0.0, 0, np.zeros(columns), 0.0, 0
    for _ in range(3):
        for x, sign in zip(X, y, strict=True):
            if sign * (w @ x + b) <= 0:
                w, b, mistakes = w + sign * x, b + sign, mistakes + 1
            total, total_b, seen = total + w, total_b + b, seen + 1
    model = fit_quietly(Perceptron(max_epochs=3, shuffle=False), X, y)
    if model.n_iter_ == 3:
        assert model.coef_.tolist() == w.tolist()
        assert (model.intercept_, model.mistakes_) == (b, mistakes)
        averaged = fit_quietly(Perceptron(max_epochs=3, shuffle=False, averaged=True), X, y)
        np.testing.assert_allclose(averaged.coef_, total / seen, rtol=1e-12, atol=1e-12)
        assert averaged.intercept_ == pytest.approx(total_b / seen, rel=1e-12, abs=1e-12)
    else:
        assert model.converged_
        assert model.mistakes_ == mistakes


def test_a_score_of_zero_is_the_lower_class():
    model = Perceptron(bias=False).fit([[1.0], [-1.0]], [1, 0])
    assert model.decision_function([[0.0]]).tolist() == [0.0]
    assert model.predict([[0.0]]).tolist() == [0]
    assert model.intercept_ == 0.0


def test_loss_is_the_lectures():
    assert perceptron_loss([1, 1, -1, -1, 1], [2.0, -3.0, 2.5, -1.0, 0.0]).tolist() == [0.0, 3.0, 2.5, 0.0, 0.0]


def test_an_update_descends_the_loss():
    """w += y x is a step of -1 times the gradient of max(0, -y (w . x + b))."""
    X, y = np.array([[0.3, -1.2], [-0.7, 0.4]]), np.array([1, -1])
    model = Perceptron(shuffle=False).partial_fit(X, y)
    x, sign = np.array([[0.9, -2.0]]), -int(model.predict([[0.9, -2.0]])[0])
    w, b, step = model.coef_.copy(), model.intercept_, 1e-6

    def loss(w, b):
        return perceptron_loss([sign], x @ w + b)[0]

    gradient = [(loss(w + step * e, b) - loss(w - step * e, b)) / (2 * step) for e in np.eye(2)]
    model.partial_fit(x, [sign])
    np.testing.assert_allclose(model.coef_ - w, -np.array(gradient), atol=1e-8)
    assert model.intercept_ - b == pytest.approx(-(loss(w, b + step) - loss(w, b - step)) / (2 * step), abs=1e-8)


# --- convergence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("margin", [0.3, 0.1, 0.03])
@pytest.mark.parametrize("columns", [2, 7])
def test_mistakes_stay_within_novikoffs_bound(margin, columns, shuffle):
    for seed in range(4):
        X, y = with_margin(margin, 150, columns, seed)
        radius = np.sqrt((X**2).sum(axis=1) + 1).max()
        model = Perceptron(max_epochs=None, shuffle=shuffle, seed=seed).fit(X, y)
        assert model.converged_
        assert model.score(X, y) == 1.0
        assert 0 < model.mistakes_ <= (radius / margin) ** 2
        best = separation(X, y)
        assert best.margin >= margin * (1 - 1e-9)
        assert model.mistakes_ <= best.mistake_bound <= (radius / margin) ** 2 * (1 + 1e-9)
        assert model.mistakes_ == sum(model.history_["mistakes"])
        assert len(model.history_["mistakes"]) == model.n_iter_


@pytest.mark.parametrize("count", [2, 5, 30])
def test_the_bound_is_reached_by_orthogonal_examples(count):
    """Every example is a mistake once, and R = 1, gamma = 1 / sqrt(n)."""
    signs = np.where(np.arange(count) % 2, 1, -1)
    model = Perceptron(bias=False, max_epochs=None).fit(np.eye(count), signs)
    best = separation(np.eye(count), signs, bias=False)
    assert model.mistakes_ == count
    assert best.radius == 1.0
    assert best.margin == pytest.approx(1 / math.sqrt(count), rel=1e-9)
    assert best.mistake_bound == pytest.approx(count, rel=1e-9)
    assert model.n_iter_ == 2
    assert model.history_["mistakes"] == [count, 0]


def test_training_stops_at_the_first_epoch_without_a_mistake():
    X, y = with_margin(0.2, 50, 3, 0)
    model = Perceptron(max_epochs=10_000).fit(X, y)
    assert model.history_["mistakes"][-1] == 0
    assert 0 not in model.history_["mistakes"][:-1]


def test_the_limit_of_epochs_is_reported():
    X, y = noisy()
    with pytest.warns(gpunet.ConvergenceWarning, match=r"\d+ mistakes in the last of 4 epochs"):
        model = Perceptron(max_epochs=4).fit(X, y)
    assert not model.converged_
    assert model.n_iter_ == 4
    assert model.history_["mistakes"][-1] > 0


CONTRADICTION = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, -1.0]]), np.array([1, -1, 1])
NESTED = np.array([[-1.0], [0.0], [1.0]]), np.array([0, 1, 0])


@pytest.mark.parametrize(("X", "y"), [XOR, CONTRADICTION, NESTED, noisy()])
def test_no_limit_needs_separable_classes(X, y):
    model = Perceptron(max_epochs=None)
    with pytest.raises(InvalidValueError, match=r"max_epochs: None.*no hyperplane separates"):
        model.fit(X, y)
    assert vars(model) == vars(Perceptron(max_epochs=None))


def test_no_limit_counts_the_bias():
    X, y = np.array([[1.0], [3.0]]), np.array([0, 1])
    assert Perceptron(max_epochs=None).fit(X, y).score(X, y) == 1.0
    with pytest.raises(InvalidValueError, match="no hyperplane"):
        Perceptron(max_epochs=None, bias=False).fit(X, y)


# --- separability -------------------------------------------------------------------------------------------------


def random_classes(seed: int):
    """Small data sets of all kinds: separable or not, scaled, rounded so that points coincide."""
    generator = np.random.default_rng(seed)
    rows, columns = int(generator.integers(2, 30)), int(generator.integers(1, 7))
    X = generator.standard_normal((rows, columns)) * 10.0 ** generator.uniform(-2, 2, columns) ** (seed % 3 > 0)
    if seed % 5 == 0:
        X = np.round(X)
    noise = generator.standard_normal(rows) * (seed % 2)
    y = X @ generator.standard_normal(columns) + noise > generator.normal()
    y[:2] = False, True
    return X, y


def test_separability_agrees_with_linear_programming():
    """Oracle: HiGHS looks for a w with w . p_i >= 1."""
    counts = [0, 0]
    for seed in range(120):
        X, y = random_classes(seed)
        examples = signed_examples(X, np.where(y, 1.0, -1.0))
        free = (None, None)
        answer = linprog(np.zeros(examples.shape[1]), A_ub=-examples, b_ub=-np.ones(len(examples)), bounds=free)
        found = separation(X, y)
        assert found.is_separable == (answer.status == 0), seed
        counts[found.is_separable] += 1
        if found.is_separable:
            assert np.linalg.norm(found.weights) == pytest.approx(1, rel=1e-12)
            assert (examples @ found.weights).min() == pytest.approx(found.margin, rel=1e-9)
        else:
            assert found.mistake_bound == math.inf
            assert not found.weights.any()
    assert min(counts) >= 20, "both answers occur"


def test_margin_equals_that_of_a_hard_margin_support_vector_machine():
    """Oracle: min ||w|| with w . p_i >= 1, by Lawson and Hanson's least distance programming."""
    for seed in range(10):
        X, y = with_margin(0.1, 40, 1 + seed % 5, seed)
        examples = signed_examples(X, y)
        system, right = np.vstack([examples.T, np.ones(len(examples))]), np.eye(examples.shape[1] + 1)[-1]
        residual = system @ nnls(system, right)[0] - right
        w = -residual[:-1] / residual[-1]
        found = separation(X, y)
        assert found.margin == pytest.approx(1 / np.linalg.norm(w), rel=1e-7)
        np.testing.assert_allclose(found.weights, w / np.linalg.norm(w), atol=1e-7)


def test_separation_of_two_points_by_hand():
    """p = (3, 1) and (1, -1): the segment's nearest point to the origin is (1, -1), so R^2 = 10, gamma^2 = 2."""
    found = separation([[3.0], [-1.0]], [1, -1])
    assert found.radius == pytest.approx(math.sqrt(10), rel=1e-12)
    assert found.margin == pytest.approx(math.sqrt(2), rel=1e-12)
    np.testing.assert_allclose(found.weights, np.array([1, -1]) / math.sqrt(2), atol=1e-12)
    assert found.mistake_bound == pytest.approx(5, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1e9, 1e150])
def test_separation_scales_with_the_features(scale):
    X, y = with_margin(0.2, 30, 2, 0)
    one, scaled = separation(X, y, bias=False), separation(scale * X, y, bias=False)
    assert one.margin == pytest.approx(scaled.margin / scale, rel=1e-9)
    assert one.radius == pytest.approx(scaled.radius / scale, rel=1e-9)


# --- partial_fit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("averaged", [True, False])
def test_one_example_at_a_time_equals_an_epoch(averaged):
    X, y = noisy(rows=40)
    whole = fit_quietly(Perceptron(max_epochs=1, shuffle=False, averaged=averaged), X, y)
    parts = Perceptron(averaged=averaged)
    for row in range(len(X)):
        parts.partial_fit(X[row : row + 1], y[row : row + 1], classes=["no", "yes"])
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=0, atol=1e-12)
    assert parts.intercept_ == pytest.approx(whole.intercept_, abs=1e-12)
    assert parts.mistakes_ == whole.mistakes_


def test_partial_fit_keeps_to_the_first_classes_and_features():
    model = Perceptron().partial_fit([[1.0, 2.0]], ["b"], classes=["b", "a"])
    assert model.classes_.tolist() == ["a", "b"]
    before = model.coef_.tolist()
    with pytest.raises(InvalidValueError, match="'c' in row 0 is not known"):
        model.partial_fit([[1.0, 2.0]], ["c"])
    with pytest.raises(InvalidValueError, match="1 in row 0 is not known"):
        model.partial_fit([[1.0, 2.0]], [1])
    with pytest.raises(InvalidValueError, match=r"classes: got \['b', 'c'\]"):
        model.partial_fit([[1.0, 2.0]], ["b"], classes=["b", "c"])
    with pytest.raises(ShapeError, match="X has 1 features, but Perceptron is expecting 2"):
        model.partial_fit([[1.0]], ["b"])
    assert model.coef_.tolist() == before
    with pytest.raises(InvalidValueError, match="1 class"):
        Perceptron().partial_fit([[1.0]], ["b"])


@pytest.mark.parametrize("bias", [True, False])
def test_a_bias_is_not_added_or_taken_away_halfway(bias):
    X, y = noisy()
    model = Perceptron(bias=bias).partial_fit(X, y)
    before = model.coef_.tolist(), model.intercept_, model.n_iter_
    model.set_params(bias=not bias)
    with pytest.raises(InvalidValueError, match=f"bias: got {not bias}. Expected {bias}, as before"):
        model.partial_fit(X, y)
    assert (model.coef_.tolist(), model.intercept_, model.n_iter_) == before
    assert fit_quietly(model, X, y).n_iter_ > 1, "fit learns anew"


def test_features_whose_products_fade_to_0_would_never_stop_the_rule():
    X, y = with_margin(0.2, 30, 2, 0)
    for method in ("fit", "partial_fit"):
        with pytest.raises(InvalidValueError, match=r"X: no number is larger than .*e-2"):
            getattr(Perceptron(bias=False, max_epochs=None), method)(1e-200 * X, y)
    small = Perceptron(bias=False, max_epochs=None).fit(2.0**-460 * X, np.sign(X[:, 0]))
    usual = Perceptron(bias=False, max_epochs=None).fit(X, np.sign(X[:, 0]))
    assert small.coef_.tolist() == (2.0**-460 * usual.coef_).tolist()


@pytest.mark.parametrize(
    ("signs", "scores", "error", "message"),
    [
        ([0, 1], [1.0, 2.0], InvalidValueError, "signs: 0 in row 0"),
        ([1, -1, 1], [1.0, 2.0], ShapeError, "signs"),
        ([1, -1], [1.0, np.nan], NonFiniteError, "scores: nan in row 1"),
        (["a", "b"], [1.0, 2.0], InvalidTypeError, "signs"),
        (1, 2.0, ShapeError, "scores"),
    ],
)
def test_loss_of_what_makes_no_sense_is_refused(signs, scores, error, message):
    with pytest.raises(error, match=message):
        perceptron_loss(signs, scores)
