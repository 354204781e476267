"""The experiments of the learning rules (L9 to L12): claims, and the numbers that decide them."""

from __future__ import annotations

import copy

import pytest

from gpunet.lecture.experiment import Settings
from gpunet.lecture.experiments import adaline, delta_rule, madaline, perceptron
from tests.helpers.experiments import (
    QUICK,
    assert_all_hold,
    assert_figure,
    assert_one_paragraph,
    changed,
    experiment_of,
    held,
)

MODULES = {"L9": perceptron, "L10": adaline, "L11": madaline, "L12": delta_rule}


@pytest.fixture(scope="module")
def full():
    """Numbers of full size, the slowest parts (parities and seeds that add nothing to the claims) made fewer."""
    settings = Settings()
    numbers = {"L9": perceptron.measure(settings), "L10": adaline.measure(settings)}
    parity = {
        str(k): [madaline._parity(settings, k, run, madaline.TRAINING_ROWS, epochs) for run in range(2)]
        for k, epochs in ((1, 40), (2, 40), (3, 40), (4, 5))
    }
    numbers["L11"] = {**madaline.measure(QUICK), "xor": madaline._xor(settings), "parity": parity}
    numbers["L12"] = {
        "xor": delta_rule._xor(settings, seeds=8, epochs=350),
        "encoder": delta_rule._encoder(settings, epochs=1500),
        # The paper's own solution, in place of 600 epochs on 64 patterns.
        "symmetry": {
            "weights": [[1.0, 2.0, 4.0, -4.0, -2.0, -1.0], [-1.1, -2.1, -4.0, 4.0, 2.0, 1.0]],
            "epochs": 1425,
            "attempts": 1,
            "accuracy": 1.0,
        },
    }
    return numbers


@pytest.mark.parametrize("row", MODULES)
def test_claims_paragraph_and_figure_at_full_size(row, full):
    assert_all_hold(MODULES[row], full[row])
    assert_one_paragraph(experiment_of(MODULES[row]).describe(full[row]))
    assert_figure(experiment_of(MODULES[row]), full[row])


LOW_AVERAGES = [[0.5, 0.9, 0.5]] * 3
FLAT = [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]] * 2

CASES = [
    ("L9", ("path", "accuracy"), 0.9, "separates"),
    ("L9", ("path", "gradient_error"), 0.5, "descends_the_loss"),
    ("L9", ("path", "losses"), [0.5, 0.1], "descends_the_loss"),
    ("L9", ("bound", 0, "mistakes"), 1e9, "within_bound"),
    ("L9", ("overlapping", "averaged"), LOW_AVERAGES, "averaging_helps"),
    ("L9", ("overlapping", "averaged"), LOW_AVERAGES, "averaging_steadies"),
    ("L10", ("sweep", 0, "measured"), 1.5, "bound_decides"),
    ("L10", ("sweep", 0, "measured"), 0.5, "as_told"),
    ("L10", ("sweep", 0, "refused"), True, "refused"),
    ("L10", ("single", "0.5"), [1e-9] * 8, "single_examples_stay_off"),
    ("L11", ("xor", "accuracy", "Madaline"), 0.75, "xor_learnt"),
    ("L11", ("xor", "accuracy", "ADALINE"), 1.0, "xor_needs_two_lines"),
    ("L11", ("parity", "1", 0, "ADALINE"), 0.7, "one_line_learnt"),
    ("L11", ("parity", "3", 0, "Madaline"), 0.7, "parity_of_three_learnt"),
    ("L11", ("parity", "3", 0, "ADALINE"), 0.95, "adaline_guesses"),
    ("L11", ("parity", "3", 0, "errors"), [0.5, *[0.3] * 9, 0.0], "sudden"),
    ("L11", ("parity", "4", 1, "Madaline"), 0.9, "parity_of_four_is_too_hard"),
    ("L12", ("encoder", "right"), 7, "encoder_learnt"),
    ("L12", ("encoder", "codes"), [[0.0, 1.0, 0.5]] * 8, "codes_differ"),
    ("L12", ("symmetry", "accuracy"), 0.875, "symmetry_learnt"),
    ("L12", ("symmetry", "weights"), FLAT, "antisymmetric"),
    ("L12", ("symmetry", "weights"), [[1, 1, 1, -1, -1, -1]] * 2, "distinct_sizes"),
]


@pytest.mark.parametrize(("row", "path", "value", "lost"), CASES)
def test_a_claim_is_lost_with_its_numbers(row, path, value, lost, full):
    assert held(MODULES[row], changed(full[row], *path, value=value))[lost] is False


def test_claims_that_no_single_number_decides(full):
    even = copy.deepcopy(full["L9"])
    for run in even["bound"]:
        run["mistakes"] = 5
    assert held(perceptron, even)["small_margins_cost"] is False
    for learnt, lost in ((True, "some_stuck"), (False, "most_learn")):
        same = copy.deepcopy(full["L12"])
        for run in same["xor"]["runs"]:
            run["learnt"] = learnt
        assert_all_hold(delta_rule, same, lost)
