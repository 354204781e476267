"""What messages are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpunet.errors import counted, wrong_ending


@pytest.mark.parametrize(
    ("count", "noun", "expected"),
    [
        (0, "row", "0 rows"),
        (1, "row", "1 row"),
        (2, "row", "2 rows"),
        (12_345, "row", "12,345 rows"),
        (1, "class", "1 class"),
        (3, "class", "3 classes"),
    ],
)
def test_one_is_no_plural(count: int, noun: str, expected: str) -> None:
    assert counted(count, noun) == expected


@pytest.mark.parametrize(
    ("name", "endings", "expected"),
    [
        ("a.b/model", [".npz"], "path: 'a.b/model' has no ending. Expected .npz."),
        ("model.md", [".npz"], "path: 'model.md' ends in '.md'. Expected .npz."),
        ("model.md", [".a", ".b", ".c"], "path: 'model.md' ends in '.md'. Expected .a, .b or .c."),
    ],
)
def test_an_ending_that_is_missing_or_another(name: str, endings: list[str], expected: str) -> None:
    assert str(wrong_ending("path", Path(name), endings)) == expected
