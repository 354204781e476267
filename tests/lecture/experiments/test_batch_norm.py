"""L22 to L25: batch norm's distributions, test time, gradient and benefits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.lecture.derivations import batch_norm as derivation
from gpunet.lecture.digits import split_digits
from gpunet.lecture.experiment import Settings
from gpunet.lecture.experiments import batch_norm, batch_norm_benefits, batch_norm_gradient
from gpunet.lecture.experiments import test_time as at_test_time  # a name that pytest would not take for a test
from tests.helpers.experiments import assert_all_hold, changed, experiment_of
from tests.helpers.networks import pre_activations, randomise

Numbers = dict[str, Any]
Full = dict[Any, Numbers]


def _map(*rows: str) -> list[list[float | None]]:
    """Return the cells of a map: ``#`` learns, ``.`` stays at chance, ``x`` diverged."""
    return [[{"#": 0.9, ".": 0.1, "x": None}[cell] for cell in row] for row in rows]


def _benefits() -> Numbers:
    """Numbers by hand: depths 2, 10 and 50, four learning rates from 0.01 to 10, two initialisations."""
    accuracies = {
        kind: [[0.80 + gain, 0.82 + gain, 0.85 + gain], [0.9, 0.91, 0.92]]
        for kind, gain in (("without", 0.0), ("with", 0.03))
    }
    accuracies["with"][0][0] += 0.01
    return {
        "depths": [2, 10, 50],
        "learning_rates": [0.01, 0.1, 1.0, 10.0],
        "initializers": ["he_normal", "normal(1)"],
        "epochs": 10,
        "steps": 100,
        "width": 50,
        "rows": 1280,
        "gradient_growth": 1.21,
        "grid": {
            "without": {"he_normal": _map(".##x", ".#xx", "...x"), "normal(1)": _map("..#x", "xxxx", "xxxx")},
            "with": {"he_normal": _map("####", ".###", "...."), "normal(1)": _map("###.", "###.", "....")},
        },
        "regularisation": {
            "rows": 200,
            "epochs": 40,
            "seeds": 3,
            "learning_rate": 0.2,
            "batch_sizes": [4, 100],
            "test_accuracy": accuracies,
            "noise": [0.5, 0.1],
        },
    }


@pytest.fixture(scope="module")
def full() -> Full:
    measured = {module: module.measure(Settings()) for module in (batch_norm, at_test_time, batch_norm_gradient)}
    return measured | {batch_norm_benefits: _benefits()}


@pytest.fixture
def benefits(full: Full) -> Numbers:
    return full[batch_norm_benefits]


# What is changed, and the claim that then no longer holds.
CASES: list[tuple[Any, tuple[Any, ...], Any, str]] = [
    (batch_norm, ("variants", "normalised", "largest_mean"), 0.3, "normalised_is_unit"),
    (batch_norm, ("variants", "without", "drift"), [0.0, 0.02], "drifts_without"),
    (batch_norm, ("variants", "scaled and shifted", "gamma"), [[1.0, 1.001]], "scale_is_used"),
    (batch_norm, ("variants", "scaled and shifted", "drift"), [0.0, 99.0], "drifts_less"),
    (batch_norm, ("variants", "normalised", "loss"), [9.0] * 20, "learns_faster"),
    (at_test_time, ("settling", "0.1", "settled_gap"), 0.5, "averages_settle"),
    (at_test_time, ("modes", "alone_difference"), 0.5, "rows_are_independent"),
    (at_test_time, ("modes", "mixed"), [0.95] * 8, "small_batches_hurt"),
    (at_test_time, ("modes", "one_class"), [0.1, 0.95], "one_class_hurts"),
    (at_test_time, ("training", "1", "loss"), [1.0], "momentum_is_only_averages"),
    (batch_norm_gradient, ("errors", "fused operation"), 1e-3, "terms_agree"),
    (batch_norm_gradient, ("sums", "all three terms"), 1e-3, "sums_vanish"),
    (batch_norm_gradient, ("shares", "all three terms"), 0.1, "no_radial_part"),
    (batch_norm_gradient, ("descent", "all three terms", "bias"), [0.0, 3.0], "true_gradient_stays"),
    (batch_norm_gradient, ("descent", "mean term dropped", "bias"), [0.0, 0.0], "mean_term_holds_bias"),
    (batch_norm_gradient, ("descent", "variance term dropped", "log_scale"), [0.0, 0.0], "variance_term_holds_scale"),
    (batch_norm_benefits, ("grid", "with", "he_normal", 2), [0.9] * 4, "depth_has_a_limit"),
    (batch_norm_benefits, ("regularisation", "noise"), [0.1, 0.1], "noise_falls"),
    # Worse on test rows is no regularisation.
    (batch_norm_benefits, ("regularisation", "test_accuracy", "with", 1), [0.80, 0.81, 0.83], "regularises"),
]


@pytest.mark.parametrize(("module", "path", "value", "lost"), CASES)
def test_every_claim_holds_and_one_is_lost_with_its_numbers(
    module: Any, path: tuple[Any, ...], value: Any, lost: str, full: Full
) -> None:
    # Lagging averages cost less than 5 points on this task.
    never = ("slow_averages_hurt",) if module is at_test_time else ()
    assert_all_hold(module, full[module], *never)
    assert_all_hold(module, changed(full[module], *path, value=value), lost, *never)


# --- L22 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", batch_norm.VARIANTS.values(), ids=list(batch_norm.VARIANTS))
def test_activation_inputs_are_those_of_the_textbook(arguments: dict[str, Any]) -> None:
    network = gpunet.Network([5, 8, 6, 3], dtype="float64", device="cpu", **arguments)
    randomise(network)
    X = np.random.default_rng(1).standard_normal((17, 5))
    averages = network.get_state()
    found = batch_norm.activation_inputs(network, X)
    for scores, expected in zip(found, pre_activations(network, X), strict=True):
        np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-12)
    for name, average in network.get_state().items():
        np.testing.assert_array_equal(average, averages[name])


def test_scale_and_shift_put_the_units_at_beta_and_gamma(full: Full) -> None:
    # mean = beta, standard deviation = gamma sqrt(v / (v + epsilon)): the network's own choice, not the data's.
    variants = full[batch_norm]["variants"]
    variant = variants["scaled and shifted"]
    betas = [abs(beta) for layer in variant["beta"] for beta in layer]
    assert max(betas) <= variant["largest_mean"] + 1e-6
    deviations = variant["deviation_of_layers"][-1]
    assert deviations == pytest.approx([np.median(np.abs(gamma)) for gamma in variant["gamma"]], rel=0.01)
    assert not variants["normalised"]["gamma"]


# --- L23 --------------------------------------------------------------------------------------------------------------


def test_batch_statistics_are_those_of_the_scores() -> None:
    network = gpunet.Network([5, 8, 6, 3], dtype="float64", device="cpu")
    X = np.random.default_rng(1).standard_normal((17, 5))
    (mean, variance), (mean_2, _) = at_test_time.batch_statistics(network, X)
    scores = X @ network.get_parameters()["W1"].T
    np.testing.assert_allclose(mean, scores.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(variance, scores.var(axis=0, ddof=1), rtol=1e-12)
    assert mean_2.shape == (6,)
    assert (network.get_state()["running_mean1"] == 0).all()


@pytest.mark.parametrize("momentum", [0.01, 0.1, 0.5])
def test_running_mean_closes_in_by_the_momentum(full: Full, momentum: float) -> None:
    # The gap shrinks by 1 - momentum a step; 5 % for the noise, which is much smaller that early.
    gap = full[at_test_time]["settling"][f"{momentum:g}"]["mean_gap"]
    assert gap[1] / gap[0] == pytest.approx(1 - momentum, rel=0.05)


def test_wrong_mode_loses_its_noise_with_the_batch_size(full: Full) -> None:
    modes = full[at_test_time]["modes"]
    assert modes["spread"][-1] < modes["spread"][0] / 4
    assert modes["mixed"][-1] > modes["mixed"][0] + 0.2
    assert modes["mixed"][-1] == pytest.approx(modes["accuracy"], abs=0.03)


# --- L24 --------------------------------------------------------------------------------------------------------------


def test_each_term_is_the_derivative_along_its_path() -> None:
    # J = sum_i c_i shat_i with the other nodes held fixed.
    generator = np.random.default_rng(2)
    S, c, epsilon, step = generator.standard_normal((5, 2)) + 1, generator.standard_normal((5, 2)), 1e-2, 1e-6
    mean, variance = S.mean(axis=0), S.var(axis=0)

    def cost(own: Any, mu: Any, v: Any) -> float:
        return float(np.sum(c * (own - mu) / np.sqrt(v + epsilon)))

    terms = derivation.three_terms(c, S, epsilon)
    for place in np.ndindex(S.shape):
        above, below = S.copy(), S.copy()
        above[place] += step
        below[place] -= step
        # v_b with mu_b fixed: what the lecture's dv_b/ds_i holds.
        variances = [np.mean((moved - mean) ** 2, axis=0) for moved in (above, below)]
        differences = (
            cost(above, mean, variance) - cost(below, mean, variance),
            cost(S, mean, variances[0]) - cost(S, mean, variances[1]),
            cost(S, above.mean(axis=0), variance) - cost(S, below.mean(axis=0), variance),
        )
        for term, difference in zip(terms, differences, strict=True):
            assert term[place] == pytest.approx(difference / (2 * step), abs=1e-8)


def test_dropping_a_term_shows(full: Full) -> None:
    gradient = full[batch_norm_gradient]
    # Scaling a batch is worth epsilon / v of the gradient, shifting it nothing.
    assert gradient["sums"]["mean term dropped"] > 0.1
    assert gradient["shares"]["variance term dropped"] > 0.1
    assert gradient["sums"]["variance term dropped"] < 1e-12
    assert gradient["wrong"]["both dropped"] > 0.1
    bias = gradient["descent"]["mean term dropped"]["bias"]
    # J does not change, up to epsilon, and nor does its gradient: the bias walks off in equal steps.
    np.testing.assert_allclose(np.diff(bias), bias[1], rtol=100 * batch_norm_gradient.EPSILON)


# --- L25 --------------------------------------------------------------------------------------------------------------


def test_what_cells_count(benefits: Numbers) -> None:
    without, with_it = (batch_norm_benefits.reach(benefits, kind) for kind in ("without", "with"))
    assert without["share"] == 4 / 24
    assert with_it["share"] == 13 / 24
    assert (without["deepest"], with_it["deepest"]) == (10, 10)
    assert without["deep_share"] == 1 / 16
    assert with_it["deep_share"] == 6 / 16
    assert without["high_rate_share"] == 2 / 12
    assert with_it["high_rate_share"] == 6 / 12
    # Decades, mean over the six rows of the two maps.
    assert without["rate_range"] == pytest.approx(1 / 6)
    assert with_it["rate_range"] == pytest.approx((3 + 2 + 2 + 2) / 6)
    # All four rates learn somewhere at depths 2 and 10, at 50 none: 8 columns, two initialisations each.
    assert without["initializer_share"] == 4 / 16
    assert with_it["initializer_share"] == 13 / 16


def test_squares_that_learn_and_that_diverge_are_told(benefits: Numbers) -> None:
    told = experiment_of(batch_norm_benefits).describe(benefits)
    assert "17% of the squares learn without batch norm and 54% with it" in told
    assert "13 without and 0 with" in told


def test_accuracy_difference_is_paired_over_the_seeds(benefits: Numbers) -> None:
    (first, error), (second, none) = batch_norm_benefits.accuracy_difference(benefits)
    assert first == pytest.approx((0.04 + 0.03 + 0.03) / 3)
    assert error == pytest.approx(0.01 / math.sqrt(3) / math.sqrt(3))
    assert (second, none) == (0, 0)


def test_equal_maps_have_no_benefit(benefits: Numbers) -> None:
    doctored = changed(benefits, "grid", "with", value=benefits["grid"]["without"])
    assert_all_hold(batch_norm_benefits, doctored, "deeper", "higher_rates", "less_initialisation")


def test_cells_of_the_grid() -> None:
    # Three that the full run decides: too small, too large and right initial weights for five layers.
    digits = split_digits(0)

    def network(initializer: str, uses: bool) -> gpunet.Network:
        return batch_norm_benefits._network(Settings(), 5, 50, initializer=initializer, batch_norm=uses)

    accuracy = {
        (initializer, uses): batch_norm_benefits.cell_accuracy(digits, network(initializer, uses), 0.3, 10)
        for initializer in ("normal(0.01)", "normal(1)", "he_normal")
        for uses in (False, True)
    }
    learnt = {key: (value or 0) >= batch_norm_benefits.LEARNS for key, value in accuracy.items()}
    assert learnt == {key: key[1] or key[0] == "he_normal" for key in accuracy}
    assert accuracy["normal(1)", False] is None


def test_gradients_grow_with_depth_as_theory_says() -> None:
    growth = batch_norm_benefits.gradient_growth(Settings(), split_digits(0, 500), 20, 100)
    assert growth == pytest.approx(math.sqrt(math.pi / (math.pi - 1)), abs=0.05)


def test_noise_of_a_score_is_that_of_the_batch_mean() -> None:
    network = gpunet.Network([64, 50, 10], device="cpu")
    X = split_digits(0, 1000).X
    for size in (16, 64):
        noise = batch_norm_benefits.batch_noise(network, X, size, seed=0)
        assert noise == pytest.approx(math.sqrt((1 - size / 1000) / size), rel=0.35)
