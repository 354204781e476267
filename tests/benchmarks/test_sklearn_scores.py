"""The table of docs/estimators.md: how it is made, and what it has to show."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import sklearn_scores as module
from benchmarks.sklearn_scores import TASKS, Found, Task, is_behind, measure
from tests.helpers.checkout import ROOT

PAGE = (ROOT / "docs" / "estimators.md").read_text(encoding="utf-8")


def problem(seed: int) -> module.Split:
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((60, 3))
    y = X[:, 0] > 0
    return X[:40], X[40:], y[:40], y[40:]


@pytest.mark.parametrize("is_regression", [False, True])
def test_both_libraries_learn_the_same_rows(is_regression: bool) -> None:
    arguments = {"hidden_layer_sizes": (5,), "max_iter": 3}
    found = measure(Task("halves", problem, "r2" if is_regression else "accuracy", arguments, is_regression), (0, 1))
    assert found.keys() == {"gpunet", "scikit-learn"}
    for one in found.values():
        assert len(one.scores) == len(one.seconds) == 2
        assert one.epochs == (3, 3)
        assert max(one.scores) <= 1
        assert min(one.seconds) > 0


def test_behind_is_more_than_a_standard_deviation() -> None:
    ones = (1.0,) * 3
    theirs = Found((0.8, 0.9, 1.0), ones, ones)
    assert theirs.deviation == pytest.approx(0.1)
    for scores, expected in (((0.81,) * 3, False), ((0.79,) * 3, True)):
        assert is_behind({"gpunet": Found(scores, ones, ones), "scikit-learn": theirs}) is expected


def test_the_document_is_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- benchmarks.sklearn_scores -->\nold\n<!-- end -->\nafter\n", encoding="utf-8")
    monkeypatch.setattr(module, "TASKS", [Task("halves", problem, arguments={"max_iter": 2})])
    module.main([str(path)])
    text = path.read_text(encoding="utf-8")
    assert re.search(
        r"^\| halves, accuracy \| gpunet \| [01]\.\d{4} \| [01]\.\d{4} \| \d+\.\d\d s \| 2 \|$", text, re.M
    )
    assert text.startswith("before\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text


def test_the_committed_table_has_every_data_set_and_nothing_behind() -> None:
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| ")]
    rows = [row for row in cells if len(row) == 6 and row[1] in module.LIBRARIES]
    assert [row[0] for row in rows[::2]] == [f"{task.name}, {task.score}" for task in TASKS]
    for ours, theirs in zip(rows[::2], rows[1::2], strict=True):
        assert float(ours[2]) >= float(theirs[2]) - float(theirs[3])
