"""Training steps whose forward and backward pass is one launch: which networks have them; and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.launcher import Launcher
from gpunet.backends.cuda.narrow_pass import fits, shared_bytes
from tests.emulation import EmulatedDevice

SIZES = (13, 33, 20, 5)


class Watched(EmulatedDevice):
    """Notes the kernels of its launches, recorded ones when they are recorded."""

    def __init__(self) -> None:
        super().__init__(multiprocessor_count=2)
        self.launched: list[str] = []

    def launch(self, kernel: Any, *args: Any, **kwargs: Any) -> None:
        self.launched.append(kernel.name.partition("<")[0])
        super().launch(kernel, *args, **kwargs)

    def gemm(self, *args: Any, **kwargs: Any) -> None:
        self.launched.append("gemm")
        super().gemm(*args, **kwargs)


def one_launch(device: Any, precision: str = "float32") -> CudaBackend:
    backend = CudaBackend(device, precision)
    backend.has_narrow_passes = True
    return backend


def problem(rows: int = 170) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, SIZES[0])), rng.integers(0, SIZES[-1], rows)


def train(backend: CudaBackend, network: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Train for three epochs of two batches and a shorter one, and return losses, parameters and running averages."""
    net = gpunet.Network(SIZES, **{"batch_norm": True, "seed": 3, "device": backend} | (network or {}))
    options = {"optimizer": gpunet.Adam(0.01), "l2": 1e-3, "clip_norm": 0.7} | options
    history = gpunet.fit(net, *problem(), epochs=3, batch_size=70, **options)
    return {"losses": np.array(history["loss"]), **net.get_parameters(), **net.get_state()}


@pytest.mark.parametrize("records", [True, False], ids=["recorded", "not recorded"])
@pytest.mark.parametrize("network", [{}, {"batch_norm": False, "activation": "tanh"}], ids=["batch norm", "bias"])
def test_trains_as_operation_by_operation(network: dict[str, Any], records: bool) -> None:
    device = Watched()
    backend = one_launch(device)
    backend.records = records
    found, expected = train(backend, network), train(CudaBackend(EmulatedDevice()), network)
    assert "narrow_pass" in device.launched
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=2e-5, err_msg=name)


def test_a_step_is_the_batch_the_pass_and_the_update() -> None:
    device = Watched()
    train(one_launch(device), clip_norm=None)
    first = device.launched.index("narrow_pass")
    assert device.launched[first - 1 : first + 3] == ["gather_batch", "narrow_pass", "count_step", "adam_step"]


def test_the_variable_turns_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not CudaBackend(EmulatedDevice()).has_narrow_passes
    monkeypatch.setenv("GPUNET_NARROW_PASS", "1")
    assert CudaBackend(EmulatedDevice()).has_narrow_passes
    assert not CudaBackend(EmulatedDevice(), "tf32").has_narrow_passes


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ({"dtype": "float64"}, {}),
        ({"dropout": [0.1, 0.0]}, {}),
        ({"batch_norm": [True, False]}, {}),
        ({"scale_shift": False}, {}),
        ({"bias_before_batch_norm": True}, {}),
        ({"activation": ["relu", "tanh"]}, {}),
        ({}, {"sample_weight": np.ones(170)}),
        ({"loss": "sigmoid_cross_entropy"}, {}),
        ({"loss": "huber"}, {}),
        ({"loss": "softmax_cross_entropy"}, {}),  # of probabilities
        ({"loss": gpunet.SoftmaxCrossEntropy(0.1)}, {}),  # of labels
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_other_networks_go_the_usual_way(network: dict[str, Any], options: dict[str, Any]) -> None:
    device = Watched()
    backend = one_launch(device)
    net = gpunet.Network(SIZES, **{"batch_norm": True, "device": backend} | network)
    X, y = problem()
    targets = np.eye(SIZES[-1])[y] if isinstance(network.get("loss"), str) else y
    gpunet.fit(net, X, targets, epochs=1, batch_size=85, **options)
    assert "gemm" in device.launched
    assert "narrow_pass" not in device.launched


@pytest.mark.parametrize(
    ("sizes", "rows", "multiprocessors", "shared_memory", "expected"),
    [
        ((64, 64, 10), 128, 2, 2**20, True),
        ((65, 64, 10), 128, 2, 2**20, False),
        ((64, 65, 10), 128, 2, 2**20, False),
        ((64, 64, 65), 128, 2, 2**20, False),
        ((64, 64, 10), 129, 2, 2**20, False),
        ((64, 64, 10), 128, 2, shared_bytes(2), True),
        ((64, 64, 10), 128, 2, shared_bytes(2) - 1, False),
        ((64,) * 10 + (10,), 8192, 132, 227 * 1024, True),  # configuration e on an H200
        ((64,) * 11 + (10,), 8192, 132, 227 * 1024, False),
    ],
)
def test_what_fits(sizes: Any, rows: int, multiprocessors: int, shared_memory: int, expected: bool) -> None:
    device = EmulatedDevice(multiprocessor_count=multiprocessors)
    device.shared_memory_per_block = shared_memory
    network = gpunet.Network(sizes, batch_norm=True, device=CudaBackend(device))
    stack = network.narrow_stack(rows)
    assert (stack is not None) is expected
    if stack is not None:
        assert fits(Launcher(device), stack, rows)


def test_an_activation_without_a_text_does_not_fit() -> None:
    activation = gpunet.Activation("cube", forward=lambda s: s**3, derivative=lambda s: 3 * s**2, derivative_of="input")
    device = Watched()
    with pytest.warns(gpunet.NoKernelWarning):
        train(one_launch(device), {"activation": activation}, optimizer=gpunet.SGD(1e-4))
    assert "narrow_pass" not in device.launched


def test_what_changes_between_steps_counts() -> None:
    """The momentum of the running averages, of one layer: then the layers differ, and the usual way is gone."""

    class Changes(gpunet.Callback):
        def on_step_end(self, run: Any) -> None:
            if run.epoch == 2:
                run.network.layers[1].momentum = 0.5

    device = Watched()
    found = train(one_launch(device), callbacks=[Changes()])
    expected = train(CudaBackend(EmulatedDevice()), callbacks=[Changes()])
    assert "gemm" in device.launched
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=2e-5, err_msg=name)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("batch_norm", [True, False], ids=["batch norm", "bias"])
def test_divergence_names_step_and_layer(batch_norm: bool) -> None:
    messages, results = [], []
    for narrow in (True, False):
        backend = CudaBackend(EmulatedDevice())
        backend.has_narrow_passes = narrow
        network = gpunet.Network(SIZES, batch_norm=batch_norm, seed=3, device=backend)
        X, y = problem()
        X[100] = 3e38  # in the second batch
        with pytest.raises(gpunet.TrainingDivergedError) as caught:
            gpunet.fit(network, X, y, epochs=2, batch_size=70, shuffle=False)
        messages.append(str(caught.value))
        results.append(network.get_parameters() | network.get_state())
    assert messages[0] == messages[1]
    for name, values in results[1].items():
        np.testing.assert_allclose(results[0][name], values, rtol=1e-4, atol=2e-5, err_msg=name)
