"""What callbacks change while a network trains counts from the next step on, also where steps are recorded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.activations import Activation, SiLU, Softplus
from gpunet.backends import Backend, NumpyBackend
from gpunet.layers import LOSSES
from gpunet.optimizers import OPTIMIZERS
from tests.helpers.networks import random_problem
from tests.helpers.recording import RecordingBackend

ROWS, BATCH = 42, 8  # five batches of eight rows and one of two in an epoch
EPOCHS, CHANGED_AFTER = 2, 4

Change = Callable[[gpunet.Network, gpunet.Optimizer], Any]
Outcome = tuple[str, dict[str, Any]]


class Changing(gpunet.Callback):
    """Changes something after a step, when recordings have been made, and keeps the loss of every step."""

    def __init__(self, change: Change, optimizer: gpunet.Optimizer) -> None:
        self.change = change
        self.optimizer = optimizer
        self.losses: list[float] = []

    def on_step_end(self, run: gpunet.Run) -> None:
        network = run.network
        self.losses.append(float(network.backend.to_numpy(network.loss_layer.value)[0]))
        if network.steps == CHANGED_AFTER:
            self.change(network, self.optimizer)


def new_network(backend: Backend | str, loss: str = "softmax_cross_entropy") -> gpunet.Network:
    return gpunet.Network(
        [5, 6, 7, 3],
        activation=[own_activation(), "leaky_relu(0.2)"],
        batch_norm=[True, False],
        dropout=[0.3, 0.2],
        loss=loss,
        seed=1,
        dtype="float64",
        device=backend,
    )


def own_activation() -> Activation:
    return Activation(
        "squareplus",
        forward=lambda s: (s + np.sqrt(s * s + 4)) / 2,
        derivative=lambda s: (1 + s / np.sqrt(s * s + 4)) / 2,
        derivative_of="input",
    )


def new_optimizer(name: str) -> gpunet.Optimizer:
    return OPTIMIZERS[name](0.05, **({"momentum": 0.9} if name == "sgd" else {}))


def outcome(
    backend: Backend | str, change: Change, optimizer: str = "sgd", loss: str = "softmax_cross_entropy"
) -> Outcome:
    """Return how a run ends in which ``change`` is made: with which error, and with which numbers."""
    X, y = random_problem(ROWS, 5, 3)
    targets = y if LOSSES[loss].is_classifier else np.eye(3)[y]
    network, its = new_network(backend, loss), new_optimizer(optimizer)
    changing = Changing(change, its)
    error = ""
    try:
        gpunet.fit(
            network,
            X,
            targets,
            epochs=EPOCHS,
            batch_size=BATCH,
            optimizer=its,
            l2=1e-3,
            clip_norm=0.7,
            sample_weight=np.linspace(0.5, 1.5, ROWS),
            callbacks=[changing],
        )
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    numbers: dict[str, Any] = network.get_parameters() | network.get_state()
    numbers |= {name: its.backend.to_numpy(moment) for name, moment in its.moments.items()}
    return error, numbers | {"losses": np.array(changing.losses), "steps": np.array([network.steps, its.step])}


def assert_same(found: Outcome, expected: Outcome) -> None:
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        np.testing.assert_array_equal(found[1][name], value, err_msg=name)


# --- every attribute --------------------------------------------------------------------------------------------------


def attributes(one: object) -> Iterator[str]:
    """Yield the names of all that ``one`` has in public and lets be set."""
    for name in dir(one):
        if name[0] != "_" and not callable(getattr(type(one), name, None)):
            yield name


def another(value: Any, backend: Backend) -> Any:
    """Return something else that could stand in the place of ``value``."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value / 2 or 0.25
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return f"{value}9"
    if isinstance(value, Activation):
        return Softplus() if isinstance(value, SiLU) else SiLU()
    if isinstance(value, gpunet.Schedule):
        return gpunet.StepRate(0.2, 2, 0.5)
    if isinstance(value, np.ndarray):
        new = backend.empty(value.shape, value.dtype)
        backend.copy(value, new)
        return new
    if isinstance(value, dict):
        return {name: another(entry, backend) for name, entry in value.items()}
    if isinstance(value, (tuple, list)) and value and isinstance(value[0], (bool, int, float, str)):
        return type(value)(another(entry, backend) for entry in value)
    return copy.copy(value)


def parts(network: gpunet.Network, optimizer: gpunet.Optimizer) -> dict[str, Any]:
    """Return everything that callbacks can get hold of and a step reads."""
    layers = {layer.name: layer for layer in network.layers}
    own = {"network": network, "loss": network.loss_layer, "layout": network.layout, "optimizer": optimizer}
    activations = {"activation of the user": network.activations[0], "leaky_relu": network.activations[1]}
    return layers | own | activations


def settable() -> list[tuple[str, str, str, str]]:
    """Return (optimiser, loss, part, attribute) for every public attribute there is."""
    found = set()
    for optimizer, loss in [*((name, "squared_error") for name in OPTIMIZERS), *(("sgd", name) for name in LOSSES)]:
        its, network = new_optimizer(optimizer), new_network("cpu", loss)
        its.attach(network.backend, network.flat_parameters)
        for part, one in parts(network, its).items():
            named = optimizer if part == "optimizer" else "sgd", loss if part == "loss" else "squared_error"
            found |= {(*named, part, name) for name in attributes(one)}
    return sorted(found)


@pytest.mark.parametrize(("optimizer", "loss", "part", "name"), settable())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_attribute_that_is_set(optimizer: str, loss: str, part: str, name: str) -> None:
    def change(network: gpunet.Network, its: gpunet.Optimizer) -> None:
        one = parts(network, its)[part]
        setattr(one, name, another(getattr(one, name), network.backend))

    assert_same(outcome(RecordingBackend(), change, optimizer, loss), outcome(NumpyBackend(), change, optimizer, loss))
