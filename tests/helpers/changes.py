"""Runs in whose middle a callback changes something, on one backend and on another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import gpunet
from gpunet.activations import Activation, SiLU, Softplus
from gpunet.backends import Backend
from gpunet.layers import LOSSES
from gpunet.optimizers import OPTIMIZERS
from tests.helpers.networks import random_problem

# Three batches of eight rows and one of two in an epoch; the change comes when there is a recording, and in the middle.
ROWS, BATCH = 26, 8
EPOCHS, CHANGED_AFTER = 2, 3

Change = Callable[[gpunet.Network, gpunet.Optimizer], Any]
Outcome = tuple[str, dict[str, Any]]


class Changing(gpunet.Callback):
    """Changes something after a step, or after each, and keeps the loss of every step."""

    def __init__(self, change: Change, optimizer: gpunet.Optimizer, each: bool = False) -> None:
        self.change = change
        self.optimizer = optimizer
        self.each = each
        self.losses: list[float] = []

    def on_step_end(self, run: gpunet.Run) -> None:
        network = run.network
        self.losses.append(float(network.backend.to_numpy(network.loss_layer.value)[0]))
        if self.each or len(self.losses) == CHANGED_AFTER:
            self.change(network, self.optimizer)


def problem(loss: str = "softmax_cross_entropy") -> tuple[Any, Any]:
    """Return what the runs learn: features and targets."""
    X, y = random_problem(ROWS, 5, 3)
    return X, y if LOSSES[loss].is_classifier else np.eye(3)[y]


def new_network(backend: Backend | str, loss: str, first: str | Activation = "tanh") -> gpunet.Network:
    """Return a network with every kind of layer."""
    return gpunet.Network(
        [5, 6, 7, 3],
        activation=[first, "leaky_relu(0.2)"],
        batch_norm=[True, False],
        dropout=[0.3, 0.2],
        loss=loss,
        seed=1,
        dtype="float64",
        device=backend,
    )


def new_optimizer(name: str) -> gpunet.Optimizer:
    """Return an optimiser; SGD has a momentum."""
    return OPTIMIZERS[name](0.05, **({"momentum": 0.9} if name == "sgd" else {}))


def outcome(
    backend: Backend | str,
    change: Change,
    optimizer: str | gpunet.Optimizer = "sgd",
    loss: str = "softmax_cross_entropy",
    first: str | Activation = "tanh",
    each: bool = False,
) -> Outcome:
    """Return how a run ends in which ``change`` is made: with which error, and with which numbers."""
    network = new_network(backend, loss, first)
    its = new_optimizer(optimizer) if isinstance(optimizer, str) else optimizer
    changing, error = Changing(change, its, each), ""
    try:
        gpunet.fit(
            network,
            *problem(loss),
            epochs=EPOCHS,
            batch_size=BATCH,
            optimizer=its,
            l2=1e-3,
            clip_norm=0.7,
            sample_weight=np.linspace(0.5, 1.5, ROWS),
            callbacks=[changing],
        )
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"
    numbers: dict[str, Any] = network.get_parameters() | network.get_state()
    numbers |= {name: its.backend.to_numpy(moment) for name, moment in its.moments.items()}
    return error, numbers | {"losses": np.array(changing.losses), "steps": np.array([network.steps, its.step])}


def assert_same(found: Outcome, expected: Outcome, tolerance: float = 0.0) -> None:
    """Compare two outcomes, bit for bit or to an absolute tolerance."""
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        np.testing.assert_allclose(found[1][name], value, rtol=0, atol=tolerance, err_msg=name)


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
    if isinstance(value, tuple):
        return value[::-1]
    return value if isinstance(value, Backend) else copy.copy(value)  # a network's backend is where all its arrays are


def parts(network: gpunet.Network, optimizer: gpunet.Optimizer) -> dict[str, Any]:
    """Return everything that callbacks can get hold of and a step reads."""
    layers = {layer.name: layer for layer in network.layers}
    own = {"network": network, "loss": network.loss_layer, "layout": network.layout, "optimizer": optimizer}
    activations = {"first activation": network.activations[0], "leaky_relu": network.activations[1]}
    return layers | own | activations


def setting(part: str, name: str) -> Change:
    """Return what sets an attribute of a part to something else."""

    def change(network: gpunet.Network, optimizer: gpunet.Optimizer) -> None:
        one = parts(network, optimizer)[part]
        setattr(one, name, another(getattr(one, name), network.backend))

    return change


def settable(first: str | Activation = "tanh") -> list[tuple[str, str, str, str]]:
    """Return (optimiser, loss, part, attribute) for every public attribute of a network with this activation."""
    found = set()
    for optimizer, loss in [*((name, "squared_error") for name in OPTIMIZERS), *(("sgd", name) for name in LOSSES)]:
        its, network = new_optimizer(optimizer), new_network("cpu", loss, first)
        its.attach(network.backend, network.flat_parameters)
        for part, one in parts(network, its).items():
            named = optimizer if part == "optimizer" else "sgd", loss if part == "loss" else "squared_error"
            found |= {(*named, part, name) for name in attributes(one)}
    return sorted(found)
