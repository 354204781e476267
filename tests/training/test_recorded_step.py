"""What callbacks change while a network trains counts from the next step on, also where steps are recorded."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import numpy as np
import pytest

import gpunet
import gpunet.initializers
from gpunet.activations import Activation
from gpunet.backends import Backend, NumpyBackend
from tests.helpers.changes import another, assert_same, new_network, new_optimizer, outcome, problem, settable, setting
from tests.helpers.recording import RecordingBackend

# --- every attribute --------------------------------------------------------------------------------------------------


def squareplus() -> Activation:
    return Activation(
        "squareplus",
        forward=lambda s: (s + np.sqrt(s * s + 4)) / 2,
        derivative=lambda s: (1 + s / np.sqrt(s * s + 4)) / 2,
        derivative_of="input",
    )


@pytest.mark.parametrize(("optimizer", "loss", "part", "name"), settable(squareplus()))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_attribute_that_is_set(optimizer: str, loss: str, part: str, name: str) -> None:
    change = setting(part, name)
    found, expected = (
        outcome(backend, change, optimizer, loss, squareplus()) for backend in (RecordingBackend(), NumpyBackend())
    )
    assert_same(found, expected)


class Scaled(gpunet.SGD):
    """A rule of the user's own, with a number that nothing else knows."""

    factor = 1.0

    def update(self, parameters: Any, gradients: Any, weight_count: int, l2: float, clip: Any, loss: Any) -> None:
        velocity, momentum = self.moments["velocity"], self.momentum * self.factor
        self.backend.sgd_step(
            parameters,
            gradients,
            velocity,
            weight_count,
            self.scalars,
            clip,
            loss,
            l2=l2,
            momentum=momentum,
            nesterov=False,
        )


def test_an_attribute_that_nobody_has_thought_of() -> None:
    def change(network: gpunet.Network, optimizer: Any) -> None:
        optimizer.factor = 0.5

    found, expected, unchanged = (
        outcome(backend, what, Scaled(0.05, momentum=0.9))
        for backend, what in ((RecordingBackend(), change), ("cpu", change), ("cpu", nothing))
    )
    assert_same(found, expected)
    assert not np.array_equal(found[1]["W1"], unchanged[1]["W1"])


# --- how often it is recorded -----------------------------------------------------------------------------------------


def nothing(network: gpunet.Network, optimizer: gpunet.Optimizer) -> None:
    pass


def test_steps_are_recorded() -> None:
    """One of eight rows, of two, and of an epoch's end; that they are repeated is what the tests above would notice."""
    backend = RecordingBackend()
    assert_same(outcome(backend, nothing), outcome("cpu", nothing))
    assert backend.recordings == 3


@pytest.mark.parametrize("name", ["learning_rate", "schedule", "the same momentum"])
def test_what_a_step_reads_from_memory_needs_no_other_recording(name: str) -> None:
    def change(network: gpunet.Network, optimizer: Any) -> None:
        if name == "the same momentum":
            optimizer.momentum = float(str(optimizer.momentum))  # another object
        elif name == "schedule":
            optimizer.schedule = gpunet.StepRate(0.1 / (1 + network.steps), 3)
        else:
            optimizer.learning_rate = 0.1 / (1 + network.steps)

    backend = RecordingBackend()
    assert_same(outcome(backend, change, each=True), outcome("cpu", change, each=True))
    assert backend.recordings == 3


def test_a_value_that_changes_at_every_step_makes_no_recordings() -> None:
    def change(network: gpunet.Network, optimizer: Any) -> None:
        optimizer.momentum = 1 / (2 + network.steps)

    backend = RecordingBackend()
    assert_same(outcome(backend, change, each=True), outcome("cpu", change, each=True))
    assert backend.recordings == 1  # of the epoch's end


def test_a_recording_takes_the_place_of_the_one_before() -> None:
    kept = []

    def change(network: Any, optimizer: Any) -> None:
        if network.steps % 3 == 0:
            optimizer.momentum = 1 / (2 + network.steps)
        kept.append(len(network.backend.kept))

    backend = RecordingBackend()
    network, optimizer = new_network(backend, "softmax_cross_entropy"), gpunet.SGD(0.1, momentum=0.5)

    class Changing(gpunet.Callback):
        def on_step_end(self, run: gpunet.Run) -> None:
            change(run.network, optimizer)

    gc.disable()  # it is not the collector's to find
    try:
        gpunet.fit(network, *problem(), epochs=30, batch_size=8, optimizer=optimizer, callbacks=[Changing()])
    finally:
        gc.enable()
    assert backend.recordings > 10
    assert max(kept) <= 3


@pytest.mark.parametrize("backend", [RecordingBackend, NumpyBackend])
def test_a_network_that_has_been_trained_goes_with_its_last_name(backend: type[Backend]) -> None:
    """What it has on a device is not the garbage collector's to find."""
    network = new_network(backend(), "softmax_cross_entropy")
    gone = weakref.ref(network)
    gc.disable()
    try:
        gpunet.fit(network, *problem(), epochs=3, batch_size=8)
        del network
        assert gone() is None
    finally:
        gc.enable()


# --- setters ----------------------------------------------------------------------------------------------------------


def test_a_learning_rate_that_is_set_stays() -> None:
    optimizer = gpunet.SGD(gpunet.StepRate(0.4, 10))
    assert optimizer.learning_rate == 0.4
    optimizer.step = 10
    assert optimizer.learning_rate == pytest.approx(0.04)
    optimizer.learning_rate = 0.3
    assert optimizer.schedule == gpunet.ConstantRate(0.3)
    optimizer.learning_rate = gpunet.CosineRate(0.2, 100)
    assert optimizer.schedule == gpunet.CosineRate(0.2, 100)


@pytest.mark.parametrize(
    ("optimizer", "name", "value"),
    [
        ("sgd", "momentum", 1.0),
        ("sgd", "momentum", "0.5"),
        ("sgd", "nesterov", 1),
        ("sgd", "learning_rate", -0.1),
        ("sgd", "schedule", float("nan")),
        ("adam", "beta_1", -0.1),
        ("adam", "beta_2", 1.0),
        ("adam", "epsilon", 0.0),
        ("adam", "epsilon", 1e-320),  # would be subnormal beside the parameters
        ("adamw", "weight_decay", float("inf")),
    ],
)
def test_a_setter_refuses_what_the_constructor_would(optimizer: str, name: str, value: Any) -> None:
    its, network = new_optimizer(optimizer), new_network("cpu", "squared_error")
    its.attach(network.backend, network.flat_parameters)
    before = its.hyperparameters | {"schedule": its.schedule}
    with pytest.raises((gpunet.InvalidValueError, gpunet.InvalidTypeError), match=f"^{name}: "):
        setattr(its, name, value)
    assert its.hyperparameters | {"schedule": its.schedule} == before


def test_a_momentum_that_is_set_later_has_its_velocity() -> None:
    def change(network: gpunet.Network, optimizer: Any) -> None:
        optimizer.momentum = 0.9 if optimizer.momentum == 0 else 0.0

    plain = outcome("cpu", nothing, gpunet.SGD(0.05))
    for each in (False, True):
        found, expected = (
            outcome(backend, change, gpunet.SGD(0.05), each=each) for backend in (RecordingBackend(), "cpu")
        )
        assert_same(found, expected)
        assert ("velocity" in found[1]) is not each
        assert np.array_equal(found[1]["W1"], plain[1]["W1"]) is each  # a velocity lasts one step there: the gradient


def test_what_the_layers_have_now_is_copied_and_saved(tmp_path: Any) -> None:
    network = new_network("cpu", "squared_error")
    layers = {layer.name: layer for layer in network.layers}
    layers["dropout2"].rate, layers["batch_norm1"].momentum = 0.6, 0.4
    X, y = problem("squared_error")
    for twin in (copy.deepcopy(network), gpunet.load(network.save(tmp_path / "network.npz"), device="cpu")):
        for one in (network, twin):
            one.set_step(0)
        assert twin.configuration == network.configuration
        assert network.loss_and_gradients(X, y)[0] == twin.loss_and_gradients(X, y)[0]


@pytest.mark.parametrize("name", ["activation", "epsilon", "index", "columns", "name"])
def test_what_a_network_computes_stays(name: str) -> None:
    layer = new_network("cpu", "squared_error").layers[1]
    with pytest.raises(AttributeError):
        setattr(layer, name, another(getattr(layer, name), NumpyBackend()))


def test_arrays_of_network_and_optimizer_are_not_exchanged() -> None:
    network, optimizer = new_network("cpu", "squared_error"), gpunet.Adam()
    optimizer.attach(network.backend, network.flat_parameters)
    for views in (network.parameters, network.gradients, network.state, optimizer.moments):
        name, view = next(iter(views.items()))
        for exchange in (
            lambda views=views, name=name, view=view: views.__setitem__(name, np.zeros_like(view)),
            lambda views=views: views.update({}),
            lambda views=views, name=name: views.pop(name),
        ):
            with pytest.raises(gpunet.InvalidTypeError, match="cannot be exchanged"):
                exchange()
        twin = copy.deepcopy(views)
        assert type(twin) is dict
        twin[name] = np.zeros_like(view)
        view[:] = 3
        assert (views[name] == 3).all()


@pytest.mark.parametrize("name", ["dropout", "seed", "dtype", "batch_norm_momentum", "parameters", "layers"])
def test_a_network_keeps_what_it_was_made_with(name: str) -> None:
    network = new_network("cpu", "squared_error")
    before = getattr(network, name)
    with pytest.raises(gpunet.InvalidValueError, match=rf"^{name}: a network keeps"):
        setattr(network, name, another(before, network.backend))
    assert getattr(network, name) is before
    network.metadata = {"classes": ["a"]}
    network.initializer = gpunet.initializers.get_initializer("zeros")
    network.reset_parameters()
    assert not network.parameters["W1"].any()
