"""What the tests of the lecture's experiments share."""

from __future__ import annotations

import copy
import functools
import json
import re
from typing import Any

from gpunet.lecture.catalogue import find_experiment
from gpunet.lecture.experiment import Experiment, Settings

QUICK = Settings(seed=3, quick=True)
PAGE_WIDTH = 11  # inches of a figure that a page of 800 pixels shows with its smallest type, 8 points, at 8 pixels
# What a figure sets as mathematics: w_1, x^T, ||W||, lambda, dJ/ds.
SYMBOLS = re.compile(r"\b[A-Za-z]_[A-Za-z0-9]\b|\^|\|\||\blambda\b|\bd[A-Za-z]/d[a-z]")


def experiment_of(module: Any) -> Experiment:
    """Return the experiment whose steps a module has."""
    return find_experiment(module.__name__.rpartition(".")[2])


@functools.cache
def _quick_text(row: str) -> str:
    return json.dumps(find_experiment(row).measure(QUICK), allow_nan=False)


def quick_numbers(experiment: Experiment) -> dict[str, Any]:
    """Return what an experiment finds at its small size, measured once; what comes back went through JSON."""
    numbers: dict[str, Any] = json.loads(_quick_text(experiment.row))
    return numbers


def held(module: Any, numbers: Any) -> dict[str, bool]:
    """Return which claims of an experiment hold."""
    return {name: claim.holds for name, claim in module.claims(numbers).items()}


def assert_all_hold(module: Any, numbers: Any, *but: str) -> None:
    """Every claim holds but those named, which do not."""
    found = held(module, numbers)
    assert {name for name, holds in found.items() if not holds} == set(but)


def assert_one_paragraph(text: str) -> None:
    assert text.strip() == text
    assert len(text) > 200
    assert not {"\n", "{", "}"} & set(text)
    assert "  " not in text
    assert "nan" not in text.lower().replace("nanosecond", "")


def assert_figure(experiment: Experiment, numbers: dict[str, Any]) -> None:
    """Every panel has something in it and says what, with axes and classes if it has any; symbols are typeset."""
    from matplotlib.legend import Legend
    from matplotlib.text import Text

    figure = experiment.draw(numbers)
    assert figure.get_suptitle() == experiment.title
    if experiment.is_documented:
        assert figure.get_figwidth() <= PAGE_WIDTH
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert panels
    for axes in panels:
        assert axes.has_data()
        if axes.axison and axes.images and not axes.get_xticks().size:  # pictures
            assert axes.get_title() or axes.get_xlabel()
        elif axes.axison:
            assert axes.get_xlabel() or [tick for tick in axes.get_xticklabels() if tick.get_text().strip()]
            heights = axes.get_yticklabels()  # a column of histograms has none
            assert axes.get_ylabel() or not heights or [tick for tick in heights if tick.get_text().strip()]
    named = {text.get_text() for legend in figure.findobj(Legend) for text in legend.get_texts()}
    shown = {name for axes in panels for name in axes.get_legend_handles_labels()[1]}
    assert {name for name in shown if name.startswith("class ")} <= named
    figure.draw_without_rendering()
    for text in figure.findobj(Text):
        assert not SYMBOLS.search(re.sub(r"\$[^$]*\$", "", text.get_text())), text


def changed(numbers: dict[str, Any], *path: Any, value: Any) -> dict[str, Any]:
    """Return a copy of the numbers with one of them replaced."""
    copied = copy.deepcopy(numbers)
    place = copied
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copied
