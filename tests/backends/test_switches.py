"""What environment variables turn off, recorded steps, clusters, cublasLt, and on: a whole pass in one launch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.switches import CLUSTERS, CUBLAS_LT, CUDA_GRAPH, NARROW_PASS, SWITCHES
from tests.emulation import EmulatedDevice


class Watched(EmulatedDevice):
    """Counts recordings, and notes the clusters of the launches."""

    def __init__(self) -> None:
        super().__init__()
        self.captures = 0
        self.clusters: set[Any] = set()
        self.products_with_bias = 0

    def capture(self, step: Any) -> Any:
        self.captures += 1
        return super().capture(step)

    def gemm_bias(self, *args: Any, **kwargs: Any) -> bool:
        self.products_with_bias += 1
        return super().gemm_bias(*args, **kwargs)

    def launch(self, *args: Any, **kwargs: Any) -> None:
        self.clusters.add(kwargs["cluster"])
        super().launch(*args, **kwargs)


def train() -> tuple[Watched, dict[str, Any]]:
    """Train a network whose batches are large enough for clusters."""
    device, rng = Watched(), np.random.default_rng(0)
    X, y = rng.standard_normal((600, 3)), rng.integers(0, 2, 600)
    network = gpunet.Network([3, 4, 2], batch_norm=True, seed=0, device=CudaBackend(device))
    gpunet.fit(network, X, y, epochs=2, batch_size=300)
    return device, network.get_parameters()


def test_each_turns_off_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    device, parameters = train()
    assert device.captures >= 1
    assert max(device.clusters - {None}) == 8
    assert device.products_with_bias >= 1
    monkeypatch.setenv("GPUNET_CUDA_GRAPH", "0")
    step_by_step, same = train()
    assert step_by_step.captures == 0
    monkeypatch.setenv("GPUNET_CLUSTERS", "0")
    without_clusters, close = train()
    assert without_clusters.clusters <= {None, 1}
    monkeypatch.setenv("GPUNET_CUBLASLT", "0")
    in_two, also_close = train()
    assert in_two.products_with_bias == 0
    for name, values in parameters.items():
        np.testing.assert_allclose(also_close[name], values, rtol=0, atol=2e-5)
        np.testing.assert_array_equal(same[name], values)
        np.testing.assert_allclose(close[name], values, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("value", "on"), [(None, None), ("", None), ("1", True), ("0", False)])
@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.variable)
def test_values(switch: Any, value: str | None, on: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(switch.variable, raising=False)
    if value is not None:
        monkeypatch.setenv(switch.variable, value)
    assert switch.is_on() is (on if on is not None else switch is not NARROW_PASS)


@pytest.mark.parametrize("value", ["false", "2", " 0", "off"])
@pytest.mark.parametrize("switch", [CUDA_GRAPH, CLUSTERS, CUBLAS_LT, NARROW_PASS], ids=lambda switch: switch.variable)
def test_other_values_are_refused_when_a_network_is_made(
    switch: Any, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(switch.variable, value)
    with pytest.raises(gpunet.InvalidValueError, match=rf"{switch.variable}: .*{value}'\. Expected 1, or 0"):
        CudaBackend(EmulatedDevice())
