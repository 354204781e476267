"""What README.md shows runs as it stands, and it names what there is."""

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


def test_the_python_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(block, names)
    network, softsign = gpunet.load("digits.safetensors"), names["softsign"]
    assert network.predict(names["X_new"]).shape == (97,)
    assert str(softsign) == "softsign"


@pytest.mark.parametrize(
    "choices", [ACTIVATIONS, INITIALIZERS, LOSSES, [optimizer.__name__ for optimizer in OPTIMIZERS.values()]]
)
def test_the_readme_names_what_there_is_to_choose(choices):
    for name in choices:
        assert re.search(rf"`{name}[`(]", README), name


def test_a_network_s_documentation_names_every_loss():
    assert all(f'``"{name}"``' in str(gpunet.Network.__doc__) for name in LOSSES)
