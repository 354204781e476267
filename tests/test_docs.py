"""The site: its start page runs as pasted, and its reference has every public name."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import gpunet
from tests.helpers.checkout import ROOT

DOCS = ROOT / "docs"


def run(page: str) -> dict[str, object]:
    """Run the blocks of a page one after the other, and return their names."""
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    return names


def test_the_start_page_ends_with_a_network_that_reads_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    names = run("index.md")
    network = gpunet.load("digits.safetensors")
    assert (network.predict(names["X_test"]) == names["y_test"]).mean() > 0.9


def listed() -> set[str]:
    """Return what the pages of the reference list, each name with its module."""
    found: set[str] = set()
    for page in (DOCS / "api").glob("*.rst"):
        for part in page.read_text(encoding="utf-8").split(".. currentmodule:: ")[1:]:
            module, _, rest = part.partition("\n")
            block = re.search(r"\.\. autosummary::\n(?: +:.*\n)*\n((?: +\S+\n?)+)", rest)
            assert block is not None, (page.name, module)
            found |= {f"{module}.{name}" for name in block[1].split()}
    return found


@pytest.mark.parametrize(
    "module", ["gpunet", "gpunet.classic", "gpunet.data", "gpunet.data_initializers", "gpunet.diagnostics"]
)
def test_the_reference_lists_every_public_class_and_function(module: str) -> None:
    """Modules have pages of their own, and tables of names are in the text."""
    public = import_module(module)
    names = {f"{module}.{name}" for name in public.__all__ if callable(getattr(public, name))}
    assert not names - listed()
