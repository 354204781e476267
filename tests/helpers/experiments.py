"""What the tests of the lecture's experiments share."""

from __future__ import annotations

import copy
import json
from typing import Any

from gpunet.lecture.catalogue import find_experiment
from gpunet.lecture.experiment import Experiment, Settings

QUICK = Settings(seed=3, quick=True)


def experiment_of(module: Any) -> Experiment:
    """Return the experiment whose steps a module has."""
    return find_experiment(module.__name__.rpartition(".")[2])


def quick_numbers(experiment: Experiment) -> dict[str, Any]:
    """Run an experiment at its small size; what comes back went through JSON."""
    return json.loads(json.dumps(experiment.measure(QUICK), allow_nan=False))


def assert_repeats(experiment: Experiment, numbers: dict[str, Any], timed: tuple[str, ...] = ()) -> None:
    """The same seed gives the same numbers, but for those under the keys ``timed``."""
    again = quick_numbers(experiment)
    assert again.keys() == numbers.keys()
    assert {key: again[key] for key in again if key not in timed} == {
        key: numbers[key] for key in numbers if key not in timed
    }


def assert_one_paragraph(text: str) -> None:
    assert text.strip() == text
    assert len(text) > 200
    assert not {"\n", "{", "}"} & set(text)
    assert "nan" not in text.lower().replace("nanosecond", "")


def assert_figure(experiment: Experiment, numbers: dict[str, Any]) -> None:
    """Every panel has something in it, and both axes say what they are."""
    figure = experiment.draw(numbers)
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert panels
    for axes in panels:
        assert axes.has_data()
        assert axes.get_xlabel()
        assert axes.get_ylabel() or any(tick.get_text().strip() for tick in axes.get_yticklabels())
    figure.draw_without_rendering()


def changed(numbers: dict[str, Any], *path: Any, value: Any) -> dict[str, Any]:
    """Return a copy of the numbers with one of them replaced."""
    copied = copy.deepcopy(numbers)
    place = copied
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copied
