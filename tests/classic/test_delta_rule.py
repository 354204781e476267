"""The generalised delta rule (L12): the paper's equations written out as oracle, and the paper's own problems."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import r2_score

import gpunet
from gpunet.classic import DeltaRule
from gpunet.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from tests.helpers.classic import fit_quietly

X_XOR = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y_XOR = np.array([0.0, 1.0, 1.0, 0.0])


def delta_rule(**parameters):
    return DeltaRule(**{"dtype": "float64", "device": "cpu", **parameters})


def textbook(network, patterns, targets, *, eta, alpha, epochs, by_pattern):
    """Eqs. (13), (14) and (16) unit by unit: w[l][j][i] from unit i to unit j, the last i is the bias.

    Returns the weights and E of each epoch. `network` gives the initial weights only.
    """
    parameters, depth = network.get_parameters(), len(network.layer_sizes) - 1
    w = [np.column_stack([parameters[f"W{layer}"], parameters[f"b{layer}"]]) for layer in range(1, depth + 1)]
    change = [np.zeros_like(one) for one in w]
    errors = []
    for _ in range(epochs):
        terms, E = [np.zeros_like(one) for one in w], 0.0
        for pattern, target in zip(patterns, targets, strict=True):
            o = [np.append(pattern, 1.0)]
            for layer in range(depth):
                net = [sum(w[layer][j, i] * o[-1][i] for i in range(len(o[-1]))) for j in range(len(w[layer]))]
                o.append(np.append(1 / (1 + np.exp(-np.array(net))), 1.0))
            out = o[-1][:-1]
            E += 0.5 * sum((target[j] - out[j]) ** 2 for j in range(len(out)))
            delta = [(target[j] - out[j]) * out[j] * (1 - out[j]) for j in range(len(out))]
            for layer in reversed(range(depth)):
                for j in range(len(delta)):
                    for i in range(len(o[layer])):
                        terms[layer][j, i] += delta[j] * o[layer][i]
                delta = [
                    o[layer][i] * (1 - o[layer][i]) * sum(delta[k] * w[layer][k, i] for k in range(len(delta)))
                    for i in range(len(o[layer]) - 1)
                ]
            if by_pattern:
                for layer in range(depth):
                    change[layer] = eta * terms[layer] + alpha * change[layer]
                    w[layer] = w[layer] + change[layer]
                    terms[layer][:] = 0
        if not by_pattern:
            for layer in range(depth):
                change[layer] = eta * terms[layer] + alpha * change[layer]
                w[layer] = w[layer] + change[layer]
        errors.append(E)
    return w, errors


@pytest.mark.parametrize("update", ["pattern", "epoch"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("hidden_units", [3, (4, 2), ()], ids=str)
def test_weights_equal_the_papers_equations(hidden_units, momentum, update):
    generator = np.random.default_rng(0)
    X, T = generator.uniform(0, 1, (7, 3)), generator.uniform(0.1, 0.9, (7, 2))
    arguments = {"hidden_units": hidden_units, "learning_rate": 0.4, "momentum": momentum, "update": update, "seed": 5}
    untrained = delta_rule(**arguments)._new_network(3, 2)
    model = delta_rule(epochs=30, **arguments).fit(X, T)
    weights, errors = textbook(untrained, X, T, eta=0.4, alpha=momentum, epochs=30, by_pattern=update == "pattern")
    learnt = model.network_.get_parameters()
    for layer, expected in enumerate(weights, start=1):
        np.testing.assert_allclose(learnt[f"W{layer}"], expected[:, :-1], rtol=0, atol=1e-9)
        np.testing.assert_allclose(learnt[f"b{layer}"], expected[:, -1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(model.history_["error"], errors, rtol=1e-9)
    assert model.n_iter_ == 30


def test_initial_weights_are_uniform_in_the_range_and_biases_zero():
    network = delta_rule(hidden_units=200, initial_range=0.3)._new_network(50, 1)
    parameters = network.get_parameters()
    assert np.abs(parameters["W1"]).max() <= 0.3
    assert parameters["W1"].std() == pytest.approx(0.3 / np.sqrt(3), rel=0.02)
    assert not parameters["b1"].any()


# --- the paper's problems -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("update", "learning_rate"), [("pattern", 0.5), ("epoch", 1.0)])
def test_xor_is_learnt_from_most_seeds(update, learning_rate):
    models = [
        fit_quietly(delta_rule(update=update, learning_rate=learning_rate, epochs=400, tolerance=0.2, seed=seed), X, y)
        for seed in range(8)
        for X, y in [(X_XOR, Y_XOR)]
    ]
    learnt = [model for model in models if model.converged_]
    assert len(learnt) >= 6
    for model in learnt:
        assert np.abs(model.predict(X_XOR) - Y_XOR).max() <= 0.2
        assert model.n_iter_ < 400
        assert model.history_["error"][-1] < 0.2 < model.history_["error"][0]


@pytest.mark.parametrize(("inputs", "hidden"), [(4, 2), (8, 3)])
def test_encoders_find_a_code_for_each_pattern(inputs, hidden):
    """N patterns through log2 N units: thresholded, the hidden outputs must all differ or at least stay apart."""
    patterns = np.eye(inputs)
    model = delta_rule(hidden_units=hidden, tolerance=0.3, epochs=1500).fit(patterns, patterns)
    assert model.converged_
    np.testing.assert_array_equal(model.predict(patterns).argmax(axis=1), np.arange(inputs))
    codes = model.hidden_outputs(patterns)
    assert codes.shape == (inputs, hidden)
    distances = np.abs(codes[:, None] - codes[None]).max(axis=2) + np.eye(inputs)
    assert distances.min() > 0.3


def test_symmetry_is_detected_by_two_hidden_units():
    """The paper's solution: weights of equal size and opposite sign on either side of the middle."""
    patterns = np.array([[code >> bit & 1 for bit in range(4)] for code in range(16)], dtype=float)
    targets = (patterns == patterns[:, ::-1]).all(axis=1).astype(float)
    model = delta_rule(learning_rate=0.1, initial_range=0.3, tolerance=0.3, epochs=3000, seed=3).fit(patterns, targets)
    assert model.converged_
    assert (model.predict(patterns) > 0.5).tolist() == targets.astype(bool).tolist()
    W = model.network_.get_parameters()["W1"]
    np.testing.assert_allclose(W, -W[:, ::-1], rtol=0.1)


# --- the estimator ------------------------------------------------------------------------------------------------


def test_shapes_of_targets_and_outputs():
    X = np.random.default_rng(0).uniform(size=(6, 2))
    for y, expected in [(np.full(6, 0.5), (6,)), (np.full((6, 1), 0.5), (6, 1)), (np.full((6, 3), 0.5), (6, 3))]:
        model = delta_rule(epochs=1).fit(X, y)
        assert model.predict(X).shape == expected
        assert model.n_outputs_ == (1 if y.ndim == 1 else y.shape[1])


def test_hidden_outputs_are_those_of_the_last_hidden_layer():
    X = np.random.default_rng(0).uniform(size=(9, 2))
    model = delta_rule(hidden_units=(4, 3), epochs=2).fit(X, X)
    parameters, expected = model.network_.get_parameters(), X
    for layer in (1, 2):
        expected = 1 / (1 + np.exp(-(expected @ parameters[f"W{layer}"].T + parameters[f"b{layer}"])))
    np.testing.assert_allclose(model.hidden_outputs(X), expected, rtol=1e-12)
    flat = delta_rule(hidden_units=(), epochs=1).fit(X, X)
    with pytest.raises(InvalidValueError, match="no hidden units"):
        flat.hidden_outputs(X)


def test_score_is_r_squared():
    generator = np.random.default_rng(0)
    X, T = generator.uniform(size=(20, 3)), generator.uniform(size=(20, 2))
    model = delta_rule(epochs=20).fit(X, T)
    assert model.score(X, T) == pytest.approx(r2_score(T, model.predict(X)), rel=1e-12)
    T[:, 1] = 0.25
    assert model.score(X, T) == pytest.approx(r2_score(T, model.predict(X)), rel=1e-12)
    assert model.score(X, model.predict(X)) == 1.0


def test_targets_of_any_size_are_learnt_as_numbers_from_0_to_1_and_predicted_in_their_units():
    generator = np.random.default_rng(0)
    X, T = generator.uniform(size=(20, 3)), generator.uniform(size=(20, 2))
    T[:2] = [0, 0], [1, 1]
    y = [-3.0, 700.0] + [5.0, 0.25] * T
    model, units = delta_rule(epochs=9).fit(X, y), delta_rule(epochs=9).fit(X, (y - y.min(axis=0)) / np.ptp(y, axis=0))
    np.testing.assert_allclose(model.predict(X), y.min(axis=0) + np.ptp(y, axis=0) * units.predict(X), rtol=1e-12)
    assert model.history_ == units.history_
    assert model.score(X, y) == pytest.approx(r2_score(y, model.predict(X)), rel=1e-12)
    assert units.target_scaling_ is None
    one = delta_rule(epochs=9).fit(X, y[:, 0])
    assert one.predict(X).shape == (20,)
    assert one.predict(X).dtype == np.float64
    assert delta_rule(epochs=1, scale_targets=False).fit(X, T).history_ == delta_rule(epochs=1).fit(X, T).history_


def test_targets_may_be_objects_and_booleans():
    for y in (Y_XOR.astype(object), Y_XOR.astype(bool), Y_XOR.astype(bool)[:, np.newaxis]):
        model = delta_rule(epochs=3).fit(X_XOR, y)
        assert model.history_ == delta_rule(epochs=3).fit(X_XOR, Y_XOR).history_
        assert model.predict(X_XOR).shape == y.shape


def test_tolerance_ends_training_as_soon_as_outputs_are_near():
    model = delta_rule(learning_rate=0.5, tolerance=0.2, seed=0).fit(X_XOR, Y_XOR)
    one_less = delta_rule(learning_rate=0.5, epochs=model.n_iter_ - 1).fit(X_XOR, Y_XOR)
    assert np.abs(model.predict(X_XOR) - Y_XOR).max() <= 0.2
    assert np.abs(one_less.predict(X_XOR) - Y_XOR).max() > 0.2
    assert one_less.history_["error"] == model.history_["error"][:-1]
    assert not one_less.converged_


def test_outputs_far_from_their_targets_are_reported():
    with pytest.warns(gpunet.ConvergenceWarning, match=r"after 3 epochs E is .* not every output is within 0\.1"):
        model = delta_rule(tolerance=0.1, epochs=3).fit(X_XOR, Y_XOR)
    assert not model.converged_


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([0, 1, 1, 2], InvalidValueError, r"y: 2\.0 in row 3, column 0"),
        ([0, -0.5, 1, 1], InvalidValueError, "y: -0.5 in row 1"),
        ([0, np.nan, 1, 1], NonFiniteError, "y: nan in row 1"),
        ([0, 1, 1], ShapeError, "y"),
        (np.zeros((3, 2)), ShapeError, "y"),
        (np.zeros((4, 0)), ShapeError, "y"),
        (np.zeros((4, 1, 1)), ShapeError, "y"),
        ([[0], [1, 1], [0], [0]], ShapeError, "y"),
        (["a", "b", "c", "d"], InvalidTypeError, "y"),
        (None, InvalidValueError, "y: this estimator requires y"),
        ([0, 1e200, 1, 1], InvalidValueError, r"y: 1e\+200 in row 1, column 0 is too large"),
    ],
)
def test_targets_that_make_no_sense_are_refused_and_change_nothing(y, error, message):
    model = delta_rule(epochs=1, scale_targets=False).fit(X_XOR, Y_XOR)
    network, history = model.network_, model.history_
    with pytest.raises(error, match=message):
        model.fit(X_XOR, y)
    assert model.network_ is network
    assert model.history_ is history


def test_numbers_of_hidden_units_may_be_numpys():
    for hidden in (np.array(3), np.int64(3), np.array([3])):
        assert delta_rule(hidden_units=hidden, epochs=1).fit(X_XOR, Y_XOR).network_.layer_sizes == (2, 3, 1)


def test_weights_that_overflow_are_an_error_that_changes_nothing():
    model = delta_rule(epochs=1).fit(X_XOR, Y_XOR)
    network = model.network_
    model.set_params(learning_rate=1e308, epochs=3, dtype="float32")
    with pytest.raises(gpunet.TrainingDivergedError):
        model.fit(X_XOR, Y_XOR)
    assert model.network_ is network
