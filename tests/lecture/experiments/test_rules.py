"""The experiments of the learning rules (L9 to L12): numbers, paragraphs that follow them, figures."""

from __future__ import annotations

import copy

import pytest

from gpunet.lecture.catalogue import find_experiment
from gpunet.lecture.experiment import Settings
from gpunet.lecture.experiments import adaline, delta_rule, madaline, perceptron
from tests.helpers.experiments import (
    QUICK,
    assert_figure,
    assert_one_paragraph,
    assert_repeats,
    changed,
    experiment_of,
    quick_numbers,
)

MODULES = {"L9": perceptron, "L10": adaline, "L11": madaline, "L12": delta_rule}


@pytest.fixture(scope="module")
def quick():
    return {row: quick_numbers(experiment_of(module)) for row, module in MODULES.items()}


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
def test_numbers_are_json_and_repeat(row, quick):
    experiment = experiment_of(MODULES[row])
    assert find_experiment(row) is experiment
    assert_repeats(experiment, quick[row])
    assert experiment.measure(Settings(quick=True, seed=1)) != quick[row]


@pytest.mark.parametrize("size", ["quick", "full"])
@pytest.mark.parametrize("row", MODULES)
def test_figures_have_named_axes(row, size, request):
    assert_figure(experiment_of(MODULES[row]), request.getfixturevalue(size)[row])


@pytest.mark.parametrize("row", MODULES)
def test_claims_hold(row, full):
    claims = MODULES[row].claims(full[row])
    assert all(isinstance(value, bool) for value in claims.values())
    assert claims == dict.fromkeys(claims, True)


@pytest.mark.parametrize("row", MODULES)
def test_paragraphs_are_one_paragraph(row, quick, full):
    for numbers in (quick[row], full[row]):
        assert_one_paragraph(experiment_of(MODULES[row]).describe(numbers))


LOW_AVERAGES = [[0.5, 0.9, 0.5]] * 3
FLAT = [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]] * 2

CASES = [
    ("L9", ("path", "accuracy"), 0.9, "separates", "does not end with every example right"),
    ("L9", ("path", "gradient_error"), 0.5, "descends_the_loss", "should be, but is not, a step of gradient descent"),
    ("L9", ("path", "losses"), [0.5, 0.1], "descends_the_loss", "should be, but is not, a step of gradient descent"),
    ("L9", ("bound", 0, "mistakes"), 1e9, "within_bound", "some run exceeds it"),
    ("L9", ("overlapping", "averaged"), LOW_AVERAGES, "averaging_helps", "is not clearly more accurate"),
    ("L9", ("overlapping", "averaged"), LOW_AVERAGES, "averaging_steadies", "not clearly steadier"),
    ("L10", ("sweep", 0, "measured"), 1.5, "bound_decides", "not where the bound says"),
    ("L10", ("sweep", 0, "measured"), 0.5, "as_told", "which is off"),
    ("L10", ("sweep", 0, "refused"), True, "refused", "fit does not refuse exactly"),
    ("L10", ("single", "0.5"), [1e-9] * 8, "single_examples_stay_off", "did not clearly end closer"),
    ("L11", ("xor", "accuracy", "Madaline"), 0.75, "xor_learnt", "does not learn all of them"),
    ("L11", ("xor", "accuracy", "ADALINE"), 1.0, "xor_needs_two_lines", "better than it should"),
    ("L11", ("parity", "1", 0, "ADALINE"), 0.7, "one_line_learnt", "yet not both learn it from every seed"),
    ("L11", ("parity", "3", 0, "Madaline"), 0.7, "parity_of_three_learnt", "does not learn it well from every seed"),
    ("L11", ("parity", "3", 0, "ADALINE"), 0.95, "adaline_guesses", "does better than guessing"),
    ("L11", ("parity", "3", 0, "errors"), [0.5, *[0.3] * 9, 0.0], "sudden", "fall step by step"),
    ("L11", ("parity", "4", 1, "Madaline"), 0.9, "parity_of_four_is_too_hard", "it learns at least in part"),
    ("L12", ("encoder", "right"), 7, "encoder_learnt", "has not found eight codes"),
    ("L12", ("encoder", "codes"), [[0.0, 1.0, 0.5]] * 8, "codes_differ", "has not found eight codes"),
    ("L12", ("symmetry", "accuracy"), 0.875, "symmetry_learnt", "88% of them are right"),
    ("L12", ("symmetry", "weights"), FLAT, "antisymmetric", "are not opposite"),
    ("L12", ("symmetry", "weights"), [[1, 1, 1, -1, -1, -1]] * 2, "distinct_sizes", "not clearly different"),
]


@pytest.mark.parametrize(("row", "path", "value", "claim", "text"), CASES)
def test_paragraphs_follow_the_numbers(row, path, value, claim, text, full):
    module = MODULES[row]
    other = changed(full[row], *path, value=value)
    assert module.claims(other)[claim] is False
    assert text in experiment_of(module).describe(other)
    assert text not in experiment_of(module).describe(full[row])


def test_paragraphs_follow_the_numbers_of_all_runs(full):
    """Claims that no single number decides."""
    even = copy.deepcopy(full["L9"])
    for run in even["bound"]:
        run["mistakes"] = 5
    assert perceptron.claims(even)["small_margins_cost"] is False
    assert "small margins cost few mistakes more" in experiment_of(perceptron).describe(even)

    for learnt, claim, text in ((True, "some_stuck", "none got stuck"), (False, "most_learn", "few of the seeds")):
        same = copy.deepcopy(full["L12"])
        for run in same["xor"]["runs"]:
            run["learnt"] = learnt
        assert delta_rule.claims(same)[claim] is False
        assert text in experiment_of(delta_rule).describe(same)
