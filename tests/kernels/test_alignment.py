"""Every array of every operation at an address of its own: one after the other starts off the 16 bytes of the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.activations import ReLU
from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend, batch_norm, bernoulli, dropout, gather, grids
from tests.emulation import EmulatedDevice, EmulationError
from tests.helpers.cuda import on_device, tolerance

ROWS, COLUMNS = 12, 16  # every row is a whole number of the widest accesses
SETTINGS = {"l2": 1e-2, "momentum": 0.9, "nesterov": True}
MOMENTS = {"l2": 1e-2, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "weight_decay": 0.1}

# The arrays that an access of several elements moves.
WIDE = {
    "bias_activation_forward": {"s", "out"},
    "bias_activation_backward": {"dy", "kept", "ds"},
    "batch_norm_activation_forward": {"s", "out"},
    "batch_norm_activation_backward": {"dy", "s", "ds"},
    "batch_norm_activation_inference": {"s", "out"},
    "dropout_forward": {"x", "out", "mask"},
    "dropout_backward": {"dy", "mask", "dx"},
    "sample_bernoulli": {"probabilities", "out"},
    "softmax_cross_entropy": set(),
    "sigmoid_cross_entropy": set(),
    "squared_error": set(),
    "clip_factor": {"parameters", "gradients"},
    "sgd_step": {"parameters", "gradients", "velocity"},
    "adam_step": {"parameters", "gradients", "first_moment", "second_moment"},
    "gather_rows": {"source", "out"},
}
OPERATIONS = [
    (operation, dtype)
    for operation in WIDE
    for dtype in (("float32",) if operation in ("clip_factor", "sgd_step", "adam_step") else ("float32", "float16"))
]


def arguments_of(operation: str, dtype: str) -> dict[str, Any]:
    """Return what an operation is given on the host, by the names of its parameters; outputs are NaN or 255."""
    rng = np.random.default_rng(0)

    def matrix() -> Any:
        return rng.standard_normal((ROWS, COLUMNS)).astype(dtype)

    def vector(size: int = COLUMNS) -> Any:
        return rng.uniform(0.5, 1.5, size).astype(np.float32)

    def output(*shape: int) -> Any:
        return np.full(shape, np.nan, np.float32 if len(shape) == 1 else dtype)

    shape = (ROWS, COLUMNS)
    step, activation = np.array([3], np.int64), ReLU()
    weights, loss = vector(ROWS), output(2)
    affine = {"gamma": vector(), "beta": vector(), "activation": activation}
    running = {"running_mean": vector(), "running_variance": vector()}
    bits = {"seed": 7, "layer": 2, "step": step}
    flat = {"parameters": vector(61), "gradients": vector(61)}
    update = {"weight_count": 40, "clip": vector(1), "loss": np.ones(2, np.float32)}
    if operation.startswith("batch_norm"):
        s, dy, forward = matrix(), matrix(), {"out": output(*shape), "mean": output(COLUMNS)}
        forward |= {"inverse_std": output(COLUMNS)}
        if operation.endswith("forward"):
            return {"s": s} | affine | forward | running | {"momentum": 0.1, "epsilon": 1e-5}
        if operation.endswith("inference"):
            return {"s": s} | affine | {"out": output(*shape)} | running | {"epsilon": 1e-5}
        exact = {name: np.full(value.shape, np.nan) for name, value in forward.items()}
        Backend().batch_norm_activation_forward(s.astype(float), **affine, **exact, **running, momentum=0, epsilon=1e-5)
        statistics = {name: exact[name].astype(np.float32) for name in ("mean", "inverse_std")}
        gradients = {"ds": output(*shape), "dgamma": output(COLUMNS), "dbeta": output(COLUMNS)}
        return {"dy": dy, "s": s, "y": exact["out"].astype(dtype)} | affine | statistics | gradients
    if operation.endswith(("cross_entropy", "squared_error")):
        targets = rng.uniform(0, 1, shape).astype(dtype)
        if operation.startswith("softmax"):
            targets = rng.integers(0, COLUMNS, ROWS, np.int32)
        return {"outputs": matrix(), "targets": targets, "weights": weights, "doutputs": output(*shape), "loss": loss}
    found: dict[str, dict[str, Any]] = {
        "bias_activation_forward": {"s": matrix(), "bias": vector(), "activation": activation, "out": output(*shape)},
        "bias_activation_backward": {
            "dy": matrix(),
            "kept": matrix(),
            "activation": activation,
            "ds": output(*shape),
            "dbias": output(COLUMNS),
            "bias": vector(),
        },
        "dropout_forward": {"x": matrix(), "out": output(*shape), "mask": np.full(shape, 255, np.uint8), "rate": 0.5}
        | bits,
        "dropout_backward": {
            "dy": matrix(),
            "mask": (matrix() > 0).astype(np.uint8),
            "rate": 0.5,
            "dx": output(*shape),
        },
        "sample_bernoulli": {"probabilities": rng.uniform(0, 1, shape).astype(dtype), "out": output(*shape)} | bits,
        "clip_factor": flat | {"weight_count": 40, "l2": 1e-2, "maximum_norm": 0.1, "out": output(1)},
        "sgd_step": flat | {"velocity": vector(61), "scalars": vector(1)} | update | SETTINGS,
        "adam_step": flat
        | {"first_moment": vector(61), "second_moment": vector(61), "scalars": vector(3)}
        | update
        | MOMENTS,
        "gather_rows": {"source": matrix(), "index": rng.integers(0, ROWS, 7, np.int32), "out": output(7, COLUMNS)},
    }
    return found[operation]


def check(device: Any, operation: str, dtype: str, shifted: str, offset: int) -> None:
    """Run an operation with one array ``offset`` elements off, and compare every array with the reference's."""
    backend, given = CudaBackend(device), arguments_of(operation, dtype)
    there = {
        name: on_device(backend, value, offset if name == shifted else 0) if isinstance(value, np.ndarray) else value
        for name, value in given.items()
    }
    exact = {
        name: value.astype(float) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
        for name, value in given.items()
    }
    getattr(backend, operation)(**there)
    getattr(Backend(), operation)(**exact)
    for name, value in given.items():
        if isinstance(value, np.ndarray):
            found = backend.to_numpy(there[name])
            np.testing.assert_allclose(found, exact[name], **tolerance(dtype), err_msg=f"{name}, {shifted} shifted")


def arrays(operation: str, dtype: str) -> list[str]:
    return [name for name, value in arguments_of(operation, dtype).items() if isinstance(value, np.ndarray)]


@pytest.mark.parametrize(("operation", "dtype"), OPERATIONS)
def test_one_array_off(device: Any, operation: str, dtype: str) -> None:
    for name in arrays(operation, dtype):
        for offset in (1, 2):
            check(device, operation, dtype, name, offset)


@pytest.mark.parametrize(("operation", "dtype"), OPERATIONS)
def test_an_array_that_no_plan_looks_at_is_found(operation: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: plans that take every address for aligned. Each of the wide arrays then fails by itself."""
    for module in (batch_norm, bernoulli, dropout, gather, grids):
        monkeypatch.setattr(module, "is_aligned", lambda *_: True)
    failing = set()
    for name in arrays(operation, dtype):
        try:
            check(EmulatedDevice(), operation, dtype, name, 1)
        except EmulationError as error:
            failing |= {name} if "misaligned address" in str(error) else {str(error)}
    assert failing == WIDE[operation]
