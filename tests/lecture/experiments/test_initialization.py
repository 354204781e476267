"""The experiments of L18 to L21: what they claim holds, and follows from the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.lecture.deep_network import last_over_first, measure_initializers, spread_of
from gpunet.lecture.experiment import Settings
from gpunet.lecture.experiments import initial_bias, initialization, initializers, relu_initialization
from tests.helpers.experiments import assert_all_hold, changed, experiment_of, quick_numbers


def test_the_claims_of_l19_hold_at_the_lectures_width_and_where_the_lectures_do_not():
    numbers = measure_initializers(Settings(), "tanh", initialization.INITIALIZERS, rows=100, seeds=1)
    assert_all_hold(initialization, numbers, "large_gradients_fade")


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
    assert_all_hold(relu_initialization, numbers)
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
    assert_all_hold(initializers, numbers)
    numbers["training"]["losses"]["relu"][initializers.HE] = [None]
    assert_all_hold(initializers, numbers, "faded_learns_least")


def test_the_claims_of_l18_hold(monkeypatch):
    """One seed of the three."""
    monkeypatch.setattr(initial_bias, "SEEDS", 1)
    numbers = initial_bias.measure(Settings())
    assert numbers["seeds"] == 1
    assert_all_hold(initial_bias, numbers)


FLAT, RISING, FALLING = [0.5] * 10, np.logspace(-5, 0, 10).tolist(), np.logspace(0, -5, 10).tolist()
KEEPING = {"std": FLAT, "gradient": FLAT, "saturated": [0.9] * 10, "dead": [0.1] * 10}
FADING = KEEPING | {"std": FALLING, "gradient": RISING}
NOTHING = KEEPING | {"std": [0.0] * 10, "gradient": [0.0] * 10}


def run(loss, dead_before=0.0, dead_after=0.0):
    return {"losses": [loss], "dead_before": dead_before, "dead_after": dead_after}


@pytest.fixture(scope="module")
def shown():
    """Numbers of the small size, with lists in place of what was measured that bear every claim out."""
    numbers = {module: quick_numbers(experiment_of(module)) for module in {case[0] for case in CASES}}
    numbers[initial_bias]["runs"] = {
        "-1": [run(2.3, dead_before=0.9)] * 3,
        "-0.1": [run(1.5)] * 3,
        "0": [run(1.0), run(0.1), run(2.0, dead_after=0.4)],
        "0.01": [run(0.95)] * 3,
        "0.1": [run(0.5), run(0.1), run(2.0, dead_after=0.5)],
    }
    numbers[initialization]["initializers"] = {
        initialization.ZEROS: NOTHING,
        initialization.SMALL: FADING,
        initialization.LARGE: KEEPING | {"gradient": FALLING},
        initialization.XAVIER: KEEPING,
    }
    numbers[relu_initialization]["initializers"] = {"Xavier": FADING, "He": KEEPING}
    numbers[initializers]["tanh"] = dict.fromkeys(initializers.INITIALIZERS, KEEPING)
    numbers[initializers]["relu"] = numbers[initializers]["tanh"] | {
        initializers.GLOROT: FADING,
        initializers.KRAEHENBUEHL: KEEPING | {"dead": [0.0] * 10},
    }
    losses = {name: [0.5] for name in initializers.INITIALIZERS}
    numbers[initializers]["training"]["losses"] = {"tanh": losses, "relu": losses | {initializers.GLOROT: [2.3]}}
    return numbers


CASES = [
    (initial_bias, ("runs", "0.1", 0, "losses"), [0.99], "positive_helps"),
    (initial_bias, ("runs", "0.1", 0, "losses"), [None], "positive_helps"),
    (initial_bias, ("runs", "0.01", 0, "losses"), [0.5], "hundredth_is_zero"),
    (initial_bias, ("runs", "-1", 0, "dead_before"), 0.2, "negative_kills"),
    (initial_bias, ("runs", "-1", 1, "losses"), [1.0], "negative_kills"),
    (initial_bias, ("runs", "0", -1, "dead_after"), 0.1, "rate_kills"),
    (initial_bias, ("runs", "0", -2, "dead_after"), 0.1, "rate_kills"),
    (initial_bias, ("runs", "0.1", -1, "dead_after"), 0.1, "bias_does_not_protect"),
    (initialization, ("initializers", initialization.ZEROS, "std"), FLAT, "zeros_stay"),
    (initialization, ("initializers", initialization.SMALL, "gradient"), FLAT, "small_fade"),
    (initialization, ("initializers", initialization.LARGE, "saturated", 9), 0.1, "large_saturate"),
    (initialization, ("initializers", initialization.XAVIER, "std"), FALLING, "xavier_stays"),
    (relu_initialization, ("initializers", "Xavier", "std"), FLAT, "xavier_fades"),
    (relu_initialization, ("initializers", "He", "std"), FALLING, "he_keeps"),
    (initializers, ("tanh", initializers.HE), FADING, "tanh_all_keep"),
    (initializers, ("relu", initializers.GLOROT), KEEPING, "relu_glorot_fades"),
    (initializers, ("relu", initializers.SAXE), FADING, "relu_others_keep"),
    (initializers, ("relu", initializers.KRAEHENBUEHL), KEEPING, "centring_revives"),
    (initializers, ("training", "losses", "relu", initializers.GLOROT), [0.1], "faded_learns_least"),
]


@pytest.mark.parametrize(("module", "path", "value", "lost"), CASES)
def test_a_claim_is_lost_with_its_numbers(module, path, value, lost, shown):
    never = ("large_gradients_fade",) if module is initialization else ()  # the lecture's, where they grow
    assert_all_hold(module, shown[module], *never)
    assert_all_hold(module, changed(shown[module], *path, value=value), lost, *never)


@pytest.mark.parametrize(
    ("gradients", "lost"),
    [
        (RISING, ("large_gradients_grow",)),
        (FALLING, ("large_gradients_fade",)),
        (FLAT, ("large_gradients_grow", "large_gradients_fade")),
    ],
)
def test_gradients_through_saturated_layers_fade_or_grow_or_neither(gradients, lost, shown):
    path = ("initializers", initialization.LARGE, "gradient")
    assert_all_hold(initialization, changed(shown[initialization], *path, value=gradients), *lost)


def test_ratios():
    assert last_over_first([2.0, 5.0, 1.0]) == 0.5
    assert last_over_first([0.0, 0.0]) == 0
    assert spread_of([2.0, 8.0, 1.0]) == 8
    assert spread_of([0.0, 1.0]) == np.inf
