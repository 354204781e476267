"""docs/serving.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.checkout import ROOT

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def test_the_python_of_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("sklearn", "onnx", "onnxruntime", "safetensors", "pandas"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    model, rows = names["model"], [[5.1, 3.5, 1.4, 0.2], [6.3, 2.9, 5.6, 1.8]]
    frame = names["iris"].data.iloc[:2].copy()
    frame.iloc[:] = rows
    assert names["label"].tolist() == model.predict(frame).tolist()
    np.testing.assert_allclose(names["probabilities"], model.predict_proba(frame), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(
        names["network"].get_parameters()["W1"],
        names["load_file"]("theirs.safetensors")["encoder.layer.0.dense.weight"],
    )
