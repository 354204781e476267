"""``gpunet.diagnostics.inspect``: right numbers, nothing changed, warnings where their thresholds say."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import gpunet
from gpunet.diagnostics import Distribution, Thresholds, check_gradients, inspect, spread_rows, update_ratios
from gpunet.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from tests.helpers.networks import pre_activations, random_problem, randomise

SIZES = [6, 9, 7, 4]


def network_of(**arguments):
    return gpunet.Network(SIZES, **{"batch_norm": False, "dtype": "float64", "device": "cpu", **arguments})


def close(distribution, values):
    """Compare a distribution with numbers."""
    assert distribution.mean == pytest.approx(values.mean(), rel=1e-12, abs=1e-15)
    assert distribution.std == pytest.approx(values.std(), rel=1e-12)
    assert (distribution.minimum, distribution.maximum) == pytest.approx((values.min(), values.max()), rel=1e-12)
    np.testing.assert_array_equal(distribution.counts, np.histogram(values, len(distribution.counts))[0])
    assert len(distribution.edges) == len(distribution.counts) + 1
    assert sum(distribution.counts) == values.size


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "elu(0.7)"])
def test_activations_and_gradients_are_those_of_the_textbook(activation):
    """x_i by the formulas of the forward pass; dJ/ds_i by the lecture's aggregated backward pass, row by row."""
    network = network_of(activation=activation)
    randomise(network)
    X, y = random_problem(31, 6, 4)
    diagnosis = inspect(network, X, y, bins=7)
    scores, parameters = pre_activations(network, X), network.get_parameters()
    function = network.activations[0]
    outputs = [function.forward(s) for s in scores]
    logits = outputs[-1] @ parameters["W3"].T + parameters["b3"]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    g = (p - np.eye(4)[y]) / 31
    for layer in reversed(diagnosis.layers):
        close(layer.score_gradients, g)
        close(layer.outputs, logits if layer.is_output else outputs[layer.index - 1])
        if layer.index > 1:
            g = (g @ parameters[f"W{layer.index}"]) * function.derivative(outputs[layer.index - 2])
    assert [layer.units for layer in diagnosis.layers] == SIZES[1:]
    assert diagnosis.loss == pytest.approx(-np.log(p[np.arange(31), y]).mean())
    assert diagnosis.rows == 31


@pytest.mark.parametrize("arguments", [{"batch_norm": True, "dropout": 0.3}, {"loss": "squared_error"}], ids=str)
def test_parameters_gradients_are_those_of_a_step(arguments):
    network = network_of(**arguments)
    randomise(network)
    X, y = random_problem(20, 6, 4)
    targets = y if network.is_classifier else np.eye(4)[y]
    weights = np.linspace(0.5, 2, 20)
    diagnosis = inspect(network, X, targets, l2=0.01, sample_weight=weights)
    cost, gradients = network.loss_and_gradients(X, targets, l2=0.01, sample_weight=weights)
    assert diagnosis.loss == pytest.approx(cost, rel=1e-12)
    assert diagnosis.parameters.keys() == gradients.keys()
    for name, gradient in gradients.items():
        close(diagnosis.parameters[name].gradients, gradient)
        assert diagnosis.parameters[name].gradient_norm == pytest.approx(np.linalg.norm(gradient))
        assert diagnosis.parameters[name].norm == pytest.approx(np.linalg.norm(network.get_parameters()[name]))
        assert diagnosis.parameters[name].update_ratio is None
    assert [layer.batch_norm for layer in diagnosis.layers] == [*network.batch_norm, False]


@pytest.mark.parametrize("bias_before_batch_norm", [False, True])
def test_with_batch_norm_the_activation_is_what_follows_it(bias_before_batch_norm):
    """x_i is f of the normalised scores; their gradients add up to 0 over the rows, as those behind a mean do."""
    network = network_of(batch_norm=True, activation="tanh", bias_before_batch_norm=bias_before_batch_norm)
    randomise(network)
    X, y = random_problem(40, 6, 4)
    if bias_before_batch_norm:
        network.set_parameters({"b1": np.zeros(9), "b2": np.zeros(7)})
    diagnosis = inspect(network, X, y)
    for layer, z in zip(diagnosis.hidden, pre_activations(network, X), strict=True):
        close(layer.outputs, np.tanh(z))
        assert abs(layer.score_gradients.mean) < 1e-12 * layer.score_gradients.std


@pytest.mark.parametrize("arguments", [{}, {"batch_norm": True}, {"batch_norm": True, "dropout": 0.4}], ids=str)
def test_nothing_changes_bit_for_bit(arguments):
    """Not what can be seen, and not what a run that goes on does."""
    X, y = random_problem(64, 6, 4)
    runs = []
    for looks in (False, True):
        network = network_of(**arguments)
        optimizer = gpunet.SGD(0.1, momentum=0.9)
        gpunet.fit(network, X, y, epochs=2, optimizer=optimizer, batch_size=16)
        before = [network.flat_parameters.copy(), network.flat_state.copy(), network.flat_gradients.copy()]
        if looks:
            inspect(network, X[:50], y[:50], l2=1.0)
            check_gradients(network, X[:20], y[:20])
            after = [network.flat_parameters, network.flat_state, network.flat_gradients]
            for old, new in zip(before, after, strict=True):
                np.testing.assert_array_equal(old.view(np.uint8), new.view(np.uint8))
            assert network.steps == 8
        gpunet.fit(network, X, y, epochs=2, optimizer=optimizer, batch_size=16)
        runs.append(network.get_parameters() | network.get_state())
    for name, value in runs[0].items():
        np.testing.assert_array_equal(value, runs[1][name])


def scores_as_inputs(activation, scores, **arguments):
    """Return the diagnosis of a layer whose scores are these numbers."""
    network = gpunet.Network(
        [1, 1, 2], activation=activation, batch_norm=False, dtype="float64", device="cpu", **arguments
    )
    network.set_parameters({"W1": [[1.0]], "b1": [0.0]})
    return inspect(network, np.reshape(scores, (-1, 1)), np.zeros(len(scores), int)).layers[0]


@pytest.mark.parametrize(
    ("activation", "inside", "outside"),
    [
        ("sigmoid", [-4.99, 0, 4.99], [-5.01, 5.01, 30]),
        ("tanh", [-2.49, 0, 2.49], [-2.51, 2.51, 30]),
        ("elu", [-3.62, 0, 100], [-3.64, -30]),
        ("softplus", [-3.59, 0, 100], [-3.61, -30]),
        ("gelu", [-1, 0, 100], [-3, -30]),
        ("hard_tanh", [-0.99, 0, 0.99], [-1.01, 1.01, 30]),
    ],
)
def test_saturated_is_where_the_slope_is_below_the_sigmoids_at_5(activation, inside, outside):
    assert scores_as_inputs(activation, inside).saturated == 0
    assert scores_as_inputs(activation, outside).saturated == 1
    share = len(outside) / (len(inside) + len(outside))
    assert scores_as_inputs(activation, [*inside, *outside]).saturated == pytest.approx(share)


@pytest.mark.parametrize("activation", ["identity", "relu", "leaky_relu(0.001)"])
def test_straight_lines_do_not_saturate(activation):
    assert scores_as_inputs(activation, [-100, 0, 100]).saturated is None


@pytest.mark.parametrize("batch_norm", [False, True])
def test_dead_units_are_those_without_a_slope_on_any_row(batch_norm):
    network = network_of(batch_norm=batch_norm)
    bias = np.zeros(9)
    bias[[2, 5]] = -100
    network.set_parameters({("beta1" if batch_norm else "b1"): bias})
    X, y = random_problem(200, 6, 4)
    diagnosis = inspect(network, X, y)
    assert diagnosis.layers[0].dead == (2, 5)
    assert diagnosis.layers[0].dead_share == 2 / 9
    assert diagnosis.layers[1].dead == ()
    assert scores_as_inputs("relu", [-1, 0]).dead == (0,)
    assert scores_as_inputs("relu", [-1, 1e-300]).dead == ()
    assert scores_as_inputs("leaky_relu", [-1, -2]).dead == ()
    assert scores_as_inputs("tanh", [30, 40]).dead == (0,)  # 1 - tanh^2 is 0 in float64


def kinds(diagnosis, **thresholds):
    return [(finding.layer, finding.kind) for finding in diagnosis.findings(Thresholds(**thresholds))]


def test_a_healthy_network_gives_no_findings():
    X, y = random_problem(100, 6, 4)
    for arguments in ({}, {"activation": "tanh"}, {"batch_norm": True}):
        assert inspect(network_of(**arguments), X, y).findings() == []


def test_findings_of_dead_and_saturated_units_follow_the_thresholds():
    X, y = random_problem(100, 6, 4)
    network = network_of()
    network.set_parameters({"b1": [-100.0] * 3 + [0.0] * 6})
    diagnosis = inspect(network, X, y)
    assert kinds(diagnosis) == [(1, "dead")]
    assert kinds(diagnosis, dead=0.34) == []
    assert str(diagnosis.findings()[0]) == "layer 1: 33 % dead units"
    saturated = inspect(network_of(activation="tanh", initializer="normal(30)"), X, y)
    assert kinds(saturated, dead=2.0) == [(1, "saturated"), (2, "saturated")]
    assert str(saturated.findings(Thresholds(dead=2.0))[0]).endswith("% of the activations are saturated")


def deep(initializer, activation="tanh"):
    network = gpunet.Network([20] * 12 + [3], activation=activation, initializer=initializer, batch_norm=False)
    return inspect(network, *random_problem(50, 20, 3))


def test_findings_about_depth():
    """Small weights let activations and gradients fade; large linear ones let them grow."""
    small = deep("normal(0.05)")
    assert {kind for _, kind in kinds(small)} == {"faded_outputs", "faded_gradients"}
    assert kinds(small)[0] == (1, "faded_gradients")
    assert (11, "faded_outputs") in kinds(small)
    assert kinds(small, faded_gradients=0.0, faded_outputs=0.0) == []
    large = deep("normal(1)", "identity")
    assert {kind for _, kind in kinds(large)} == {"grown_gradients"}
    assert kinds(large, grown_gradients=1e30) == []
    zeros = deep("zeros")
    assert [pair for pair in kinds(zeros) if pair[1] == "no_gradient"] == [
        (layer, "no_gradient") for layer in range(1, 13)
    ]


def test_a_network_that_has_diverged_can_be_looked_at():
    network = network_of()
    network.parameters["W2"][3, 2] = np.inf
    diagnosis = inspect(network, *random_problem(30, 6, 4))
    assert [kind for _, kind in kinds(diagnosis)] == ["not_finite"] * 3
    assert diagnosis.layers[1].outputs.non_finite > 0
    json.dumps(diagnosis.to_dict(), allow_nan=False)


def test_update_ratios():
    before = {"W1": np.array([[3.0, 4.0]]), "b1": np.zeros(1)}
    assert update_ratios(before, {"W1": np.array([[3.0, 4.5]]), "b1": np.ones(1)}) == {"W1": pytest.approx(0.1)}
    X, y = random_problem(60, 6, 4)
    network = network_of()
    before = network.get_parameters()
    gpunet.fit(network, X, y, epochs=1, batch_size=60, optimizer=gpunet.SGD(30.0))
    diagnosis = inspect(network, X, y, before=before)
    after = network.get_parameters()["W2"]
    expected = np.linalg.norm(after - before["W2"]) / np.linalg.norm(before["W2"])
    assert diagnosis.parameters["W2"].update_ratio == pytest.approx(expected, rel=1e-12)
    assert diagnosis.parameters["b1"].update_ratio is None
    large = [finding for finding in diagnosis.findings() if finding.kind == "large_update"]
    assert large[0].value == diagnosis.parameters[f"W{large[0].layer}"].update_ratio > 0.1


def test_json_and_table():
    X, y = random_problem(30, 6, 4)
    diagnosis = inspect(network_of(activation=["tanh", "relu"], batch_norm=[True, False]), X, y, epoch=3)
    content = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    assert content["epoch"] == 3
    assert content["layers"][0]["outputs"]["std"] == diagnosis.layers[0].outputs.std
    assert content["parameters"][0]["name"] == "W1"
    columns, rows = diagnosis.table()
    assert all(len(row) == len(columns) for row in rows)
    assert [row[2] for row in rows] == ["tanh after batch norm", "relu", "identity"]


def test_a_network_without_hidden_layers():
    network = gpunet.Network([6, 4], device="cpu")
    diagnosis = inspect(network, *random_problem(30, 6, 4))
    assert diagnosis.hidden == ()
    assert diagnosis.layers[0].is_output
    assert diagnosis.findings() == []


@pytest.mark.parametrize(
    ("X", "y", "error"),
    [
        (np.ones((1, 6)), np.zeros(1, int), ShapeError),
        (np.ones((3, 5)), np.zeros(3, int), ShapeError),
        (np.ones((3, 6)), np.zeros(2, int), ShapeError),
        (np.ones((3, 6)), np.full(3, 4), InvalidValueError),
        (np.full((3, 6), np.nan), np.zeros(3, int), NonFiniteError),
    ],
)
def test_refusals(X, y, error):
    with pytest.raises(error):
        inspect(network_of(batch_norm=True), X, y)
    with pytest.raises(InvalidValueError, match="bins"):
        inspect(network_of(), np.ones((3, 6)), np.zeros(3, int), bins=0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([2.5, 2.5, 2.5]), (2.5, 0.0, (3,))),
        (np.zeros(4), (0.0, 0.0, (4,))),
        (np.array([1.0, 1.0 + 2**-52]), (1.0, 2**-53, (2,))),  # no room for bins between neighbours
        (np.array([np.nan, 1.0, np.inf, 1.0]), (1.0, 0.0, (2,))),
    ],
)
def test_distributions_of_odd_numbers(values, expected):
    found = Distribution.of(values)
    assert (found.mean, found.std) == pytest.approx(expected[:2], abs=1e-16)
    assert found.counts == expected[2]
    assert found.edges[0] < found.minimum <= found.maximum < found.edges[-1]


def test_distributions_of_nothing_finite_and_of_the_smallest_and_largest_numbers():
    nothing = Distribution.of(np.array([np.nan, -np.inf]))
    assert (nothing.non_finite, nothing.counts) == (2, (0,))
    assert math.isnan(nothing.mean)
    assert nothing.to_dict()["mean"] is None
    assert sum(Distribution.of(np.array([5e-324, 0.0])).counts) == 2
    largest = np.array([-3e38, 3e38], np.float32)
    assert Distribution.of(largest).std == pytest.approx(3e38, rel=1e-6)
    assert Distribution.of(np.array([3.0, 4.0])).root_mean_square == pytest.approx(math.sqrt(12.5))


@pytest.mark.parametrize(("rows", "most"), [(1, 5), (5, 5), (7, 5), (1000, 3), (10, 1)])
def test_spread_rows(rows, most):
    chosen = spread_rows(rows, most)
    assert len(chosen) == min(rows, most)
    assert chosen[0] == 0
    assert most == 1 or chosen[-1] == rows - 1
    assert (np.diff(chosen) > 0).all()
    for arguments in ((0, 5), (5, 0), (5, -1)):
        with pytest.raises(InvalidValueError, match="Expected an integer of at least 1"):
            spread_rows(*arguments)


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e200, 8.9e307])
def test_distributions_of_numbers_whose_squares_overflow_or_fade(scale):
    """The one-bit numbers -2 to 2, exactly scaled, are distributed as those unscaled."""
    scale = float(2.0 ** np.floor(np.log2(scale)))
    values = np.array([-2.0, 0.5, 1.0, 2.0]) / 2
    plain, scaled = Distribution.of(values, bins=4), Distribution.of(values * scale, bins=4)
    assert scaled.mean == pytest.approx(plain.mean * scale, rel=1e-3)
    assert scaled.std == pytest.approx(plain.std * scale, rel=1e-3)
    assert scaled.root_mean_square == pytest.approx(plain.root_mean_square * scale, rel=1e-3)
    assert scaled.counts == plain.counts
    assert scaled.edges == pytest.approx([edge * scale for edge in plain.edges], rel=1e-3)
    with pytest.raises(InvalidValueError, match="bins"):
        Distribution.of(values, bins=0)


@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_weights_that_only_their_penalty_moves_do_not_learn(l2):
    """All units of layer 2 are dead: nothing gets through to the layers below, and layer 3 reads zeros."""
    network = network_of(activation="relu")
    network.set_parameters({"b2": np.full(7, -100.0)})
    diagnosis = inspect(network, *random_problem(40, 6, 4), l2=l2)
    assert [layer for layer, kind in kinds(diagnosis) if kind == "no_gradient"] == [1, 2, 3]
    assert (diagnosis.parameters["W1"].gradient_norm > 0) == (l2 > 0)


@pytest.mark.parametrize(
    ("before", "error", "message"),
    [
        ([1.0], InvalidTypeError, "before: got list"),
        ({"W9": np.ones(3)}, InvalidValueError, "before: 'W9' is not known"),
        ({"W1": np.ones(3)}, ShapeError, r"before: got shape \(3,\) for W1\. Expected \(9, 6\)"),
        ({"W1": "weights"}, InvalidTypeError, "before: got dtype <U7 for W1"),
    ],
)
def test_parameters_of_another_network_are_refused(before, error, message):
    network = network_of()
    X, y = random_problem(10, 6, 4)
    with pytest.raises(error, match=message):
        inspect(network, X, y, before=before)
    with pytest.raises(error, match=message):
        update_ratios(before, network.get_parameters())


def test_gradients_are_put_back_also_after_an_error(monkeypatch):
    network = network_of()
    X, y = random_problem(10, 6, 4)
    network.loss_and_gradients(X, y)
    before = network.flat_gradients.copy()

    def broken(*arguments):
        raise MemoryError

    monkeypatch.setattr("gpunet.diagnostics.inspection._parameters", broken)  # after the backward pass
    with pytest.raises(MemoryError):
        inspect(network, 2 * X, y)
    np.testing.assert_array_equal(network.flat_gradients, before)


def test_an_infinite_update_is_told_and_is_null_in_json():
    network = network_of(activation="tanh")
    before = network.get_parameters()
    network.set_parameters({"W1": np.full((9, 6), 1e200)})
    diagnosis = inspect(network, *random_problem(10, 6, 4), before=before)
    large = next(finding for finding in diagnosis.findings() if finding.kind == "large_update")
    assert large.value == math.inf
    assert large.to_dict()["value"] is None
    json.dumps(diagnosis.to_dict(), allow_nan=False)
    network.set_parameters({"W1": 41 * before["W1"]})
    messages = [finding.message for finding in inspect(network, *random_problem(10, 6, 4), before=before).findings()]
    assert "one update changes W1 by 4.0e+01 times its norm" in messages
