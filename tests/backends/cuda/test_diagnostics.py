"""Diagnostics through the CUDA backend say what they say on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.diagnostics import DiagnosticsCallback, check_gradients


def problem() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    return generator.standard_normal((90, 7)), generator.integers(0, 3, 90)


@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "batch_norm"])
def test_records_of_a_run_agree(device, batch_norm):
    X, y = problem()
    records = []
    for place in (CudaBackend(device), "cpu"):
        network = gpunet.Network([7, 12, 9, 3], activation="tanh", batch_norm=batch_norm, dropout=0.2, device=place)
        callback = DiagnosticsCallback(X, y, rows=40)
        gpunet.fit(network, X, y, epochs=2, batch_size=30, callbacks=[callback])
        records.append(callback.records)
    for ours, expected in zip(*records, strict=True):
        assert ours.loss == pytest.approx(expected.loss, rel=1e-4)
        for layer, other in zip(ours.layers, expected.layers, strict=True):
            assert layer.outputs.std == pytest.approx(other.outputs.std, rel=1e-4)
            assert layer.score_gradients.std == pytest.approx(other.score_gradients.std, rel=1e-3)
            assert (layer.saturated, layer.dead) == (other.saturated, other.dead)
        for name, parameter in ours.parameters.items():
            other = expected.parameters[name]
            assert parameter.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-3)
            assert (parameter.update_ratio is None) == (other.update_ratio is None)
            if parameter.update_ratio is not None:
                assert parameter.update_ratio == pytest.approx(other.update_ratio, rel=1e-3)


def test_nothing_changes_and_the_gradients_of_the_device_are_checked(device):
    X, y = problem()
    network = gpunet.Network([7, 5, 3], device=CudaBackend(device))
    before = network.get_parameters() | network.get_state()
    gpunet.diagnostics.inspect(network, X, y)
    errors = check_gradients(network, X[:20], y[:20], directions=1)
    assert max(errors.values()) < 1e-6
    for name, value in (network.get_parameters() | network.get_state()).items():
        np.testing.assert_array_equal(value, before[name])
