"""The catalogue, docs/lecture.md and the corrections: every row is built, tested, described and found."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

from gpunet.data import NAMED_SETS
from gpunet.errors import InvalidValueError
from gpunet.lecture import catalogue, experiments
from gpunet.lecture.corrections import CORRECTIONS
from tests.helpers.cli import ROOT

DOCUMENT = ROOT / "docs" / "lecture.md"
ROWS = [f"L{number}" for number in range(1, 26)]
MOST_FIGURE_BYTES = 1_500_000
each_row = pytest.mark.parametrize("row", ROWS)


def document() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def words(text: str) -> str:
    """Return text without markup and line breaks."""
    return " ".join(text.replace("`", "").replace("*", "").split())


def table_rows() -> dict[str, list[str]]:
    """Return the cells of each row of the document's table, by the row's number."""
    found = {}
    for line in document().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"L\d+", cells[0]):
            assert cells[0] not in found
            found[cells[0]] = cells
    return found


# --- the catalogue


def test_all_rows_are_there_in_order() -> None:
    assert list(catalogue.MODULES) == ROWS
    assert [experiment.row for experiment in catalogue.experiments()] == ROWS


def test_every_module_is_listed_once() -> None:
    listed = list(catalogue.MODULES.values())
    assert len(set(listed)) == len(listed)
    assert sorted(listed) == sorted(module.name for module in pkgutil.iter_modules(experiments.__path__))


@each_row
def test_an_experiment_is_complete(row: str) -> None:
    experiment = catalogue.find_experiment(row)
    assert experiment.name == catalogue.MODULES[row].replace("_", "-")
    assert experiment.title
    assert experiment.title[0].isupper()
    assert not experiment.title.endswith(".")
    assert experiment.shows.endswith(".")
    assert experiment.shows.count(". ") == 0  # one sentence
    assert "\n" not in experiment.title + experiment.shows


def test_titles_differ() -> None:
    titles = [experiment.title for experiment in catalogue.experiments()]
    assert len(set(titles)) == len(titles)


@each_row
def test_an_experiment_says_which_data_it_reads(row: str) -> None:
    source = (ROOT / "gpunet" / "lecture" / "experiments" / f"{catalogue.MODULES[row]}.py").read_text(encoding="utf-8")
    source = re.sub(r"data_sets=\(.*\)", "", source)
    read = {name for name in NAMED_SETS if f'"{name}"' in source}
    if "split_digits(" in source:
        read.add("digits")
    assert read == set(catalogue.find_experiment(row).data_sets)


@pytest.mark.parametrize("name", ["L19", "l19", "initialization", "Initialization", "INITIALIZATION"])
def test_an_experiment_is_found_by_row_and_name(name: str) -> None:
    assert catalogue.find_experiment(name).row == "L19"


def test_an_underscore_is_as_good_as_a_dash() -> None:
    assert catalogue.find_experiment("linear_scores").row == "L1"


@pytest.mark.parametrize("name", ["", "L0", "L26", "26", "L", "experiments", "../linear-scores"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidValueError, match="NAME"):
        catalogue.find_experiment(name)


# --- docs/lecture.md


def test_the_document_has_every_row_once_in_order() -> None:
    assert list(table_rows()) == ROWS


@each_row
def test_the_document_names_code_tests_and_command_that_exist(row: str) -> None:
    _, what, code, tests, command = table_rows()[row]
    experiment = catalogue.find_experiment(row)
    assert what
    assert f"gpunet lecture {experiment.name}" in words(command)
    for folder, cell in (("gpunet", code), ("tests", tests)):
        paths = re.findall(r"`([\w/]+\.py)`", cell)
        assert paths, cell
        for path in paths:
            assert (ROOT / folder / path).is_file(), path
    assert f"lecture/experiments/{catalogue.MODULES[row]}.py" in code
    # One of the tests is of the experiment itself.
    files = [(ROOT / "tests" / path).read_text(encoding="utf-8") for path in re.findall(r"`([\w/]+\.py)`", tests)]
    imported = re.compile(rf"from gpunet\.lecture\.experiments import .*\b{catalogue.MODULES[row]}\b")
    assert any(imported.search(text) for text in files), tests


def test_figures_are_listed_exist_and_are_small() -> None:
    linked = set(re.findall(r"\]\(figures/([\w-]+\.(?:png|svg))\)", document()))
    folder = DOCUMENT.parent / "figures"
    committed = {path.name for path in folder.iterdir()}
    assert linked <= committed
    names = {experiment.name for experiment in catalogue.experiments()}
    ours = {name for name in committed if Path(name).stem in names}
    assert ours == linked
    assert sum((folder / name).stat().st_size for name in ours) < MOST_FIGURE_BYTES


def test_the_makefile_copies_the_figures_that_are_linked() -> None:
    linked = re.findall(r"\]\(figures/([\w-]+)\.png\)", document())
    listed = re.search(r"^FIGURES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed is not None
    assert sorted(listed[1].split()) == sorted(set(linked))


# --- corrections


def test_the_document_has_every_correction() -> None:
    text = words(document())
    for correction in CORRECTIONS:
        assert words(correction.text) in text
        assert set(correction.rows) <= set(ROWS)


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
