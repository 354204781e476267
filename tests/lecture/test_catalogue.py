"""The catalogue, the claims, docs/lecture.md and the corrections: every row is built, tested, described and found."""

from __future__ import annotations

import pkgutil
import re
import sys
import types
from pathlib import Path

import pytest

from gpunet.data import NAMED_SETS
from gpunet.errors import FileFormatError, InvalidValueError
from gpunet.lecture import document, experiments
from gpunet.lecture.catalogue import EXPERIMENTS, find_experiment
from gpunet.lecture.corrections import CORRECTIONS
from gpunet.lecture.experiment import Claim, Experiment
from tests.helpers.cli import ROOT

DOCUMENT = ROOT / "docs" / "lecture.md"
ROWS = [f"L{number}" for number in range(1, 26)]
MOST_FIGURE_BYTES = 300_000
each = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.row)


# --- the catalogue


def test_all_rows_are_there_in_order() -> None:
    assert [experiment.row for experiment in EXPERIMENTS] == ROWS


def test_every_module_is_listed_once() -> None:
    modules = sorted(module.name for module in pkgutil.iter_modules(experiments.__path__))
    assert sorted(experiment.module for experiment in EXPERIMENTS) == modules


@each
def test_an_experiment_is_complete(experiment: Experiment) -> None:
    for text in (experiment.title, experiment.figure):
        assert text[0].isupper()
        assert not text.endswith(".")
    assert experiment.shows.endswith(".")
    assert experiment.shows.count(". ") == 0  # one sentence
    assert "\n" not in experiment.title + experiment.shows + experiment.figure
    # The figure's words are an alternative to seeing it: whoever hears them has just heard the title.
    titled, seen = (set(re.findall(r"[a-z]{4,}", text.lower())) for text in (experiment.title, experiment.figure))
    assert len(titled & seen) < len(titled) / 2


@pytest.mark.parametrize("field", ["title", "figure", "shows"])
def test_no_two_say_the_same(field: str) -> None:
    assert len({getattr(experiment, field) for experiment in EXPERIMENTS}) == len(EXPERIMENTS)


@each
def test_an_experiment_says_which_data_it_reads(experiment: Experiment) -> None:
    source = (ROOT / "gpunet" / "lecture" / "experiments" / f"{experiment.module}.py").read_text(encoding="utf-8")
    read = {name for name in NAMED_SETS if f'"{name}"' in source}
    if "split_digits(" in source:
        read.add("digits")
    assert read == set(experiment.data_sets)


@each
def test_code_and_tests_exist_and_one_of_the_tests_is_of_the_experiment(experiment: Experiment) -> None:
    for folder, paths in (("gpunet", experiment.code), ("tests", experiment.tests)):
        for path in paths:
            assert (ROOT / folder / path).is_file(), path
    imported = re.compile(rf"from gpunet\.lecture\.experiments import [^)]*\b{experiment.module}\b")
    assert any(imported.search((ROOT / "tests" / path).read_text(encoding="utf-8")) for path in experiment.tests)


@pytest.mark.parametrize("name", ["L19", "l19", "initialization", "Initialization", "INITIALIZATION"])
def test_an_experiment_is_found_by_row_and_name(name: str) -> None:
    assert find_experiment(name).row == "L19"


def test_an_underscore_is_as_good_as_a_dash() -> None:
    assert find_experiment("linear_scores").row == "L1"


@pytest.mark.parametrize("name", ["", "L0", "L26", "26", "L", "experiments", "../linear-scores"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidValueError, match="name"):
        find_experiment(name)


# --- claims


def test_a_paragraph_has_each_claim_with_whether_it_held_and_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def claims(numbers: dict[str, float]) -> dict[str, Claim]:
        return {
            "small": Claim("A is below 1", numbers["a"] < 1, f"{numbers['a']:g}"),
            "large": Claim("B is above 1", numbers["b"] > 1, f"{numbers['b']:g}"),
        }

    steps = types.SimpleNamespace(about=lambda numbers: "Two bars.", claims=claims)
    monkeypatch.setitem(sys.modules, f"{experiments.__name__}.made_up", steps)
    experiment = Experiment("L1", "made-up", "Title", "Shows.", "Two bars", (), ())
    told = experiment.describe({"a": 0.5, "b": 2})
    assert told == "Two bars. In this run both claims hold. A is below 1 (0.5). B is above 1 (2)."
    told = experiment.describe({"a": 0.5, "b": 0})
    assert told == (
        "Two bars. In this run 1 of 2 claims hold. A is below 1 (0.5). Not so in this run: B is above 1 (0)."
    )


# --- docs/lecture.md


def test_the_document_has_what_the_catalogue_and_the_corrections_say() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert document.filled(text) == text, "python -m gpunet.lecture.document docs/lecture.md writes it"
    for row in ROWS:
        assert text.count(f"\n| {row} | ") == 1


@pytest.mark.parametrize("marker", ["", "<!-- gpunet lecture: tables -->\n<!-- end -->\n"])
def test_a_document_without_its_sections_is_refused(marker: str) -> None:
    with pytest.raises(FileFormatError, match="sections"):
        document.filled(f"# Title\n{marker}")


def test_the_command_fills_in_the_document_and_copies_its_figures(tmp_path: Path) -> None:
    shown = [experiment.name for experiment in EXPERIMENTS if experiment.is_documented]
    for folder in ("docs/figures", "built"):
        (tmp_path / folder).mkdir(parents=True)
    for experiment in EXPERIMENTS:
        (tmp_path / "built" / f"{experiment.name}.svg").write_bytes(b"a figure")
    path = tmp_path / "docs" / "lecture.md"
    text = DOCUMENT.read_text(encoding="utf-8")
    path.write_text(text.replace("| L1 | ", "| L1 | no "), encoding="utf-8")
    document.main([str(path), "--figures", str(tmp_path / "built")])
    assert path.read_text(encoding="utf-8") == text
    assert sorted(file.stem for file in (tmp_path / "docs" / "figures").iterdir()) == sorted(shown)


def test_figures_are_linked_exist_and_are_small() -> None:
    linked = set(re.findall(r"\]\(figures/([\w-]+)\.svg\)", DOCUMENT.read_text(encoding="utf-8")))
    committed = {path.stem: path.stat().st_size for path in (DOCUMENT.parent / "figures").iterdir()}
    assert linked == {experiment.name for experiment in EXPERIMENTS if experiment.name in committed}
    assert max(committed.values()) <= MOST_FIGURE_BYTES


# --- corrections


def test_corrections_are_of_rows_that_exist() -> None:
    assert {row for correction in CORRECTIONS for row in correction.rows.split(", ")} <= set(ROWS)


@pytest.mark.parametrize(
    "sign",
    [
        "x^(i-1), not x^(i)",
        "s^(i-1), not s^(i)",
        "2 lambda W throughout",
        "1 x m, not 1 x d",
        "(p - y)^T for a one-hot y",
        "row's maximum",
        "gives a variance",
        "is a standard deviation",
        "slope of leaky ReLU",
        "counts as a mistake, or nothing would leave w = 0",
        "gradients grow, about 7e4-fold from layer 10 to layer 1",
        "absorbs the factor 2",
        "eta delta_pj o_pi",
        "dJ/dshat_i",
        "The sum in dv_b/dmu_b is zero",
        "not to biases, gamma or beta",
    ],
)
def test_a_place_where_the_text_is_wrong_is_corrected(sign: str) -> None:
    assert sum(sign in correction.text for correction in CORRECTIONS) == 1
