"""A driver that refuses clusters, as on a slice of a GPU: what networks, recordings and users see of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices.cupy import CupyDevice
from gpunet.backends.devices.device import ClusterRefusedError
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy

ROWS = 300  # enough for clusters of 8


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    fake_cupy.begin_process(monkeypatch)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> fake_cupy.FakeCupy:
    cupy = fake_cupy.FakeCupy(EmulatedDevice())
    fake_cupy.install(monkeypatch, cupy)
    return cupy


def train() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((2 * ROWS, 3)), rng.integers(0, 2, 2 * ROWS)
    network = gpunet.Network([3, 4, 2], batch_norm=True, seed=0, device=CudaBackend(CupyDevice(0)))
    history = gpunet.fit(network, X, y, epochs=2, batch_size=ROWS)
    return network.get_parameters() | {"loss": np.array(history["loss"])}


def test_clusters_run_where_they_are_not_refused(cupy: fake_cupy.FakeCupy) -> None:
    train()
    assert max(cupy.launched_clusters) == 8


@pytest.mark.parametrize("from_size", [2, 8])
def test_without_clusters_from_the_first_refusal_on(
    cupy: fake_cupy.FakeCupy, from_size: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Smaller clusters are not tried: the results are those of a device without any, bit for bit."""
    cupy.refused_cluster = from_size
    found = [train(), train()]
    assert set(cupy.launched_clusters) == {1}
    assert caplog.text.count("batch norm does without clusters of blocks") == 1
    assert "CUDA_ERROR_INVALID_CLUSTER_SIZE" in caplog.text
    monkeypatch.setenv("GPUNET_CLUSTERS", "0")
    expected = train()
    for name, values in expected.items():
        for parameters in found:
            np.testing.assert_array_equal(parameters[name], values, err_msg=name)


def forward(backend: CudaBackend) -> Any:
    """Return a batch norm that needs clusters, and its output."""
    rng = np.random.default_rng(0)
    s = backend.asarray(rng.standard_normal((ROWS, 4)).astype(np.float32))
    out = backend.empty((ROWS, 4), np.float32)
    mean, inverse_std, running_mean, running_variance = (backend.zeros(4, np.float32) for _ in range(4))

    def run() -> None:
        backend.batch_norm_activation_forward(
            s, None, None, gpunet.ReLU(), out, mean, inverse_std, running_mean, running_variance, 0.1, 1e-5
        )

    return run, out


def test_a_first_refusal_in_a_recording_ends_the_recording(
    cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks run each step once before they record it; what a callable of the user's own does is not known.

    The other plan needs memory, which there is not in a recording: one block has no room for the rows.
    """
    monkeypatch.setattr(cupy.emulated, "shared_memory_per_block", 16 * ROWS - 1)
    backend = CudaBackend(CupyDevice(0))
    run, out = forward(backend)
    cupy.refused_cluster = 2
    backend.capture(run)()
    assert set(cupy.launched_clusters) == {1}
    positive = backend.to_numpy(out) > 0
    assert 0.4 < positive.mean() < 0.6
    backend.capture(run)()  # recorded, without clusters
    np.testing.assert_array_equal(backend.to_numpy(out) > 0, positive)


def test_another_networks_refusal_leaves_a_recording_its_plan(cupy: fake_cupy.FakeCupy) -> None:
    """The plan of its first run, whose memory exists; a recording could get no other."""
    backend = CudaBackend(CupyDevice(0))
    run, _ = forward(backend)
    run()
    cupy.refused_cluster = 2
    other, _ = forward(CudaBackend(CupyDevice(0)))
    other()
    cupy.refused_cluster = 9
    cupy.launched_clusters.clear()
    backend.capture(run)
    assert cupy.launched_clusters == [8]


def test_a_device_of_another_kind_may_refuse_clusters(caplog: pytest.LogCaptureFixture) -> None:
    """The seam says how; not only CuPy's device does."""

    class Slice(EmulatedDevice):
        def launch(self, *args: Any, cluster: Any = None, **kwargs: Any) -> None:
            if cluster not in (None, 1):
                raise ClusterRefusedError("no room for a cluster")
            super().launch(*args, cluster=cluster, **kwargs)

    results = []
    for device in (Slice(), EmulatedDevice(compute_capability=(8, 0))):
        backend = CudaBackend(device)
        run, out = forward(backend)
        run()
        results.append(backend.to_numpy(out))
    np.testing.assert_array_equal(*results)
    assert caplog.text.count("batch norm does without clusters of blocks: no room") == 1


def test_other_refused_launches_are_errors(cupy: fake_cupy.FakeCupy) -> None:
    backend = CudaBackend(CupyDevice(0))
    x, device = backend.zeros((2, 2), np.float32), backend.device
    backend.bias_activation_forward(x, None, gpunet.ReLU(), x)
    cupy.refused_cluster = 1  # every launch
    with pytest.raises(gpunet.DeviceError, match="CUDA_ERROR_INVALID_CLUSTER_SIZE") as caught:
        backend.bias_activation_forward(x, None, gpunet.ReLU(), x)
    assert not isinstance(caught.value, ClusterRefusedError)
    run, _ = forward(backend)
    with pytest.raises(gpunet.DeviceError, match="launching batch_norm_forward_resident"):
        run()
    assert device.name == "cuda:0"


def test_an_error_that_ends_the_process_is_not_taken_for_a_refusal(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier kernel's fault shows at any later call."""
    backend = CudaBackend(CupyDevice(0))
    run, _ = forward(backend)
    monkeypatch.setattr(
        fake_cupy, "CUDADriverError", lambda text: fake_cupy.CUDARuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: illegal")
    )
    cupy.refused_cluster = 2
    with pytest.raises(gpunet.DeviceError, match="after a restart"):
        run()
