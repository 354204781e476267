"""Files of kernel budgets that are damaged anywhere: read as what they are for, or refused with one error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunet.errors import FileFormatError
from gpunet.kernel_check.budgets import default_path, read_budgets, violations, write_budgets
from gpunet.kernel_check.check import CheckedKernel
from gpunet.kernel_check.resources import Resources
from tests.helpers.files import JSON, MUTANTS, places, replaced
from tests.helpers.mutation import mutants

KERNEL = CheckedKernel("dropout", "dropout_forward<float, true>", 90, Resources(registers=40))


def read(path: Path) -> None:
    """Read a file, and use and write it if it could be read."""
    try:
        budgets = read_budgets(path)
    except FileFormatError:
        return
    violations(budgets, [KERNEL])
    write_budgets(path, budgets)
    assert read_budgets(path) == budgets


def test_mutants(tmp_path: Path) -> None:
    path = tmp_path / "budgets.json"
    for mutant in mutants(default_path().read_bytes(), MUTANTS, 0, (b'"', b"{", b"1e999", b"9" * 400)):
        path.write_bytes(mutant)
        read(path)


def test_any_value_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "budgets.json"
    content = json.loads(default_path().read_bytes())

    @settings(max_examples=MUTANTS, deadline=None, database=None)
    @given(st.sampled_from(list(places(content))), JSON)
    def check(place: tuple[object, ...], value: object) -> None:
        path.write_text(json.dumps(replaced(content, place, value)))
        read(path)

    check()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[]",
        '{"registers": {"a": 3}, "vectorized": {}, "exchanged": {}}',
        '{"registers": {"a": {"b": "3"}}, "vectorized": {}, "exchanged": {}}',
        '{"registers": {"a": {"b": true}}, "vectorized": {}, "exchanged": {}}',
        '{"registers": {}, "vectorized": {}, "exchanged": {"a": {"b": ["c", 3]}}}',
        '{"registers": {}, "vectorized": {"a": {"b": {"bytes": 16, "loads": null, "stores": 0}}}, "exchanged": {}}',
        '{"registers": {}, "vectorized": {"a": {"b": {"bytes": 16, "loads": 1' + "0" * 5000 + '}}}, "exchanged": {}}',
    ],
)
def test_refusals(tmp_path: Path, text: str) -> None:
    path = tmp_path / "budgets.json"
    path.write_text(text)
    with pytest.raises(FileFormatError, match="not a file of kernel budgets"):
        read_budgets(path)
