"""What callbacks do to network and optimiser in the middle of a run has the same effect on CUDA as on NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices.cupy import CupyDevice
from gpunet.training.evaluation import evaluate
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy
from tests.helpers.changes import Change, assert_same, new_network, outcome, problem, settable, setting
from tests.helpers.networks import random_problem


def of_optimizer(name: str, value: Any) -> Change:
    """Return what sets an attribute of the optimiser."""
    return lambda network, optimizer: setattr(optimizer, name, value)


def of_layer(layer: str, name: str, value: Any) -> Change:
    """Return what sets an attribute of a layer."""
    return lambda network, optimizer: setattr(next(one for one in network.layers if one.name == layer), name, value)


def write_moments(network: Any, optimizer: Any) -> None:
    for moment in optimizer.moments.values():
        network.backend.copy(np.full(moment.shape, 0.01), moment)


def restore_a_copy(network: Any, optimizer: Any) -> None:
    """Go back to what was saved, as a user does who keeps the state of the best step."""
    saved = network.get_parameters() | network.get_state()
    moments = {name: network.backend.to_numpy(moment).copy() for name, moment in optimizer.moments.items()}
    optimizer.reset()
    network.set_parameters({name: value / 2 for name, value in saved.items()})
    for name, moment in moments.items():
        network.backend.copy(moment, optimizer.moments[name])


def train_another(network: Any, optimizer: Any) -> None:
    gpunet.fit(new_network("cpu", "squared_error"), *problem("squared_error"), epochs=1)


def look_at_many_rows(network: Any, optimizer: Any) -> None:
    """Need larger buffers than the step has."""
    X, y = random_problem(100, 5, 3)
    network.predict(X)
    network.predict_proba(X[:3])
    evaluate(network, X, y)
    network.loss_and_gradients(X, y, l2=0.1)


ACTIONS: dict[str, tuple[str, Change]] = {
    "momentum": ("sgd", of_optimizer("momentum", 0.5)),
    "no momentum": ("sgd", of_optimizer("momentum", 0.0)),
    "nesterov": ("sgd", of_optimizer("nesterov", True)),
    "beta_1": ("adam", of_optimizer("beta_1", 0.5)),
    "beta_2": ("adam", of_optimizer("beta_2", 0.9)),
    "epsilon": ("adam", of_optimizer("epsilon", 0.1)),
    "weight_decay": ("adamw", of_optimizer("weight_decay", 0.5)),
    "learning_rate": ("adam", of_optimizer("learning_rate", 0.3)),
    "schedule": ("sgd", of_optimizer("schedule", gpunet.StepRate(0.3, 2, 0.5))),
    "step": ("adam", of_optimizer("step", 100)),
    "reset": ("adam", lambda network, optimizer: optimizer.reset()),
    "reset of sgd": ("sgd", lambda network, optimizer: optimizer.reset()),
    "moments": ("adam", write_moments),
    "a saved state": ("adam", restore_a_copy),
    "set_parameters": ("sgd", lambda network, optimizer: network.set_parameters({"W2": np.full((7, 6), 0.1)})),
    "reset_parameters": ("sgd", lambda network, optimizer: network.reset_parameters()),
    "set_step": ("sgd", lambda network, optimizer: network.set_step(50)),
    "dropout rate": ("sgd", of_layer("dropout1", "rate", 0.6)),
    "dropout seed": ("sgd", of_layer("dropout2", "seed", 2**40 + 7)),
    "batch norm momentum": ("sgd", of_layer("batch_norm1", "momentum", 0.5)),
    "batch norm epsilon, which is refused": ("sgd", of_layer("batch_norm1", "epsilon", 0.1)),
    "predictions": ("sgd", look_at_many_rows),
    "another run": ("sgd", train_another),
}


def emulated(monkeypatch: pytest.MonkeyPatch) -> CudaBackend:
    return CudaBackend(EmulatedDevice(multiprocessor_count=2))


def stand_in(monkeypatch: pytest.MonkeyPatch) -> CudaBackend:
    """Return the backend of the real device on the stand-in for CuPy, whose operations run when someone waits."""
    fake_cupy.install(
        monkeypatch, fake_cupy.FakeCupy(EmulatedDevice(multiprocessor_count=2, compute_capability=(8, 0)))
    )
    return CudaBackend(CupyDevice(0))


@pytest.mark.parametrize("new_backend", [emulated, stand_in])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_change_counts_from_the_next_step_on(
    action: str, new_backend: Callable[[pytest.MonkeyPatch], Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer, change = ACTIONS[action]
    found, expected = (outcome(backend, change, optimizer) for backend in (new_backend(monkeypatch), "cpu"))
    assert_same(found, expected, tolerance=1e-11)


# The others are refused, which asks no device.
OF_PARTS = [case for case in settable() if case[2] not in ("network", "layout", "first activation", "leaky_relu")]


@pytest.mark.parametrize(("optimizer", "loss", "part", "name"), OF_PARTS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_attribute(device: Any, optimizer: str, loss: str, part: str, name: str) -> None:
    change = setting(part, name)
    found, expected = (outcome(backend, change, optimizer, loss) for backend in (CudaBackend(device), "cpu"))
    kinds = found[0].split(":")[0], expected[0].split(":")[0]
    assert kinds[0] == kinds[1]
    assert_same(("", found[1]), ("", expected[1]), tolerance=1e-11)
