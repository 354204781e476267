"""What the CUDA backend does for what has no kernel: the reference, on the device's arrays, step by step, said once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import gpunet
from gpunet.activations import Activation, ReLU
from gpunet.backends import Backend
from gpunet.backends.backend import operation
from gpunet.backends.cuda import CudaBackend
from tests.emulation import EmulatedDevice, EmulationError
from tests.helpers.networks import random_problem


@dataclass(frozen=True)
class Cube(Activation):
    name: ClassVar[str] = "cube"

    def forward(self, s: Any) -> Any:
        return s**3

    def derivative(self, y: Any) -> Any:
        return 3 * np.cbrt(y) ** 2


class WithoutItsLoss(CudaBackend):
    softmax_cross_entropy = Backend.softmax_cross_entropy


class Recorded(EmulatedDevice):
    """An emulated device that counts its finished recordings."""

    recordings = 0

    def capture(self, step: Any) -> Any:
        replay = super().capture(step)
        self.recordings += 1
        return replay


def train(device: Backend | str, **arguments: Any) -> gpunet.Network:
    X, y = random_problem(45, 6, 3)
    network = gpunet.Network([6, 9, 7, 3], seed=2, dtype="float64", device=device, dropout=0.2, **arguments)
    gpunet.fit(network, X, y, epochs=3, batch_size=16, optimizer=gpunet.SGD(0.02, momentum=0.9), validation=(X, y))
    return network


def assert_same(found: gpunet.Network, expected: gpunet.Network) -> None:
    for name, value in (expected.get_parameters() | expected.get_state()).items():
        actual = (found.get_parameters() | found.get_state())[name]
        np.testing.assert_allclose(actual, value, rtol=1e-9, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("batch_norm", [False, True, [True, False]])
def test_an_activation_without_kernel_trains_as_on_numpy(batch_norm: Any) -> None:
    device, arguments = Recorded(multiprocessor_count=2), {"batch_norm": batch_norm, "activation": ["relu", Cube()]}
    with pytest.warns(gpunet.NoKernelWarning, match="with cube has no CUDA kernel"):
        found = train(CudaBackend(device), **arguments)
    assert_same(found, train("cpu", **arguments))
    assert device.recordings == 0
    device.check_guards()


def test_an_operation_without_kernel_trains_as_on_numpy() -> None:
    device = Recorded(multiprocessor_count=2)
    with pytest.warns(gpunet.NoKernelWarning, match="^softmax_cross_entropy has no CUDA kernel: .* on emulated"):
        found = train(WithoutItsLoss(device))
    assert_same(found, train("cpu"))
    assert device.recordings == 0


def test_it_is_said_once_for_each_operation_and_activation() -> None:
    backend = CudaBackend(EmulatedDevice())
    x = backend.zeros((2, 2), np.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            backend.bias_activation_forward(x, None, Cube(), x)
            backend.bias_activation_backward(x, x, Cube(), x, None)
            backend.bias_activation_forward(x, None, ReLU(), x)
    assert [str(warning.message).split(" has no")[0] for warning in caught] == [
        "bias_activation_forward with cube",
        "bias_activation_backward with cube",
    ]


def test_a_new_operation_of_the_reference_runs_on_the_device() -> None:
    """Nothing of it need be known to the CUDA backend."""

    def doubled(xp: Any, x: Any, out: Any) -> None:
        xp.multiply(x, 2, out=out)

    class Extended(CudaBackend):
        double = operation(doubled)

    backend = Extended(EmulatedDevice())
    x, out = backend.asarray(np.arange(5.0)), backend.empty(5, np.float64)
    with pytest.warns(gpunet.NoKernelWarning, match="^doubled has no CUDA kernel"):
        backend.double(x, out)
    np.testing.assert_array_equal(backend.to_numpy(out), 2 * np.arange(5.0))
    assert backend.capture(lambda: backend.double(x, x)) is not None
    np.testing.assert_array_equal(backend.to_numpy(x), np.arange(5.0))


def test_array_expressions_are_refused_while_a_step_is_recorded() -> None:
    device = EmulatedDevice()

    def step() -> None:
        with device.array_module():
            pass

    with pytest.raises(EmulationError, match="an array expression is not permitted during a capture"):
        device.capture(step)
