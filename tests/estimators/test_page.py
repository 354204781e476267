"""docs/estimators.md: its code runs, and it names every parameter there is."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sklearn.neural_network

from gpunet import MLPClassifier, MLPRegressor
from tests.helpers.checkout import ROOT

PAGE = (ROOT / "docs" / "estimators.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:max_iter")
def test_the_code_runs_as_it_stands() -> None:
    pytest.importorskip("pandas")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    assert names["model"].score(names["X_test"], names["y_test"]) > 0.9
    assert names["flights"].score(names["table"], names["is_late"]) > 0.9
    assert names["search"].best_params_.keys() == {"mlpclassifier__alpha", "mlpclassifier__batch_norm"}


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_every_parameter_is_named(kind: Any) -> None:
    text = " ".join(PAGE.split())
    shared, own = (text.split(start)[1].split(end)[0] for start, end in (
        ("Every parameter of scikit-learn's estimators is there", "So is every method"),
        ("Beyond them:", "## What differs"),
    ))  # fmt: skip
    theirs = getattr(sklearn.neural_network, kind.__name__)().get_params().keys() - {"loss"}
    ours = kind().get_params().keys() - {"loss"}
    assert theirs <= set(re.findall(r"`(\w+)`", shared))
    assert ours - theirs <= set(re.findall(r"`(\w+)`", own))
