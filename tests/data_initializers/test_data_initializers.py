"""LSUV and the data-dependent initialisation of Krähenbühl et al. (L21): what their papers promise, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet.data_initializers import DATA_INITIALIZERS, change_rates, data_dependent, lsuv
from gpunet.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from gpunet.initializers import FROM_DATA
from gpunet.random import Purpose, host_generator
from tests.helpers.networks import pre_activations, random_problem

SIZES = [20, 50, 33, 40, 4]
ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu(0.1)", "elu(0.7)", "gelu", "softplus")


def network_of(**arguments):
    return gpunet.Network(SIZES, **{"batch_norm": False, "seed": 3, "device": "cpu", "dtype": "float64", **arguments})


def inputs(rows=600, seed=0):
    """Columns of very different means and spreads, and one that is constant."""
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((rows, SIZES[0])) * np.linspace(0.1, 5, SIZES[0]) + np.linspace(-3, 3, SIZES[0])
    X[:, 7] = 0.0
    return X


def scores(network, X):
    """Return W_i x_{i-1} + b_i of every linear layer, by textbook formulas; batch norm and dropout excluded."""
    values = pre_activations(network, X)
    parameters, last = network.get_parameters(), len(network.layer_sizes) - 1
    below = network.activations[-1].forward(values[-1])
    return [*values, below @ parameters[f"W{last}"].T + parameters[f"b{last}"]]


def everything(network):
    return {**network.get_parameters(), **network.get_state(), "steps": np.array(network.steps)}


def assert_same(network, before):
    after = everything(network)
    assert after.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


# --- LSUV -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_lsuv_gives_every_layers_output_variance_1(activation):
    network, X = network_of(activation=activation, initial_bias=0.1), inputs()
    reached = lsuv(network, X, tolerance=1e-6)
    variances = [values.var() for values in scores(network, X)]
    np.testing.assert_allclose(variances, 1, atol=1e-6)
    np.testing.assert_allclose(reached, variances, rtol=1e-12)


def test_lsuv_on_fresh_data_of_the_same_kind():
    network = network_of(activation="relu")
    lsuv(network, inputs(600, seed=0), tolerance=1e-3)
    np.testing.assert_allclose([values.var() for values in scores(network, inputs(4000, seed=1))], 1, atol=0.15)


def test_lsuv_only_scales_orthonormal_weights():
    network = network_of(activation="tanh")
    lsuv(network, inputs())
    for index in range(1, 5):
        W = network.get_parameters()[f"W{index}"]
        product = W @ W.T if W.shape[0] <= W.shape[1] else W.T @ W
        np.testing.assert_allclose(product / product[0, 0], np.eye(len(product)), atol=1e-12)


def test_lsuv_stops_where_the_variance_is_within_the_tolerance():
    """The paper's loop ends at once where |Var - 1| < Tol_var, and leaves the orthonormal weights alone."""
    X = np.random.default_rng(0).standard_normal((5000, 20))
    network = gpunet.Network([20, 20, 4], activation="identity", batch_norm=False, dtype="float64", device="cpu")
    assert all(abs(variance - 1) < 0.1 for variance in lsuv(network, X))
    W = network.get_parameters()["W1"]
    np.testing.assert_allclose(W @ W.T, np.eye(20), atol=1e-13)
    lsuv(network, X, tolerance=1e-9)
    assert scores(network, X)[0].var() == pytest.approx(1, abs=1e-9)


def test_lsuv_at_depth():
    X = np.random.default_rng(0).standard_normal((200, 30))
    network = gpunet.Network([30] * 31, activation="tanh", batch_norm=False, dtype="float64", device="cpu")
    lsuv(network, X)
    assert np.std(network.logits(X)) == pytest.approx(1, rel=0.06)


# --- Krähenbühl et al. ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_within_layers_every_unit_has_variance_1_and_the_mean_beta(activation):
    """Algorithm 1; beta is the network's initial bias for hidden units and 0 for outputs."""
    network, X = network_of(activation=activation, initial_bias=0.1), inputs()
    data_dependent(network, X, balance=False)
    *hidden, outputs = scores(network, X)
    for values in hidden:
        np.testing.assert_allclose(values.mean(axis=0), 0.1, atol=1e-10)
        np.testing.assert_allclose(values.var(axis=0), 1, rtol=1e-10)
    np.testing.assert_allclose(outputs.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(outputs.var(axis=0), 1, rtol=1e-10)


def test_within_layers_on_fresh_data_of_the_same_kind():
    network = network_of(activation="relu")
    data_dependent(network, inputs(600, seed=0), balance=False)
    for values in scores(network, inputs(4000, seed=1)):
        assert np.abs(values.mean(axis=0)).max() < 0.3
        assert np.abs(values.var(axis=0) - 1).max() < 0.35


def rates_row_by_row(network, X):
    """Return the change rates from a gradient per row: of squared error with targets z - eta it is that of eta^T z."""
    eta = host_generator(network.seed, Purpose.NOISE).standard_normal((len(X), network.layer_sizes[-1]))
    targets = network.logits(X) - eta
    squares = {name: np.zeros(W.shape) for name, W in network.get_parameters().items() if name.startswith("W")}
    for row in range(len(X)):
        _, gradients = network.loss_and_gradients(X[row : row + 1], targets[row : row + 1])
        for name in squares:
            squares[name] += gradients[name] ** 2 / len(X)
    return [np.sqrt(np.mean(squares[name]) / np.mean(network.get_parameters()[name] ** 2)) for name in squares]


@pytest.mark.parametrize("activation", ["identity", "relu", "leaky_relu(0.1)"])
def test_between_layers_all_change_at_one_rate_and_the_function_stays(activation):
    """Algorithm 2: equal average change rates, at the geometric mean of what they were, for the same outputs."""
    arguments = {"activation": activation, "loss": "squared_error", "initial_bias": 0.1}
    network, unbalanced, X = network_of(**arguments), network_of(**arguments), inputs(80)
    before = data_dependent(unbalanced, X, balance=False)
    after = data_dependent(network, X)
    assert max(before) / min(before) > 2
    np.testing.assert_allclose(after, np.exp(np.mean(np.log(before))), rtol=1e-9)
    np.testing.assert_allclose(network.logits(X), unbalanced.logits(X), atol=1e-9)
    np.testing.assert_allclose(rates_row_by_row(unbalanced, X), before, rtol=1e-9)
    np.testing.assert_allclose(rates_row_by_row(network, X), after, rtol=1e-9)


def test_balanced_units_of_a_layer_still_have_one_mean_and_one_variance():
    network, X = network_of(activation="relu"), inputs()
    data_dependent(network, X)
    for values in scores(network, X):
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(values.var(axis=0), values[:, 0].var(), rtol=1e-9)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "elu(0.7)", ["relu", "tanh", "relu"]])
def test_layers_that_cannot_be_scaled_are_not_balanced(activation):
    network, X = network_of(activation=activation), inputs()
    before = everything(network)
    with pytest.raises(InvalidValueError, match="balance: True needs batch norm or one of identity, relu"):
        data_dependent(network, X, balance=True)
    assert_same(network, before)
    rates = data_dependent(network, X)
    assert max(rates) / min(rates) > 1.2
    np.testing.assert_allclose(scores(network, X)[1].var(axis=0), 1, rtol=1e-10)


# --- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", [True, [True, False, False], [False, True, False]])
@pytest.mark.parametrize("scale_shift", [True, False])
def test_batch_norm(batch_norm, scale_shift):
    """Linear layers are scaled whether or not batch norm follows; the averages are those of a new network.

    Where it does, its scale is free, so that all rates can be those of the layers behind the last batch norm.
    """
    arguments = {"batch_norm": batch_norm, "scale_shift": scale_shift, "activation": "relu", "dropout": 0.2}
    network, X = network_of(**arguments), inputs()
    fresh = everything(network)
    lsuv(network, X, tolerance=1e-6)
    found = everything(network)
    for name in found:
        if not name.startswith("W"):
            np.testing.assert_array_equal(found[name], fresh[name])

    data_dependent(network, X, balance=False)
    parameters, below = network.get_parameters(), X
    for index, z in enumerate(pre_activations(network, X), start=1):
        np.testing.assert_allclose((below @ parameters[f"W{index}"].T).var(axis=0), 1, rtol=1e-9)
        below = np.maximum(z, 0)
    cost, _ = network.loss_and_gradients(X, np.zeros(len(X), int))

    rates = data_dependent(network, X)
    np.testing.assert_allclose(rates, rates[-1], rtol=1e-3)  # epsilon of batch norm keeps them from being equal
    same, _ = network.loss_and_gradients(X, np.zeros(len(X), int))
    assert same == pytest.approx(cost, rel=1e-3)


@pytest.mark.parametrize("initialize", [lsuv, data_dependent])
def test_a_trained_network_starts_anew_and_one_seed_gives_one_network(initialize):
    X, y = inputs(), np.arange(600) % 4
    network, other = network_of(), network_of()
    gpunet.fit(network, X, y, epochs=2)
    initialize(network, X)
    initialize(other, X)
    assert network.steps == 0
    assert_same(network, everything(other))
    third = network_of(seed=4)
    initialize(third, X)
    assert not np.array_equal(third.parameters["W1"], other.parameters["W1"])


@pytest.mark.parametrize("initialize", [lsuv, data_dependent])
def test_float32(initialize):
    network = network_of(dtype="float32", activation="relu")
    initialize(network, inputs())
    if initialize is lsuv:
        np.testing.assert_allclose([values.var() for values in scores(network, inputs())], 1, atol=0.1)
    else:
        rates = change_rates(network, inputs())
        np.testing.assert_allclose(rates, rates[0], rtol=1e-4)


@pytest.mark.parametrize("initialize", [lsuv, data_dependent])
@pytest.mark.parametrize("sizes", [[20, 3], [20, 1, 1, 2]])
def test_few_layers_and_few_units(initialize, sizes):
    network = gpunet.Network(sizes, activation="tanh", batch_norm=False, dtype="float64", device="cpu")
    initialize(network, inputs(50))
    assert scores_of_first(network, inputs(50)).var() == pytest.approx(1, abs=0.1)


def scores_of_first(network, X):
    values = network.get_parameters()
    return X @ values["W1"].T + values["b1"]


@pytest.mark.parametrize("initialize", [lsuv, data_dependent])
@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.ones((1, 20)), ShapeError, "X: got 1 row. Expected at least 2"),
        (np.ones((50, 20)), InvalidValueError, "X: every row is the same"),
        (np.full((50, 20), np.arange(20.0)), InvalidValueError, "X: every row is the same"),
        (np.ones((50, 19)), ShapeError, "got 19 columns. Expected 20"),
        (np.full((50, 20), np.nan), NonFiniteError, "nan in row 0"),
        (np.full((50, 20), "a"), InvalidTypeError, "Expected numbers"),
    ],
    ids=["one row", "ones", "equal rows", "columns", "nan", "text"],
)
def test_data_that_say_nothing_are_refused_and_nothing_changes(initialize, X, error, message):
    network = network_of()
    gpunet.fit(network, inputs(), np.arange(600) % 4, epochs=1)
    before = everything(network)
    with pytest.raises(error, match=message):
        initialize(network, X)
    assert_same(network, before)


def test_dead_layers_are_refused_and_nothing_changes():
    """Units that are 0 for every row, and saturated ones, pass nothing on that could be scaled."""
    dead = network_of(activation="relu", initial_bias=-1e6)
    before = everything(dead)
    with pytest.raises(InvalidValueError, match="output of linear2 is the same for every row"):
        lsuv(dead, inputs())
    assert_same(dead, before)
    with pytest.raises(InvalidValueError, match="unit 0 of linear2 has the same score for every row"):
        data_dependent(dead, inputs())
    assert_same(dead, before)
    saturated = network_of(activation="sigmoid", initial_bias=1e3)
    with pytest.raises(InvalidValueError, match="output of linear2 is the same for every row"):
        lsuv(saturated, inputs())
    zeros = network_of(initializer="zeros")
    with pytest.raises(InvalidValueError, match="unit 0 of linear1 has the same score"):
        data_dependent(zeros, inputs())
    with pytest.raises(InvalidValueError, match="all weights of linear4 are 0"):
        change_rates(zeros, inputs())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"tolerance": 0}, InvalidValueError),
        ({"tolerance": "small"}, InvalidTypeError),
        ({"max_iterations": 0}, InvalidValueError),
        ({"max_iterations": 1.5}, InvalidTypeError),
        ({"tolerance": 1e-300}, InvalidValueError),
    ],
)
def test_arguments_of_lsuv(arguments, error):
    network = network_of()
    before = everything(network)
    with pytest.raises(error, match=next(iter(arguments))):
        lsuv(network, inputs(), **arguments)
    assert_same(network, before)


def test_they_repair_a_start_from_which_plain_weights_do_not_learn():
    """20 ReLU layers of 20 units: from N(0, .01^2) nothing is learnt in a few epochs."""
    X, _ = random_problem(300, 20, 3)
    y = (X @ np.random.default_rng(9).standard_normal((20, 3))).argmax(axis=1)
    found = {}
    for name, initialize in [("normal(0.01)", None), ("he_normal", lsuv), ("he_normal", data_dependent)]:
        network = gpunet.Network([20] * 13 + [3], initializer=name, batch_norm=False, device="cpu")
        if initialize is not None:
            initialize(network, X)
        gpunet.fit(network, X, y, epochs=15, batch_size=32, optimizer=gpunet.SGD(0.02, momentum=0.9))
        found[getattr(initialize, "__name__", name)] = gpunet.evaluate(network, X, y).accuracy
    assert found["normal(0.01)"] < 0.5
    assert min(found["lsuv"], found["data_dependent"]) > 0.75


def test_the_names_that_the_shell_takes():
    assert tuple(DATA_INITIALIZERS) == FROM_DATA


@pytest.mark.parametrize("batch_norm", [False, True])
def test_change_rates_leave_the_network_as_it_is(batch_norm):
    """Its gradients too, which a backward pass writes."""
    network, X = network_of(batch_norm=batch_norm), inputs(50)
    network.loss_and_gradients(X, np.arange(50) % 4)
    before = everything(network) | {"gradients": network.flat_gradients.copy()}
    change_rates(network, X)
    for name, value in (everything(network) | {"gradients": network.flat_gradients}).items():
        np.testing.assert_array_equal(value, before[name])


def test_rows_that_float32_can_hardly_tell_apart_are_refused():
    X = (1e6 + 0.01 * np.random.default_rng(0).standard_normal((50, SIZES[0]))).astype(np.float64)
    X[0, 0] += 1  # not all the same, but less different than the rounding of a sum
    with pytest.raises(InvalidValueError, match=r"linear1 .*differ by more than rounding"):
        lsuv(network_of(dtype="float32"), X)
