"""The generalised delta rule on the CUDA backend gives the CPU's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.backends.cuda import CudaBackend
from gpunet.classic import DeltaRule

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
T = np.array([[0.1, 0.9], [0.9, 0.1], [0.9, 0.5], [0.1, 0.2]])


@pytest.mark.parametrize("update", ["pattern", "epoch"])
def test_delta_rule_learns_the_same_on_cuda(device: Any, update: str) -> None:
    arguments = {"hidden_units": (3, 2), "epochs": 20, "update": update, "dtype": "float64", "tolerance": 1e-9}
    with pytest.warns(match="not every output"):
        on_cpu = DeltaRule(device="cpu", **arguments).fit(X, T)
    with pytest.warns(match="not every output"):
        on_cuda = DeltaRule(device=CudaBackend(device), **arguments).fit(X, T)
    np.testing.assert_allclose(on_cuda.predict(X), on_cpu.predict(X), rtol=0, atol=1e-12)
    np.testing.assert_allclose(on_cuda.hidden_outputs(X), on_cpu.hidden_outputs(X), rtol=0, atol=1e-12)
    np.testing.assert_allclose(on_cuda.history_["error"], on_cpu.history_["error"], rtol=1e-12)
