"""L14 to L17: saturation, zig-zag, what activations cost, dead units."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpunet.bench.report.results import Case, Results, Row, Spread

import gpunet
from gpunet.errors import FileFormatError
from gpunet.lecture.experiment import Settings
from gpunet.lecture.experiments import activation_cost, dead_units, saturation, zig_zag
from tests.helpers.experiments import assert_all_hold, assert_figure, changed, experiment_of, held, quick_numbers
from tests.helpers.networks import pre_activations

Numbers = dict[str, Any]
Full = dict[Any, Numbers]


@pytest.fixture(scope="module")
def full() -> Full:
    return {module: module.measure(Settings()) for module in (saturation, zig_zag)}


@pytest.fixture
def paths(full: Full) -> Numbers:
    paths: Numbers = full[zig_zag]["paths"]
    return paths


# What is changed, and the claim that then no longer holds; the gradients' third scale is 1.
CASES: list[tuple[Any, tuple[Any, ...], Any, str]] = [
    (saturation, ("curves", "tanh", "derivative_at_5"), 0.1, "derivative_is_small"),
    (saturation, ("gradients", "tanh", -1, 0), 1.0, "large_inputs_kill"),
    (saturation, ("gradients", "relu", -1, 0), 1e-9, "relu_keeps"),
    (saturation, ("gradients", "sigmoid", 2, -1), 1e-9, "deep_sigmoid_fades"),
    (saturation, ("gradients", "relu", 2, -1), 1e9, "deep_relu_keeps"),
    (zig_zag, ("paths", "zero-centred", "same_sign"), 1.0, "moves_share_a_sign"),
    (zig_zag, ("paths", "positive", "steps"), 1.0, "slower"),
    (zig_zag, ("paths", "positive", "length_over_straight"), 1.0, "longer"),
    (zig_zag, ("signs", "tanh", "one_sign", 0), 0.9, "in_networks"),
    (zig_zag, ("signs", "sigmoid", "one_sign", -1), 1.0, "batches_help"),
]


@pytest.mark.parametrize(("module", "path", "value", "lost"), CASES)
def test_every_claim_holds_and_one_is_lost_with_its_numbers(
    module: Any, path: tuple[Any, ...], value: float, lost: str, full: Full
) -> None:
    assert full[saturation]["scales"][2] == 1
    assert_all_hold(module, full[module])
    assert_all_hold(module, changed(full[module], *path, value=value), lost)


# --- L14 --------------------------------------------------------------------------------------------------------------


def test_derivatives_where_abs_s_is_5(full: Full) -> None:
    curves = full[saturation]["curves"]
    assert curves["sigmoid"]["derivative_at_5"] == pytest.approx(math.exp(-5) / (1 + math.exp(-5)) ** 2, rel=1e-12)
    # (1 - y)(1 + y) loses what rounding y = tanh(5) = 0.9999 loses.
    assert curves["tanh"]["derivative_at_5"] == pytest.approx(1 / math.cosh(5) ** 2, rel=1e-11)
    assert curves["sigmoid"]["largest_derivative"] == 0.25
    assert curves["tanh"]["largest_derivative"] == 1


def test_single_precision_rounds_saturated_derivatives_to_zero(full: Full) -> None:
    # 1 / (1 + e^-s) rounds to 1 where e^-s < 2^-25, tanh(s) where 2 e^-2s < 2^-25: half a unit in the last place.
    for name, first in (("sigmoid", 25 * math.log(2)), ("tanh", 13 * math.log(2))):
        assert first - 1 < full[saturation]["curves"][name]["zero_in_float32_from"] < first + 1.2


def test_gradient_flow_is_the_gradient_at_the_scores() -> None:
    network = gpunet.Network([5, 7, 7, 4, 3], activation="tanh", batch_norm=False, dtype="float64", device="cpu")
    x = np.random.default_rng(0).standard_normal((1, 5))
    gradients, _ = saturation.gradient_flow(network, x, np.array([2]))
    # With one example, s = W x + b has the gradient of b.
    _, expected = network.loss_and_gradients(x, np.array([2]))
    assert gradients == pytest.approx([np.abs(expected[f"b{i}"]).mean() for i in (1, 2, 3)], rel=1e-12)


def test_saturated_share_counts_scores_beyond_5() -> None:
    network = gpunet.Network([6, 40, 3], activation="sigmoid", batch_norm=False, dtype="float64", device="cpu")
    X = 8 * np.random.default_rng(1).standard_normal((30, 6))
    _, saturated = saturation.gradient_flow(network, X, np.zeros(30, int))
    share = np.mean(np.abs(X @ network.get_parameters()["W1"].T) > 5)
    assert 0.1 < share < 0.9
    assert saturated == pytest.approx(share)


# --- L15 --------------------------------------------------------------------------------------------------------------


def test_positive_inputs_move_both_weights_the_same_way(paths: Numbers) -> None:
    moves = np.diff(paths["positive"]["path"], axis=0)
    assert len(moves) > 2
    assert (np.sign(moves[:, 0]) == np.sign(moves[:, 1])).all()


@pytest.mark.parametrize("name", ["positive", "zero-centred"])
def test_every_run_reaches_the_optimum(paths: Numbers, name: str) -> None:
    path = np.array(paths[name]["path"])
    start, optimum = np.array([-1, 1]), np.array([1, -1])
    assert paths[name]["reached"]
    assert (path[0] == start).all()
    distances = np.linalg.norm(path - optimum, axis=1)
    assert distances[-1] <= 0.1 * distances[0] < distances[-2]
    assert paths[name]["length_over_straight"] >= 1


@pytest.mark.parametrize("name", ["positive", "zero-centred"])
def test_contours_are_of_the_cost_that_is_descended(paths: Numbers, name: str) -> None:
    inputs = np.random.default_rng(0).uniform(*zig_zag.RANGES[name], (100_000, 2))
    sampled = inputs.T @ inputs / len(inputs)
    np.testing.assert_allclose(paths[name]["curvature"], sampled, atol=5 / math.sqrt(len(inputs)))


@pytest.mark.parametrize("name", ["positive", "zero-centred"])
def test_each_step_descends_the_squared_error_of_one_example(paths: Numbers, name: str) -> None:
    # With t = w* x the step is m = rate (d x) x, d = w* - w; then m m / m d = rate x x gives x back, up to its sign.
    run, (low, high) = paths[name], zig_zag.RANGES[name]
    path = np.array(run["path"])
    for before, move in zip(path, np.diff(path, axis=0), strict=False):
        towards = np.array([1, -1]) - before
        squared = move @ move / (move @ towards) / run["learning_rate"]
        x = move / np.linalg.norm(move) * math.sqrt(squared)
        assert any((low - 1e-9 <= sign * x).all() and (sign * x <= high + 1e-9).all() for sign in (-1, 1))


# --- L16 --------------------------------------------------------------------------------------------------------------


def test_exponentials_are_counted_once_per_score() -> None:
    operations = activation_cost.measure(Settings(quick=True))["operations"]
    exponentials = {
        name: {way: sum(counts[way].get(call, 0) for call in ("exp", "expm1", "tanh")) for way in counts}
        for name, counts in operations.items()
    }
    for name in ("sigmoid", "tanh", "elu"):
        assert exponentials[name] == {"forward": 1, "backward": 0}
    for name in ("relu", "leaky_relu"):
        assert exponentials[name] == {"forward": 0, "backward": 0}
    assert operations["relu"] == {"forward": {"maximum": 1}, "backward": {"greater": 1}}


def _cost_row(activation: str, mode: str, time: float, rows: int = 1000, **changes: Any) -> Row:
    case = Case("bias_activation", mode, "a", rows, (200,), activation=activation)
    row = Row(case, "gpunet", "gpunet", milliseconds=Spread(time, time, time))
    return replace(row, **changes)


def _cost_rows(time: float, rows: int = 1000, **changes: Any) -> list[Row]:
    names = ("relu", "leaky_relu(0.01)", "elu(1.0)", "sigmoid", "tanh")
    return [_cost_row(name, mode, time, rows, **changes) for name in names for mode in ("forward", "backward")]


def _results(rows: list[Row]) -> Results:
    return Results({"name": "somewhere"}, "1.2.3", rows)


def test_costs_of_a_result_file_are_of_its_largest_complete_case() -> None:
    rows = _cost_rows(4.0, 1000) + _cost_rows(1.0, 100) + _cost_rows(9.0, 5000)[:-1]
    costs = activation_cost.costs_of_results(_results(rows), on_device=False)
    assert costs is not None
    assert (costs["machine"], costs["version"], costs["rows"], costs["columns"]) == ("somewhere", "1.2.3", 1000, 200)
    assert list(costs["nanoseconds"]) == ["relu", "leaky_relu", "elu", "sigmoid", "tanh"]
    for times in costs["nanoseconds"].values():
        assert times == {"forward": pytest.approx(20), "backward": pytest.approx(20)}


@pytest.mark.parametrize(
    "changes",
    [{"peer": "torch"}, {"status": "failed", "milliseconds": None}, {"on_device": True}],
    ids=["other peer", "failed", "other device"],
)
def test_costs_ignore_rows_of_something_else(changes: dict[str, Any]) -> None:
    assert activation_cost.costs_of_results(_results(_cost_rows(4.0, **changes)), on_device=False) is None


def test_committed_costs_come_from_the_first_file_that_has_them(tmp_path: Path) -> None:
    assert activation_cost.committed_costs(False, tmp_path) is None
    _results(_cost_rows(1.0)[:3]).save(tmp_path / "a.json")
    assert activation_cost.committed_costs(False, tmp_path) is None
    _results(_cost_rows(4.0)).save(tmp_path / "b.json")
    costs = activation_cost.committed_costs(False, tmp_path)
    assert costs is not None
    assert costs["nanoseconds"]["relu"]["forward"] == pytest.approx(20)
    (tmp_path / "0.json").write_text("{", encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"0\.json"):
        activation_cost.committed_costs(False, tmp_path)


def test_figure_and_paragraph_take_the_committed_times_where_there_are_any() -> None:
    numbers = activation_cost.measure(Settings(quick=True))
    benchmark = activation_cost.costs_of_results(_results(_cost_rows(4.0)), on_device=False)
    with_results = {**numbers, "benchmark": benchmark}
    assert activation_cost.costs(with_results) is benchmark
    assert activation_cost.costs({**numbers, "benchmark": None}) is numbers["measured"]
    assert "gpunet 1.2.3 on somewhere" in experiment_of(activation_cost).describe(with_results)
    assert "measured now on this machine" in experiment_of(activation_cost).describe({**numbers, "benchmark": None})
    assert_figure(experiment_of(activation_cost), with_results)


def test_activation_cost_follows_the_times() -> None:
    numbers = {**activation_cost.measure(Settings(quick=True)), "benchmark": None}
    for name in activation_cost.ACTIVATIONS:
        numbers["measured"]["nanoseconds"][name]["forward"] = 5.0 if name in activation_cost.WITH_EXP else 1.0
    numbers["measured"]["linear_nanoseconds"] = 50.0
    assert_all_hold(activation_cost, numbers)
    cheap = changed(numbers, "measured", "nanoseconds", "tanh", "forward", value=1.0)
    assert_all_hold(activation_cost, cheap, "exp_is_dear")
    assert "leaky_relu 1.0, elu 5.0, sigmoid 5.0, tanh 1.0" in experiment_of(activation_cost).describe(cheap)
    assert_all_hold(activation_cost, changed(numbers, "measured", "linear_nanoseconds", value=4.0), "linear_is_dearer")
    for way, lost in (("forward", "only_these_need_exp"), ("backward", "no_exp_backward")):
        assert_all_hold(activation_cost, changed(numbers, "operations", "relu", way, value={"exp": 1}), lost)


# --- L17 --------------------------------------------------------------------------------------------------------------


def _network_with_dead_units(activation: str) -> tuple[gpunet.Network, np.ndarray[Any, Any]]:
    """Units 1 and 4 of the first layer, and 0 of the second, are negative for every row."""
    network = gpunet.Network([3, 6, 6, 2], activation=activation, batch_norm=False, device="cpu", initial_bias=5.0)
    b1, b2 = np.full(6, 5.0), np.full(6, 5.0)
    b1[[1, 4]], b2[0] = -100, -1000
    network.set_parameters({"b1": b1, "b2": b2})
    return network, np.random.default_rng(0).standard_normal((40, 3))


# Scores below which f' is 0 in single precision: ELU's, 1 + (e^s - 1), where e^s is less than 2^-25; the others' never.
@pytest.mark.parametrize(
    ("activation", "zero_below"), [("relu", 0.0), ("elu", -25 * math.log(2)), ("leaky_relu", -math.inf)]
)
def test_dead_units_are_those_whose_derivative_is_zero_for_every_row(activation: str, zero_below: float) -> None:
    network, X = _network_with_dead_units(activation)
    dead, silent = dead_units.dead_and_silent(network, X)
    largest = np.array([scores.max(axis=0) for scores in pre_activations(network, X)])
    assert silent[0, [1, 4]].all()
    np.testing.assert_array_equal(silent, largest <= 0)
    np.testing.assert_array_equal(dead, largest <= zero_below)


def test_dead_units_of_the_first_layer_never_update() -> None:
    network, X = _network_with_dead_units("relu")
    y = np.arange(40) % 2
    before = network.get_parameters()
    gpunet.fit(network, X, y, epochs=5, batch_size=8, optimizer=gpunet.SGD(0.1))
    after = network.get_parameters()
    for name in ("W1", "b1"):
        np.testing.assert_array_equal(after[name][[1, 4]], before[name][[1, 4]])
        assert (after[name][[0, 2, 3, 5]] != before[name][[0, 2, 3, 5]]).any()
    assert dead_units.dead_and_silent(network, X)[0][0].nonzero()[0].tolist() == [1, 4]


@pytest.fixture(scope="module")
def dying() -> Numbers:
    """The full experiment's numbers in miniature: two learning rates."""
    numbers = quick_numbers(experiment_of(dead_units))
    for name in dead_units.NETWORKS:
        for run in numbers["runs"][name]:
            run.update(dead=[0.0, 0.0], moved=0.0, silent=[0, 0], revived=[0, 0], diverged=0, epochs_to_learn=None)
    return numbers


def _dying(dying: Numbers) -> Numbers:
    numbers = changed(dying, "runs", "relu", -1, "dead", value=[0.0, 0.4])
    numbers = changed(numbers, "runs", "relu", -1, "silent", value=[50, 20])
    numbers = changed(numbers, "runs", "leaky_relu", -1, "silent", value=[30, 0])
    numbers = changed(numbers, "runs", "leaky_relu", -1, "revived", value=[2, 0])
    for name, epochs in (("relu", 4.0), ("tanh", 8.0)):
        numbers = changed(numbers, "runs", name, 0, "epochs_to_learn", value=epochs)
    return numbers


@pytest.mark.parametrize(
    ("lost", "path", "value"),
    [
        ("relu_dies", ("relu", -1, "dead"), [0.0, 0.01]),
        ("others_live", ("elu", 0, "dead"), [0.0, 0.1]),
        ("stays_dead", ("relu", 0, "revived"), [1, 0]),
        ("never_updates", ("relu", 0, "moved"), 1e-9),
        ("leaky_revives", ("leaky_relu", -1, "revived"), [0, 3]),
        ("bias_helps", ("relu, bias 0.1", -1, "dead"), [0.0, 0.5]),
        ("faster_than_tanh", ("tanh", 0, "epochs_to_learn"), 4.0),
        ("faster_than_sigmoid", ("sigmoid", 0, "epochs_to_learn"), 4.0),
    ],
)
def test_a_claim_of_dead_units_is_lost_with_its_numbers(
    dying: Numbers, lost: str, path: tuple[Any, ...], value: Any
) -> None:
    shown = _dying(dying)
    assert_all_hold(dead_units, shown)
    doctored = held(dead_units, changed(shown, "runs", *path, value=value))
    assert not doctored[lost]
    if lost != "relu_dies":  # with fewer dead, the bias helps less
        assert sum(doctored.values()) == len(doctored) - 1


def test_fastest_learning_rate(dying: Numbers) -> None:
    assert dead_units.fastest(dying, "elu") is None
    numbers = changed(dying, "runs", "elu", 0, "epochs_to_learn", value=7.0)
    numbers = changed(numbers, "runs", "elu", 1, "epochs_to_learn", value=3.0)
    assert dead_units.fastest(numbers, "elu") == (3.0, numbers["learning_rates"][1])
