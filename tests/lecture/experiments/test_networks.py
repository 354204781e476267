"""Experiments of L1 to L5 and L8: what they measure, and that their claims follow the numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpunet.activations import get_activation
from gpunet.backends import select_backend
from gpunet.lecture import plane
from gpunet.lecture.experiment import Settings
from gpunet.lecture.experiments import activations, capacity, layers, linear_scores, mini_batches, softmax_loss
from gpunet.lecture.wording import rounded
from tests.helpers.experiments import QUICK, assert_all_hold, changed, experiment_of, held, quick_numbers

# --- the claims


def test_linear_scores_are_templates() -> None:
    numbers = linear_scores.measure(Settings())
    assert_all_hold(linear_scores, numbers)
    # Reproduced from the parameters on file: the classes of the plane's points.
    plane_ = numbers["plane"]
    scores = np.asarray(plane_["points"]) @ np.asarray(plane_["weights"]).T + plane_["biases"]
    right = scores.argmax(axis=1) == np.asarray(plane_["labels"])
    assert right.mean() == pytest.approx(plane_["accuracy"], abs=1 / len(right))


def test_layers_solve_what_a_line_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "WIDTHS", (4, 8))
    monkeypatch.setattr(layers, "DRAWS", 1)
    numbers = layers.measure(Settings())
    assert_all_hold(layers, numbers)
    assert [entry["counted"] for entry in numbers["parameters"]] == [650, 7510, 17610, 18710]


def test_activations_agree_with_differences() -> None:
    numbers = activations.measure(Settings())
    assert_all_hold(activations, numbers)
    by_name = {variant["name"]: variant for family in numbers["families"].values() for variant in family}
    assert by_name["sigmoid"]["largest_derivative"] == pytest.approx(0.25, abs=1e-6)
    assert by_name["leaky_relu(0.1)"]["derivative_at_0"] == 0.1
    assert by_name["elu(0.5)"]["derivative_at_0"] == 0.5
    assert by_name["relu"]["derivative_at_0"] == 0.0


def test_a_wrong_derivative_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = select_backend("cpu")
    tanh = get_activation("tanh")
    monkeypatch.setattr(type(tanh), "derivative", lambda self, y: 1 - y)
    numbers = {"families": {"tanh": [activations._measured(backend, tanh, np.linspace(-1, 1, 5), quick=True)]}}
    assert numbers["families"]["tanh"][0]["difference_error"] > 0.1


def test_softmax_loss_full_size() -> None:
    numbers = softmax_loss.measure(Settings())
    assert_all_hold(softmax_loss, numbers)
    assert numbers["margin_losses"]["error"] < 1e-14
    assert numbers["penalty"]["cost_error"] < 1e-12
    assert numbers["overflow"]["library"] == pytest.approx([np.logaddexp(0, s) for s in softmax_loss.SCALES], rel=1e-6)
    # exp overflows in float32 above 88.7.
    assert [loss is None for loss in numbers["overflow"]["naive"]] == [scale > 88.7 for scale in softmax_loss.SCALES]


def test_mini_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini_batches, "BATCHES", (1, 4, 16))
    monkeypatch.setattr(mini_batches, "EPOCHS", 7)
    numbers = mini_batches.measure(Settings())
    assert_all_hold(mini_batches, numbers)
    noise = numbers["noise"]
    # 200 draws determine a root mean square to about 1 / sqrt(2 * 200) of itself, 5 %, if the distances were normal.
    np.testing.assert_allclose(noise["measured"], noise["expected"], rtol=0.2)
    for run in numbers["runs"]:
        assert run["by_updates"]["losses"][0] == numbers["runs"][0]["losses"][0]
        assert run["by_updates"]["updates"][:3] == [0, 1, 2]


def test_capacity_bends_and_l2_smooths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "TRIALS", 2)
    shown = held(capacity, capacity.measure(Settings()))
    assert all(
        shown[name] for name in ("wide_fits_training", "wide_overfits", "depends_on_initialisation", "l2_smooths")
    )


# --- the claims follow the numbers


@pytest.fixture(scope="module")
def full() -> dict[Any, dict[str, Any]]:
    """Return numbers of which every claim holds; those of the small size, with what training brings put right."""
    numbers = {module: quick_numbers(experiment_of(module)) for module in DOCTORED}
    for place, network in enumerate(numbers[layers]["spirals"]["networks"]):
        network["accuracy"] = (0.6, 0.9, 0.99, 1.0)[place]
    for network, accuracy in zip(numbers[layers]["exclusive_or"]["networks"], (0.5, 1.0), strict=True):
        network["accuracy"] = accuracy
    for place, entry in enumerate(numbers[layers]["by_width"]):
        entry["accuracies"] = [[0.7 + 0.1 * place], [0.8 + 0.1 * place], [1.0], [1.0]]
    numbers[linear_scores] |= {"best_match": list(range(10)), "test_accuracy": 0.95}
    numbers[linear_scores]["example"] |= {"label": 9, "scores": list(range(10))}
    for number, run in enumerate(numbers[mini_batches]["runs"]):
        run["losses"][-1] = 0.1 * 2**number
        run["by_updates"] = {"updates": [0, 100 + run["batch"]], "losses": [2.0, 0.1]}
    numbers[mini_batches]["noise"]["exponent"] = -0.5
    for place, entry in enumerate(numbers[softmax_loss]["trained"]):
        entry["squared_weights"] = 100.0 / (place + 1)
    first, second = numbers[capacity]["by_width"]
    first[0] |= {"train_error": 0.2, "test_error": 0.2}
    first[-1] |= {"train_error": 0.05, "test_error": 0.12, "decision": (np.indices((8, 8)).sum(axis=0) % 2).tolist()}
    second[-1]["decision"] = numbers[capacity]["by_l2"][-1]["decision"] = [[0.0] * 4 + [1.0] * 4] * 8
    for number, trial in enumerate(numbers[capacity]["trials"]):
        for name, error in (("big_with_l2", 0.1), ("big", 0.2), ("small", 0.3)):
            trial[name]["test"] = error + 0.001 * number * error
    return numbers


# What is changed, and the claims that then no longer hold.
CASES: list[tuple[Any, tuple[Any, ...], Any, tuple[str, ...]]] = [
    (linear_scores, ("best_match", 0), 1, ("templates_match",)),
    (linear_scores, ("example", "label"), 8, ("example_scores_highest",)),
    (linear_scores, ("test_accuracy",), 0.5, ("accurate",)),
    (linear_scores, ("difference_from_formula",), 0.1, ("scores_are_the_formula",)),
    (layers, ("spirals", "networks", 3, "accuracy"), 0.6, ("depth_solves_spirals",)),
    (layers, ("spirals", "networks", 1, "accuracy"), 0.99, ("two_layers_miss_spirals",)),
    (layers, ("spirals", "networks", 0, "accuracy"), 0.9, ("linear_fails",)),
    (layers, ("exclusive_or", "networks", 0, "accuracy"), 0.99, ("linear_fails",)),
    (layers, ("exclusive_or", "networks", 1, "accuracy"), 0.8, ("two_layers_solve_exclusive_or",)),
    (layers, ("by_width", 0, "accuracies"), [[0.7], [0.9], [0.8], [0.95]], ("width_helps",)),
    (layers, ("by_width", 0, "accuracies"), [[0.7], [1.0], [1.0], [1.0]], ("depth_helps_narrow",)),
    (layers, ("parameters", 0, "counted"), 1, ("counts_agree",)),
    (layers, ("difference_without_activation",), 0.1, ("linear_without_activation",)),
    (layers, ("difference_from_formula",), 0.1, ("scores_are_the_formula",)),
    (activations, ("families", "tanh", 0, "difference_error"), 0.3, ("differences_agree",)),
    (activations, ("families", "tanh", 0, "formula_error"), 0.3, ("formulas_agree",)),
    (activations, ("families", "ELU", 1, "finite_far_away"), False, ("finite_far_away",)),
    (activations, ("families", "sigmoid", 0, "largest_derivative"), 0.3, ("sigmoid_is_flat",)),
    (softmax_loss, ("gradient", "error_lecture"), 0.1, ("gradient_is_p_minus_y",)),
    (softmax_loss, ("overflow", "library", 1), 10.1, ("library_is_right",)),
    (softmax_loss, ("overflow", "naive"), [1.0] * 9, ("naive_overflows",)),
    (softmax_loss, ("penalty", "factor_error"), 1.0, ("factor_is_2",)),
    (softmax_loss, ("penalty", "bias_change"), 1e-9, ("factor_is_2",)),
    (softmax_loss, ("trained", 1, "squared_weights"), 100.0, ("weights_shrink",)),
    (mini_batches, ("runs", -1, "losses", -1), 0.01, ("small_batches_need_fewer_epochs",)),
    (mini_batches, ("runs", 0, "by_updates", "updates"), [0, 1000], ("batches_need_similar_updates",)),
    (mini_batches, ("noise", "exponent"), -0.1, ("noise_is_root",)),
    (mini_batches, ("difference_by_hand",), 0.1, ("fit_is_the_four_steps",)),
    (capacity, ("by_width", 0, 0, "train_error"), 0.06, ("wide_fits_training", "wide_overfits")),
    (capacity, ("by_width", 0, -1, "test_error"), 0.06, ("wide_overfits",)),
    (capacity, ("trials", 0, "big", "test"), 0.0, ("l2_helps_big",)),
    (capacity, ("trials", 0, "small", "test"), 0.0, ("big_with_l2_beats_small",)),
]
DOCTORED = {module for module, *_ in CASES}


@pytest.mark.parametrize(("module", "path", "value", "lost"), CASES)
def test_a_claim_is_lost_with_its_numbers(
    module: Any, path: tuple[Any, ...], value: Any, lost: tuple[str, ...], full: dict[Any, dict[str, Any]]
) -> None:
    assert_all_hold(module, full[module])
    assert_all_hold(module, changed(full[module], *path, value=value), *lost)


def test_a_run_that_never_learns_says_so(full: dict[Any, dict[str, Any]]) -> None:
    runs = [run | {"by_updates": {"updates": [0, 1], "losses": [2.0, 2.0]}} for run in full[mini_batches]["runs"]]
    numbers = full[mini_batches] | {"runs": runs}
    assert_all_hold(mini_batches, numbers, "batches_need_similar_updates")
    assert "no batch size comes to a loss of 0.3. " in experiment_of(mini_batches).describe(numbers)


def test_updates_to_a_low_loss_are_told_by_batch_size(full: dict[Any, dict[str, Any]]) -> None:
    told = experiment_of(mini_batches).describe(full[mini_batches])
    assert "about 101, 104, 116 and 164 of them bring a loss of 0.3 with batches of 1, 4, 16 and 64" in told
    assert "(1.6 between batches of 1 and 64)" in told


# --- the plane


def test_a_decision_map_is_what_the_network_answers() -> None:
    network = QUICK.network([2, 5, 2], batch_norm=False)
    decided = np.asarray(plane.decision_map(network, 1.5, 7))
    answers = network.predict(plane.grid(1.5, 7)).reshape(7, 7)
    np.testing.assert_array_equal(decided > 0, answers == 1)
    # The first row is the lowest: x_2 = -1.5, x_1 rising.
    np.testing.assert_array_equal(plane.grid(1.5, 7)[:2], [[-1.5, -1.5], [-1.0, -1.5]])


def test_a_decision_map_of_more_classes_has_one_leader() -> None:
    network = QUICK.network([2, 4])
    leads = np.asarray(plane.decision_map(network, 2.0, 10))  # even: at 0 all scores are equal
    assert leads.shape == (4, 10, 10)
    assert ((leads > 0).sum(axis=0) == 1).all()
    np.testing.assert_array_equal(leads.argmax(axis=0).ravel(), network.predict(plane.grid(2.0, 10)))


@pytest.mark.parametrize(
    ("problem", "classes"),
    [
        (lambda generator: plane.exclusive_or(40, 0.1, generator), 2),
        (lambda generator: plane.moons(41, 0.05, generator), 2),
        (lambda generator: plane.spirals(42, 3, 1.0, 0.1, generator), 3),
    ],
)
def test_problems_in_the_plane(problem: Callable[[np.random.Generator], Any], classes: int) -> None:
    points, labels = problem(np.random.default_rng(0))
    assert points.shape == (len(labels), 2)
    assert np.isfinite(points).all()
    counts = np.bincount(labels)
    assert len(counts) == classes
    assert counts.max() - counts.min() <= 1


def test_exclusive_or_is_the_sign_of_a_product() -> None:
    points, labels = plane.exclusive_or(80, 0.1, np.random.default_rng(1))
    np.testing.assert_array_equal(labels, points[:, 0] * points[:, 1] < 0)


def test_rounding_keeps_significant_digits() -> None:
    assert rounded([[123456.0, 1.23456e-7], [0.0, -2.0]], 3) == [[123000.0, 1.23e-7], [0.0, -2.0]]
