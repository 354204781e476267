"""The experiments of L18 to L21: what they claim holds, and what they say follows from the numbers."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from gpunet.lecture.catalogue import find_experiment
from gpunet.lecture.deep_network import last_over_first, measure_initializers, spread_of
from gpunet.lecture.experiment import Settings
from gpunet.lecture.experiments import initial_bias, initialization, initializers, relu_initialization
from tests.helpers.experiments import experiment_of

MODULES = {
    "L18": initial_bias,
    "L19": initialization,
    "L20": relu_initialization,
    "L21": initializers,
}


@pytest.fixture(scope="module")
def quick():
    """The numbers of a quick run of each."""
    return {row: experiment_of(module).measure(Settings(quick=True)) for row, module in MODULES.items()}


@pytest.mark.parametrize("row", MODULES)
def test_numbers_are_json_and_one_seed_gives_one_run(row, quick):
    experiment = experiment_of(MODULES[row])
    assert experiment is find_experiment(row)
    text = json.dumps(quick[row], allow_nan=False)
    assert json.loads(text) == quick[row]
    assert json.dumps(experiment.measure(Settings(quick=True))) == text
    assert json.dumps(experiment.measure(Settings(seed=1, quick=True))) != text


@pytest.mark.parametrize("row", MODULES)
def test_the_paragraph_is_one_and_the_figure_is_labelled(row, quick):
    experiment = experiment_of(MODULES[row])
    for numbers in (quick[row], json.loads(json.dumps(quick[row]))):
        paragraph = experiment.describe(numbers)
        assert len(paragraph) > 200
        assert "\n" not in paragraph
        assert "  " not in paragraph
        assert all(type(shown) is bool for shown in MODULES[row].claims(numbers).values())
    pytest.importorskip("matplotlib")
    figure = experiment.draw(quick[row])
    figure.draw_without_rendering()
    assert all(axes.get_xlabel() for axes in figure.axes)
    assert all(axes.get_ylabel() for axes in figure.axes if axes.lines)
    assert figure.get_suptitle()


def test_the_claims_of_l19_hold_at_the_lectures_width_and_say_where_the_lecture_does_not():
    numbers = measure_initializers(Settings(), "tanh", initialization.INITIALIZERS, rows=100, seeds=1)
    assert initialization.claims(numbers) == {
        "zeros_stay": True,
        "small_fade": True,
        "large_saturate": True,
        "large_gradients_fade": False,
        "large_gradients_grow": True,
        "xavier_stays": True,
    }


def test_the_growth_of_gradients_through_saturated_layers_is_what_theory_gives():
    """With N(0, 1) weights: E tanh'(s)^2 over s ~ N(0, 500), times 500, is the factor of the mean square per layer."""
    numbers = measure_initializers(Settings(), "tanh", {"N(0, 1)": "normal(1)"}, rows=100, seeds=1)
    s = np.linspace(-20, 20, 40_001)
    density = np.exp(-(s**2) / 1000) / np.sqrt(2 * np.pi * 500)
    factor = np.sqrt(500 * np.trapezoid(np.cosh(s) ** -4 * density, s))
    found = (1 / last_over_first(numbers["initializers"]["N(0, 1)"]["gradient"])) ** (1 / 9)
    assert found == pytest.approx(factor, rel=0.05)


def test_the_claims_of_l20_hold_at_the_lectures_width():
    numbers = measure_initializers(Settings(seed=3), "relu", relu_initialization.INITIALIZERS, rows=100, seeds=1)
    assert all(relu_initialization.claims(numbers).values())
    xavier = numbers["initializers"]["Xavier"]["std"]
    assert last_over_first(xavier) ** (1 / 9) == pytest.approx(np.sqrt(0.5), rel=0.05)


def test_the_claims_of_l21_hold_at_a_smaller_size():
    """Layers as in the lecture; the training is left to the full run and to doctored numbers."""
    numbers = {
        name: measure_initializers(
            Settings(), name, initializers._named(name), initializers.FROM_DATA, rows=300, seeds=1
        )["initializers"]
        for name in initializers.ACTIVATIONS
    }
    losses = {name: [0.5] for name in initializers.INITIALIZERS}
    numbers["training"] = {"losses": {"tanh": losses, "relu": losses | {initializers.GLOROT: [2.3]}}}
    assert all(initializers.claims(numbers).values())
    numbers["training"]["losses"]["relu"][initializers.HE] = [None]
    assert not initializers.claims(numbers)["faded_learns_least"]


def test_the_claims_of_l18_hold(monkeypatch):
    """One seed of the three."""
    monkeypatch.setattr(initial_bias, "SEEDS", 1)
    numbers = experiment_of(initial_bias).measure(Settings())
    assert numbers["seeds"] == 1
    assert all(initial_bias.claims(numbers).values())


def changed(numbers, *path, value):
    """Return a copy of the numbers with one of them replaced."""
    doctored = copy.deepcopy(numbers)
    place = doctored
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return doctored


def test_what_l18_says_follows_the_numbers(quick):
    numbers = quick["L18"]
    for name, loss in (("0", 1.0), ("0.1", 0.5)):
        numbers = changed(numbers, "runs", name, 0, "losses", value=[loss])
    assert "slightly positive bias helps there" in experiment_of(initial_bias).describe(numbers)
    numbers = changed(numbers, "runs", "0.1", 0, "losses", value=[0.99])
    assert "slightly positive bias does not clearly help there" in experiment_of(initial_bias).describe(numbers)
    numbers = changed(numbers, "runs", "0.1", 0, "losses", value=[None])
    assert not initial_bias.claims(numbers)["positive_helps"]
    for share, protects in ((0.5, "does not protect"), (0.1, "protects")):
        numbers = changed(numbers, "runs", "0.1", -1, "dead_after", value=share)
        assert f"a bias of 0.1 {protects} against" in experiment_of(initial_bias).describe(numbers)
    for share, text in ((0.4, "The learning rate kills too"), (0.1, "does not show a clear effect")):
        numbers = changed(numbers, "runs", "0", -1, "dead_after", value=share)
        numbers = changed(numbers, "runs", "0", -2, "dead_after", value=0.0)
        assert text in experiment_of(initial_bias).describe(numbers)
    for share, text in ((0.9, "nothing is learnt at any learning rate"), (0.2, "20% of the hidden units are dead")):
        numbers = changed(numbers, "runs", "-1", 0, "dead_before", value=share)
        for run in range(3):
            numbers = changed(numbers, "runs", "-1", run, "losses", value=[2.3])
        assert text in experiment_of(initial_bias).describe(numbers)


def test_what_l19_says_follows_the_numbers(quick):
    numbers = quick["L19"]
    flat, rising, falling = [0.5] * 10, list(np.logspace(-5, 0, 10)), list(np.logspace(0, -5, 10))

    def told(name, **lists):
        found = {**numbers["initializers"][name], **lists}
        return experiment_of(initialization).describe(changed(numbers, "initializers", name, value=found))

    assert "0.01²) both fade:" in told(initialization.SMALL, std=falling, gradient=rising)
    assert "0.01²) both do not both fade:" in told(initialization.SMALL, std=falling, gradient=flat)
    assert "almost all units saturate" in told(initialization.LARGE, saturated=[0.9] * 10)
    assert "most units do not saturate" in told(initialization.LARGE, saturated=[0.9] * 9 + [0.1])
    assert "the gradients fade to 1.0e-05" in told(initialization.LARGE, gradient=rising)
    assert "do not vanish but grow by a factor of 1.0e+05" in told(initialization.LARGE, gradient=falling)
    assert "the gradients change by a factor of 1.0e+00" in told(initialization.LARGE, gradient=flat)
    assert "both stay homogeneous" in told(initialization.XAVIER, std=flat, gradient=flat)
    assert "both do not stay homogeneous" in told(initialization.XAVIER, std=falling, gradient=flat)
    assert "do not stay 0" in told(initialization.ZEROS, std=flat)


def test_what_l20_says_follows_the_numbers(quick):
    numbers = quick["L20"]
    flat, rising, falling = [0.5] * 10, list(np.logspace(-2, 0, 10)), list(np.logspace(0, -2, 10))

    def told(name, **lists):
        found = {**numbers["initializers"][name], **lists}
        return experiment_of(relu_initialization).describe(changed(numbers, "initializers", name, value=found))

    assert "Xavier's weights let both fade" in told("Xavier", std=falling, gradient=rising)
    assert "Xavier's weights do not let both fade" in told("Xavier", std=flat, gradient=rising)
    assert "He's, with twice the variance, keep both" in told("He", std=flat, gradient=flat)
    assert "He's do not keep both" in told("He", std=falling, gradient=flat)
    assert "30% are 0 for every input with Xavier's weights" in told("Xavier", dead=[0.3] * 10)


def test_what_l21_says_follows_the_numbers(quick):
    numbers = dict(quick["L21"])
    flat, falling = [0.5] * 10, list(np.logspace(0, -3, 10))
    keeping = {"std": flat, "gradient": flat, "saturated": flat, "dead": [0.1] * 10}
    fading = keeping | {"std": falling, "gradient": falling[::-1]}
    numbers["tanh"] = {name: dict(keeping) for name in initializers.INITIALIZERS}
    numbers["relu"] = {name: dict(keeping) for name in initializers.INITIALIZERS} | {initializers.GLOROT: fading}
    text = experiment_of(initializers).describe(numbers)
    assert "with tanh all six keep" in text
    assert "He's and Mishkin's keep them" in text
    assert "standard deviation go to 0.001" in text
    assert "centre every unit" not in text
    alive = changed(numbers, "relu", initializers.KRAEHENBUEHL, "dead", value=[0.0] * 10)
    assert "centre every unit on the data, 0% of its units" in experiment_of(initializers).describe(alive)
    text = experiment_of(initializers).describe(changed(numbers, "relu", initializers.SAXE, value=fading))
    assert "not all of the others keep them" in text
    assert "not all six keep" in experiment_of(initializers).describe(
        changed(numbers, "tanh", initializers.HE, value=fading)
    )
    assert "do not fade either" in experiment_of(initializers).describe(
        changed(numbers, "relu", initializers.GLOROT, value=keeping)
    )
    for loss, told in ((2.3, "has learnt least by far"), (0.1, "none is far behind")):
        losses = {name: [0.2] for name in initializers.INITIALIZERS} | {initializers.GLOROT: [loss]}
        assert told in experiment_of(initializers).describe(
            changed(numbers, "training", "losses", "relu", value=losses)
        )


def test_ratios():
    assert last_over_first([2.0, 5.0, 1.0]) == 0.5
    assert last_over_first([0.0, 0.0]) == 0
    assert spread_of([2.0, 8.0, 1.0]) == 8
    assert spread_of([0.0, 1.0]) == np.inf
