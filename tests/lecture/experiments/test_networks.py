"""Experiments of L1 to L5 and L8: what they measure, what they say, and that what they say follows the numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpunet.activations import get_activation
from gpunet.backends import select_backend
from gpunet.lecture import plane
from gpunet.lecture.experiment import Experiment, Settings
from gpunet.lecture.experiments import activations, capacity, layers, linear_scores, mini_batches, softmax_loss
from tests.helpers.experiments import experiment_of

MODULES = (linear_scores, layers, activations, softmax_loss, mini_batches, capacity)
EXPERIMENTS = [experiment_of(module) for module in MODULES]
QUICK = Settings(seed=3, quick=True)


@pytest.fixture(scope="module")
def quick_numbers() -> dict[str, Any]:
    return {experiment.name: experiment.measure(QUICK) for experiment in EXPERIMENTS}


each = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)


@each
def test_numbers_are_json_and_repeat(experiment: Experiment, quick_numbers: dict[str, Any]) -> None:
    numbers = quick_numbers[experiment.name]
    text = json.dumps(numbers, allow_nan=False)
    assert json.loads(text) == numbers
    assert json.dumps(experiment.measure(QUICK)) == text


@each
def test_the_paragraph_is_one_and_the_figure_draws(experiment: Experiment, quick_numbers: dict[str, Any]) -> None:
    numbers = json.loads(json.dumps(quick_numbers[experiment.name]))
    paragraph = experiment.describe(numbers)
    assert len(paragraph.split()) > 40
    assert "\n" not in paragraph
    assert "  " not in paragraph
    figure = experiment.draw(numbers)
    figure.canvas.draw()
    named = [axes for axes in figure.axes if axes.axison and (axes.get_xticks().size or axes.get_title())]
    assert named
    assert all(axes.get_xlabel() or axes.get_ylabel() or axes.get_title() for axes in named)


def test_another_seed_gives_other_numbers() -> None:
    other = linear_scores.measure(Settings(seed=4, quick=True))
    assert other["templates"] != linear_scores.measure(QUICK)["templates"]


# --- the claims


def test_linear_scores_are_templates() -> None:
    numbers = linear_scores.measure(Settings())
    assert all(linear_scores.claims(numbers).values())
    # Reproduced from the parameters on file: the classes of the plane's points.
    plane_ = numbers["plane"]
    scores = np.asarray(plane_["points"]) @ np.asarray(plane_["weights"]).T + plane_["biases"]
    right = scores.argmax(axis=1) == np.asarray(plane_["labels"])
    assert right.mean() == pytest.approx(plane_["accuracy"], abs=1 / len(right))


def test_layers_solve_what_a_line_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "WIDTHS", (4, 8))
    monkeypatch.setattr(layers, "DRAWS", 1)
    numbers = layers.measure(Settings())
    claims = layers.claims(numbers)
    assert claims == {**dict.fromkeys(claims, True), "two_layers_solve_spirals": False}
    assert [entry["counted"] for entry in numbers["parameters"]] == [650, 7510, 17610, 18710]


def test_activations_agree_with_differences() -> None:
    numbers = activations.measure(Settings())
    assert all(activations.claims(numbers).values())
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
    assert all(softmax_loss.claims(numbers).values())
    assert numbers["margin_losses"]["error"] < 1e-14
    assert numbers["penalty"]["cost_error"] < 1e-12
    assert numbers["overflow"]["library"] == pytest.approx([np.logaddexp(0, s) for s in softmax_loss.SCALES], rel=1e-6)
    # exp overflows in float32 above 88.7.
    assert [loss is None for loss in numbers["overflow"]["naive"]] == [scale > 88.7 for scale in softmax_loss.SCALES]


def test_mini_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini_batches, "BATCHES", (1, 4, 16))
    monkeypatch.setattr(mini_batches, "EPOCHS", 7)
    numbers = mini_batches.measure(Settings())
    assert all(mini_batches.claims(numbers).values())
    noise = numbers["noise"]
    # 200 draws determine a root mean square to about 1 / sqrt(2 * 200) of itself, 5 %, if the distances were normal.
    np.testing.assert_allclose(noise["measured"], noise["expected"], rtol=0.2)
    for run in numbers["runs"]:
        assert run["by_updates"]["losses"][0] == numbers["runs"][0]["losses"][0]
        assert run["by_updates"]["updates"][:3] == [0, 1, 2]


def test_capacity_bends_and_l2_smooths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "TRIALS", 2)
    shown = capacity.claims(capacity.measure(Settings()))
    wanted = ("wide_fits_training", "wide_overfits", "depends_on_initialisation", "l2_smooths")
    assert {name: shown[name] for name in wanted} == dict.fromkeys(wanted, True)


# --- the paragraphs follow the numbers

Doctor = Callable[[dict[str, Any]], None]


def _exclusive_or_by_a_line(numbers: dict[str, Any]) -> None:
    numbers["exclusive_or"]["networks"][0]["accuracy"] = 0.99


def _wrong_derivative(numbers: dict[str, Any]) -> None:
    numbers["families"]["tanh"][0]["difference_error"] = 0.3


def _naive_survives(numbers: dict[str, Any]) -> None:
    numbers["overflow"]["naive"] = numbers["overflow"]["library"]


def _penalty_of_lambda_w(numbers: dict[str, Any]) -> None:
    numbers["penalty"] |= {"factor": 1.0, "factor_error": 1.0}


def _noise_does_not_fall(numbers: dict[str, Any]) -> None:
    numbers["noise"]["exponent"] = -0.1


def _templates_mixed_up(numbers: dict[str, Any]) -> None:
    numbers["best_match"] = [1, 0, 2, 3, 4, 5, 6, 7, 8, 9]


def _small_model_wins(numbers: dict[str, Any]) -> None:
    for number, trial in enumerate(numbers["trials"]):
        trial["small"]["test"], trial["big_with_l2"]["test"] = 0.1 + 0.001 * number, 0.2 + 0.002 * number


def _depth_does_not_help(numbers: dict[str, Any]) -> None:
    for network in numbers["spirals"]["networks"]:
        network["accuracy"] = 0.6


def _two_layers_are_enough(numbers: dict[str, Any]) -> None:
    for network in numbers["spirals"]["networks"]:
        network["accuracy"] = 0.99


def _wrong_exclusive_or(numbers: dict[str, Any]) -> None:
    numbers["exclusive_or"]["networks"][1]["accuracy"] = 0.8


def _narrower_is_better(numbers: dict[str, Any]) -> None:
    numbers["by_width"][0]["accuracies"] = [[0.7], [0.9], [0.8], [0.95]]


def _library_is_off(numbers: dict[str, Any]) -> None:
    numbers["overflow"]["library"][1] *= 1.01


def _large_batches_are_better(numbers: dict[str, Any]) -> None:
    for number, run in enumerate(numbers["runs"]):
        run["by_updates"] = {"updates": [0, 100 // 3**number], "losses": [2.0, 0.1]}


def _never_learns(numbers: dict[str, Any]) -> None:
    for run in numbers["runs"]:
        run["by_updates"]["losses"] = [2.0] * len(run["by_updates"]["updates"])


def _wide_fits_no_better(numbers: dict[str, Any]) -> None:
    for entry in numbers["by_width"][0]:
        entry |= {"train_error": 0.15, "test_error": 0.16}


def test_similar_updates_are_told() -> None:
    numbers = mini_batches.measure(QUICK)
    for run in numbers["runs"]:
        run["by_updates"] = {"updates": [0, 100 + run["batch"]], "losses": [2.0, 0.1]}
    assert mini_batches.claims(numbers)["batches_need_similar_updates"]
    told = mini_batches.describe(numbers)
    assert "about 101, 104, 116 and 164 of them bring a loss of 0.3 with batches of 1, 4, 16 and 64" in told
    assert "within a factor of 1.6, although one of 64 examples costs 64 times one of 1." in told


@pytest.mark.parametrize(
    ("module", "doctor", "said"),
    [
        (layers, _depth_does_not_help, "Here depth does not make the boundary follow the spirals"),
        (layers, _two_layers_are_enough, "With these weights 2 layers follow the spirals already"),
        (layers, _wrong_exclusive_or, "80%, which is less than it should"),
        (layers, _narrower_is_better, "here wider is not better at every depth"),
        (softmax_loss, _library_is_off, "the library's loss is not log(1 + exp(a)) for all"),
        (mini_batches, _large_batches_are_better, "about 100, 33, 11 and 3 of them bring a loss of 0.3 with batches"),
        (mini_batches, _never_learns, "no batch size comes to a loss of 0.3. "),
        (capacity, _wide_fits_no_better, "of new ones: here many nodes fit no better. "),
        (linear_scores, _templates_mixed_up, "mean images, 8 get their highest score"),
        (layers, _exclusive_or_by_a_line, "although no straight line should"),
        (activations, _wrong_derivative, "do not agree with central differences"),
        (softmax_loss, _naive_survives, "does without the shift"),
        (softmax_loss, _penalty_of_lambda_w, "1.00 lambda W"),
        (mini_batches, _noise_does_not_fall, "where a mean's standard error falls with -1/2"),
        (capacity, _small_model_wins, "against the lecture's advice"),
    ],
)
def test_paragraphs_follow_the_numbers(module: Any, doctor: Doctor, said: str, quick_numbers: dict[str, Any]) -> None:
    numbers = copy.deepcopy(quick_numbers[experiment_of(module).name])
    doctor(numbers)
    assert said in experiment_of(module).describe(numbers)


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
    assert plane.rounded([[123456.0, 1.23456e-7], [0.0, -2.0]], 3) == [[123000.0, 1.23e-7], [0.0, -2.0]]
