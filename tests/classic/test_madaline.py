"""Madaline Rule II (L11): each step against a search by brute force, and what the network learns."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

import gpunet
from gpunet.classic import Adaline, Madaline
from gpunet.classic.madaline import MadalineRule
from tests.helpers.classic import fit_quietly

X_XOR = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
Y_XOR = np.array([0, 1, 1, 0])


def parity(rows: int, seed: int, relevant: int = 3, columns: int = 20):
    """The product of the first 3 of 20 features of -1 and +1: no feature alone says anything about it."""
    X = np.random.default_rng(seed).choice([-1.0, 1.0], (rows, columns))
    return X, X[:, :relevant].prod(axis=1)


# --- one step -----------------------------------------------------------------------------------------------------


def textbook_step(hidden, output, x, sign, rate, max_flips, adapt_output):
    """One presentation, with every trial spelt out; returns new weights and the flipped units."""
    hidden, output = hidden.copy(), output.copy()
    scores = [float(w @ x) for w in hidden]
    h = [1.0 if s > 0 else -1.0 for s in scores]

    def decide(outputs):
        return sum(v * one for v, one in zip(output[:-1], outputs, strict=True)) + output[-1]

    if decide(h) * sign > 0:
        return hidden, output, None
    chosen = ()
    for count in range(1, max_flips + 1):
        trials = sorted(
            itertools.combinations(range(len(h)), count), key=lambda units: sum(abs(scores[unit]) for unit in units)
        )
        for units in trials:
            if decide([-one if unit in units else one for unit, one in enumerate(h)]) * sign > 0:
                chosen = units
                break
        if chosen:
            break
    for unit in chosen:
        hidden[unit] += rate * (-h[unit] - scores[unit]) * x / np.dot(x, x)
    after = np.array([*(1.0 if w @ x > 0 else -1.0 for w in hidden), 1.0])
    score = after @ output
    if adapt_output and score * sign <= 0:
        output += rate * (sign - score) * after / len(after)
    return hidden, output, chosen


@pytest.mark.parametrize("adapt_output", [True, False])
@pytest.mark.parametrize(("units", "max_flips"), [(1, 1), (3, 1), (3, 2), (5, 3), (4, 4)])
def test_each_step_equals_the_search_by_brute_force(units, max_flips, adapt_output):
    generator = np.random.default_rng(units)
    seen = set()
    for _ in range(200):
        hidden, output = generator.standard_normal((units, 4)), generator.standard_normal(units + 1)
        x, sign = np.append(generator.standard_normal(3), 1.0), float(generator.choice([-1, 1]))
        expected = textbook_step(hidden, output, x, sign, 0.3, max_flips, adapt_output)
        rule = MadalineRule(
            hidden.copy(), output.copy(), learning_rate=0.3, max_flips=max_flips, adapt_output=adapt_output
        )
        errors = rule.learn_epoch(x[np.newaxis], np.array([sign]))
        assert errors == (expected[2] is not None)
        np.testing.assert_allclose(rule.hidden, expected[0], rtol=0, atol=1e-13)
        np.testing.assert_allclose(rule.output, expected[1], rtol=0, atol=1e-13)
        seen.add(None if expected[2] is None else len(expected[2]))
    assert {None, 1} <= seen
    assert max_flips == 1 or 2 in seen or units == 1


def test_an_epoch_is_its_steps_in_order():
    X, y = parity(50, seed=0, columns=5)
    generator = np.random.default_rng(1)
    hidden, output = generator.standard_normal((3, 6)), generator.standard_normal(4)
    rule = MadalineRule(hidden.copy(), output.copy(), learning_rate=0.2, max_flips=2, adapt_output=True)
    inputs = np.column_stack([X, np.ones(50)])
    errors = 0
    for x, sign in zip(inputs, y, strict=True):
        hidden, output, chosen = textbook_step(hidden, output, x, sign, 0.2, 2, True)
        errors += chosen is not None
    assert rule.learn_epoch(inputs, y) == errors > 10
    np.testing.assert_allclose(rule.hidden, hidden, rtol=0, atol=1e-12)
    np.testing.assert_allclose(rule.output, output, rtol=0, atol=1e-12)


def test_a_rate_of_one_gives_the_flipped_unit_the_score_asked_for():
    """Three votes 1, -1, -1 with scores .5, -.2, -.4 for an example of +1: the second unit is nearest to 0."""
    hidden = np.array([[0.5, 0.0], [-0.2, 0.0], [-0.4, 0.0]])
    rule = MadalineRule(hidden, np.array([1.0, 1, 1, 0]), learning_rate=1.0, max_flips=3, adapt_output=False)
    x = np.array([1.0, 1.0])
    assert rule.learn_epoch(x[np.newaxis], np.array([1.0])) == 1
    np.testing.assert_allclose(rule.hidden @ x, [0.5, 1.0, -0.4], atol=1e-15)


# --- what it learns -----------------------------------------------------------------------------------------------


def test_xor_is_learnt_from_most_seeds():
    models = [fit_quietly(Madaline(hidden_units=3, seed=seed), X_XOR, Y_XOR) for seed in range(20)]
    assert sum(model.converged_ for model in models) >= 19
    for model in models:
        assert model.converged_ == (model.score(X_XOR, Y_XOR) == 1.0)
        assert model.converged_ == (model.history_["errors"][-1] == 0)
        assert len(model.history_["errors"]) == model.n_iter_


def test_xor_is_learnt_by_a_majority_of_three():
    models = [fit_quietly(Madaline(hidden_units=3, output="majority", seed=seed), X_XOR, Y_XOR) for seed in range(20)]
    assert sum(model.converged_ for model in models) >= 15
    for model in models:
        assert model.output_coef_.tolist() == [1, 1, 1]
        assert model.output_intercept_ == 0
        votes = model.hidden_outputs(X_XOR)
        assert set(np.unique(votes)) <= {-1.0, 1.0}
        np.testing.assert_array_equal(model.predict(X_XOR), (votes.sum(axis=1) > 0).astype(int))


def test_parity_of_three_in_twenty_features_generalises_where_an_adaline_guesses():
    for seed in range(4):
        X, y = parity(1000, seed)
        X_test, y_test = parity(1000, seed + 100)
        model = fit_quietly(Madaline(seed=seed), X, y)
        assert model.score(X_test, y_test) >= 0.97
        assert Adaline(learning_rate=0.005, seed=seed).fit(X, y).score(X_test, y_test) <= 0.56


def test_a_network_of_one_unit_is_an_adaline_at_best():
    model = fit_quietly(Madaline(hidden_units=1, max_epochs=20), X_XOR, Y_XOR)
    assert not model.converged_
    assert model.score(X_XOR, Y_XOR) <= 0.75


def test_the_limit_of_epochs_is_reported():
    with pytest.warns(gpunet.ConvergenceWarning, match=r"Madaline: \d+ errors in the last of 3 epochs"):
        model = Madaline(hidden_units=1, max_epochs=3).fit(X_XOR, Y_XOR)
    assert model.n_iter_ == 3


def test_scores_are_those_of_the_weights():
    X, y = parity(300, seed=1, columns=6)
    model = fit_quietly(Madaline(hidden_units=4), X, y)
    hidden = np.sign(X @ model.hidden_coef_.T + model.hidden_intercept_)
    np.testing.assert_allclose(model.decision_function(X), hidden @ model.output_coef_ + model.output_intercept_)
    assert model.hidden_coef_.shape == (4, 6)


def test_trials_take_no_more_room_than_the_units_they_flip():
    hidden, output = np.zeros((3000, 2)), np.zeros(3001)
    tracemalloc.start()
    rule = MadalineRule(hidden, output, learning_rate=0.1, max_flips=1, adapt_output=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6
    assert rule.learn_epoch(np.ones((1, 2)), np.ones(1)) == 1


def test_an_interrupt_leaves_the_estimator_as_it_was(monkeypatch):
    model = fit_quietly(Madaline(hidden_units=3), X_XOR, Y_XOR)

    def interrupted(self, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(MadalineRule, "learn_epoch", interrupted)
    before = dict(vars(model))
    with pytest.raises(KeyboardInterrupt):
        model.fit(np.eye(3), ["a", "b", "a"])
    assert vars(model).keys() == before.keys()
    assert all(value is before[name] for name, value in vars(model).items())
