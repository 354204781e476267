"""Activations of the user's own, compiled into the kernels; and which kernels gpunet's own are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.activations import ACTIVATIONS, Activation
from gpunet.backends.cuda import CudaBackend
from tests.emulation import EmulatedDevice
from tests.helpers.cuda import on_device, poisoned
from tests.helpers.networks import random_problem

# An expression, and statements with a kink in the middle.
SOFTSIGN = {
    "forward": lambda s: s / (1 + np.abs(s)),
    "derivative": lambda s: (1 + np.abs(s)) ** -2,
    "derivative_of": "input",
    "cuda_forward": "s / (1 + fabs(s))",
    "cuda_derivative": "1 / ((1 + fabs(s)) * (1 + fabs(s)))",
}
SQUARED_RELU = {
    "forward": lambda s: np.maximum(s, 0) ** 2,
    "derivative": lambda y: 2 * np.sqrt(y),
    "cuda_forward": "const A positive = s > A(0) ? s : A(0);\nreturn positive * positive;",
    "cuda_derivative": "2 * sqrt(y)",
}


def softsign(**changes: Any) -> Activation:
    return Activation("softsign", **{**SOFTSIGN, **changes})


FUNCTIONS = [softsign(), Activation("squared_relu", **SQUARED_RELU)]


def train(device: Any, activation: Activation, batch_norm: bool, dtype: str) -> gpunet.Network:
    X, y = random_problem(45, 6, 3)
    network = gpunet.Network(
        [6, 9, 8, 3], activation=activation, batch_norm=batch_norm, seed=2, dtype=dtype, device=device, dropout=0.2
    )
    gpunet.fit(network, X, y, epochs=3, batch_size=16, optimizer=gpunet.SGD(0.02, momentum=0.9), validation=(X, y))
    return network


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", FUNCTIONS, ids=str)
def test_it_trains_as_on_numpy(device: Any, activation: Activation, batch_norm: bool, dtype: str) -> None:
    """Forward, backward and inference; a warning, that the reference stands in for a kernel, would be an error."""
    found, expected = (train(where, activation, batch_norm, dtype) for where in (CudaBackend(device), "cpu"))
    tolerance = 1e-10 if dtype == "float64" else 2e-5
    for name, value in (expected.get_parameters() | expected.get_state()).items():
        actual = (found.get_parameters() | found.get_state())[name]
        np.testing.assert_allclose(actual, value, rtol=0, atol=tolerance * max(1, np.abs(value).max()), err_msg=name)
    X, _ = random_problem(45, 6, 3)
    np.testing.assert_allclose(found.logits(X), expected.logits(X), rtol=0, atol=100 * tolerance)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_it_is_fused_and_recorded(monkeypatch: pytest.MonkeyPatch, batch_norm: bool) -> None:
    device, recorded = EmulatedDevice(multiprocessor_count=2), []
    capture = device.capture

    def remembering(step: Any) -> Any:
        replay = capture(step)
        recorded.append(replay.names)
        return replay

    monkeypatch.setattr(device, "capture", remembering)
    train(CudaBackend(device), softsign(), batch_norm, "float32")
    names = [name for name in recorded[0] if "softsign_activation" in name]
    kernels = "batch_norm_{}_resident" if batch_norm else "bias_activation_{}"
    expected = [kernels.format(direction) for direction in ("forward", "forward", "backward", "backward")]
    assert [name.split("<")[0] for name in names] == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cuda_forward": "s / (2 + fabs(s))"}, r"cuda_forward: of 'softsign' it is -0.749571 at s = -5.98"),
        ({"cuda_derivative": "s"}, r"cuda_derivative: of 'softsign' it is -5.98"),
        ({"cuda_forward": "s > 5.5 ? A(0) / A(0) : s / (1 + fabs(s))"}, r"it is (-)?nan at s = 5.5"),
    ],
)
def test_a_text_that_computes_something_else(changes: dict[str, str], message: str) -> None:
    """Every time that it is used, not only the first."""
    backend = CudaBackend(EmulatedDevice())
    x = on_device(backend, np.ones((3, 2), np.float32))
    for _ in range(2):
        with pytest.raises(gpunet.InvalidValueError, match=message):
            backend.bias_activation_forward(x, None, softsign(**changes), x)
    np.testing.assert_array_equal(backend.to_numpy(x), 1)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_text_that_does_not_compile(batch_norm: bool) -> None:
    """The compiler's message names the text and its line."""
    network = gpunet.Network(
        [3, 4, 2],
        activation=softsign(cuda_derivative="const A unused = s;\nreturn softly(s);"),
        batch_norm=batch_norm,
        device=CudaBackend(EmulatedDevice()),
    )
    X, y = random_problem(8, 3, 2)
    message = (
        r"cuda_forward, cuda_derivative: those of 'softsign': .* with softsign does not compile:"
        r"(.|\n)*cuda_derivative of softsign:2:.*softly"
    )
    with pytest.raises(gpunet.InvalidValueError, match=message):
        network.loss_and_gradients(X, y)


def test_functions_of_one_name_are_kept_apart() -> None:
    backend = CudaBackend(EmulatedDevice())
    twice = softsign(
        forward=lambda s: 2 * s,
        derivative=lambda s: 2 * np.ones_like(s),
        cuda_forward="2 * s",
        cuda_derivative="A(2)",
    )
    x = on_device(backend, np.ones((3, 2)))
    for activation, value in ((softsign(), 0.5), (twice, 2.0), (softsign(), 0.5)):
        y = poisoned(backend, (3, 2), "float64")
        backend.bias_activation_forward(x, None, activation, y)
        np.testing.assert_array_equal(backend.to_numpy(y), value)


def test_without_text_the_reference_stands_in() -> None:
    backend = CudaBackend(EmulatedDevice())
    x, y = on_device(backend, np.ones((3, 2))), poisoned(backend, (3, 2), "float64")
    with pytest.warns(gpunet.NoKernelWarning, match="bias_activation_forward with softsign has no CUDA kernel"):
        backend.bias_activation_forward(x, None, softsign(cuda_forward=None, cuda_derivative=None), y)
    np.testing.assert_array_equal(backend.to_numpy(y), 0.5)


def test_all_of_gpunets_own_have_text() -> None:
    for name, kind in ACTIVATIONS.items():
        source = kind().cuda_source()
        assert f"struct {name}_activation" in source
        assert f'"cuda_forward of {name}"' in source
    bare = softsign(cuda_forward=None, cuda_derivative=None)
    with pytest.raises(gpunet.InvalidValueError, match="'softsign' has no CUDA text"):
        bare.cuda_source()


def test_functions_of_one_name_are_told_apart_by_their_texts(device: Any) -> None:
    doubled = Activation(
        "softsign",
        forward=lambda s: 2 * s,
        derivative=lambda s: 2 + 0 * s,
        derivative_of="input",
        cuda_forward="2 * s",
        cuda_derivative="2",
    )
    backend = CudaBackend(device)
    s = backend.asarray(np.linspace(-3, 3, 21, dtype=np.float32).reshape(3, 7))
    for activation in (softsign(), doubled, softsign()):
        out = backend.empty(s.shape, np.float32)
        backend.bias_activation_forward(s, None, activation, out)
        np.testing.assert_allclose(backend.to_numpy(out), activation.forward(backend.to_numpy(s)), rtol=1e-6)
    with pytest.raises(gpunet.InvalidValueError, match="cuda_derivative: of 'softsign'"):
        backend.bias_activation_forward(s, None, softsign(cuda_derivative="s + s"), backend.empty(s.shape, np.float32))
