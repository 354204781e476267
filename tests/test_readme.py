"""What README.md shows runs as it stands, and docs/python.md names what there is."""

from __future__ import annotations

import re

import pytest

import gpunet
from gpunet.activations import ACTIVATIONS
from gpunet.initializers import INITIALIZERS
from gpunet.layers import LOSSES
from gpunet.optimizers import OPTIMIZERS
from tests.helpers.checkout import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
CHOICES = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_python_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert blocks
    assert gpunet.load("digits.safetensors").predict(names["X_new"]).shape == (97,)


def test_the_readme_is_a_page():
    assert len(README.splitlines()) <= 100


@pytest.mark.parametrize(
    "choices", [ACTIVATIONS, INITIALIZERS, LOSSES, [optimizer.__name__ for optimizer in OPTIMIZERS.values()]]
)
def test_the_documents_name_what_there_is_to_choose(choices):
    for name in choices:
        assert re.search(rf"`{name}[`(]", CHOICES), name


def test_a_network_s_documentation_names_every_loss():
    assert all(f'``"{name}"``' in str(gpunet.Network.__doc__) for name in LOSSES)
