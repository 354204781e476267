"""What holds for every experiment: numbers that repeat, a paragraph and a figure that follow from them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpunet.lecture.catalogue import EXPERIMENTS
from gpunet.lecture.experiment import Experiment, Settings
from tests.helpers.experiments import QUICK, assert_figure, assert_one_paragraph, quick_numbers

each = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
# Whose numbers are of functions, not of anything drawn.
WITHOUT_SEED = ("activations", "activation-cost")


def _untimed(experiment: Experiment, numbers: Any) -> str:
    """Return the numbers that repeat, as JSON has them."""
    kept = {key: value for key, value in numbers.items() if not (experiment.is_timed and key == "measured")}
    return json.dumps(kept, allow_nan=False)


@each
def test_one_seed_gives_one_set_of_numbers_that_json_can_hold(experiment: Experiment) -> None:
    numbers = experiment.measure(QUICK)
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert _untimed(experiment, numbers) == _untimed(experiment, quick_numbers(experiment))


@each
def test_another_seed_gives_other_numbers(experiment: Experiment) -> None:
    other = experiment.measure(Settings(seed=4, quick=True))
    same = _untimed(experiment, other) == _untimed(experiment, quick_numbers(experiment))
    assert same == (experiment.name in WITHOUT_SEED)


@each
def test_paragraph_and_figure_follow_from_the_numbers(experiment: Experiment) -> None:
    numbers = quick_numbers(experiment)
    told = experiment.describe(numbers)
    assert_one_paragraph(told)
    for claim in experiment.steps.claims(numbers).values():
        assert type(claim.holds) is bool
        assert not claim.sentence.endswith(".")
        assert claim.sentence in told
        assert f"({claim.numbers})." in told
    assert_figure(experiment, numbers)
