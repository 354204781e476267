"""That every test is run by one target of the Makefile, whatever its marks."""

from __future__ import annotations

import re
import sys
from itertools import combinations

import pytest

from tests.helpers.checkout import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# By which tests are chosen; what else is large stays on a GPU.
CHOOSING = "oracle", "gpu", "slow"
# What `-m` says in the recipes of the tests.
EXPRESSIONS = [
    quoted or word
    for quoted, word in re.findall(
        r'pytest(?: -n \$\(WORKERS\))? -m (?:"([^"]+)"|(\w+))', (ROOT / "Makefile").read_text(encoding="utf-8")
    )
]


def test_the_targets_know_the_marks() -> None:
    assert len(EXPRESSIONS) == 4
    assert {word for words in EXPRESSIONS for word in words.split()} == {*CHOOSING, "and", "not"}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    assert {mark.partition(":")[0] for mark in settings["markers"]} == {*CHOOSING, "large"}


@pytest.mark.parametrize(
    "marks", [marks for size in range(4) for marks in combinations(CHOOSING, size)], ids=lambda marks: " ".join(marks)
)
def test_one_target_runs_a_test_with_these_marks(marks: tuple[str, ...]) -> None:
    names = {mark: mark in marks for mark in CHOOSING}
    targets = [expression for expression in EXPRESSIONS if eval(expression, {}, names)]
    assert len(targets) == (2 if {"oracle", "gpu"} <= {*marks} else 1), targets


def test_what_needs_no_gpu_is_run_before_a_change_lands() -> None:
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert {"make test", "make test-slow", "make test-oracle"} <= {*commands}
