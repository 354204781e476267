"""Steps that are done at once, on a device that works on while the host does: the same as one by one, to the bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.training import loop
from gpunet.training.snapshot import GOOD_WEIGHTS_EVERY
from tests.helpers.networks import random_problem
from tests.helpers.recording import RecordingBackend

# Two windows and a part of one, whose last batch is shorter; windows are recorded from the fourth epoch on.
BATCHES, BATCH, EPOCHS = 2 * GOOD_WEIGHTS_EVERY + 5, 8, 6
ROWS = BATCHES * BATCH - 3
RECORDED = 4


class DeviceBackend(RecordingBackend):
    """Records as a device does, and is looked at as seldom."""

    synchronous = False
    not_recorded = frozenset({"recordings", "looks"})

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def to_numpy(self, array: Any) -> Any:
        self.looks += 1
        return super().to_numpy(array)


def new_network(backend: Any, **arguments: Any) -> gpunet.Network:
    options = {"activation": "tanh", "batch_norm": True, "dropout": 0.2, "seed": 1, "device": backend, **arguments}
    return gpunet.Network([5, 8, 7, 3], **options)


def run(backend: Any, network: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    """Return how a run ends."""
    network_ = new_network(backend, **(network or {}))
    X, y = random_problem(ROWS, 5, 3)
    optimizer = copy.deepcopy(arguments.pop("optimizer", gpunet.SGD(0.05, momentum=0.9)))
    settings = {"epochs": EPOCHS, "batch_size": BATCH, "l2": 1e-3, "optimizer": optimizer, **arguments}
    found: dict[str, Any] = {"error": ""}
    try:
        history = gpunet.fit(network_, X, y, **settings)
    except gpunet.TrainingDivergedError as error:
        history, found["error"] = error.history, str(error)
    except ArithmeticError as error:
        history, found["error"] = gpunet.History(), repr(error)
    for record in history.records:
        times = "seconds", "samples_per_second"
        found[f"epoch {record.epoch}"] = {name: value for name, value in vars(record).items() if name not in times}
    moments = {name: moment.tolist() for name, moment in optimizer.moments.items()}
    return found | {
        "steps": (network_.steps, int(network_.step_count.on_device[0]), optimizer.step),
        "parameters": network_.flat_parameters.tolist(),
        "state": network_.flat_state.tolist(),
        "moments": moments,
    }


@pytest.mark.parametrize(
    "optimizer",
    [
        gpunet.SGD(0.05, momentum=0.9),
        gpunet.Adam(gpunet.CosineRate(0.01, 150)),
        gpunet.AdamW(gpunet.CyclicalRate(0.001, 0.01, 7), weight_decay=0.1),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_the_same_as_one_by_one(optimizer: gpunet.Optimizer) -> None:
    arguments: dict[str, Any] = {
        "optimizer": optimizer,
        "validation": random_problem(50, 5, 3, seed=1),
        "early_stopping": gpunet.EarlyStopping(2),
        "clip_norm": 0.7,
        "sample_weight": np.linspace(0.5, 1.5, ROWS),
    }
    backend = DeviceBackend()
    assert run(backend, **arguments) == run("cpu", **arguments)


def test_one_launch_for_a_window_and_one_look_at_an_epoch() -> None:
    backend = DeviceBackend()
    run(backend)
    # Steps of two sizes and the end of an epoch; a whole window and the last one.
    assert backend.recordings == 3 + 2
    assert backend.looks == EPOCHS


def test_a_run_that_goes_on_is_one_that_was_never_interrupted(tmp_path: Any) -> None:
    expected = run("cpu")
    X, y = random_problem(ROWS, 5, 3)
    network, optimizer = new_network(DeviceBackend()), gpunet.SGD(0.05, momentum=0.9)
    for epochs in (4, EPOCHS):
        arguments = {"batch_size": BATCH, "l2": 1e-3, "optimizer": optimizer, "checkpoint": tmp_path / "run.npz"}
        gpunet.fit(network, X, y, epochs=epochs, resume=epochs == EPOCHS, **arguments)
        if epochs < EPOCHS:
            network, optimizer = new_network(DeviceBackend()), gpunet.SGD(0.05, momentum=0.9)
    assert network.flat_parameters.tolist() == expected["parameters"]


class Spike(gpunet.Schedule):
    """A learning rate that ruins the weights at one step."""

    def __init__(self, at: int, rate: float = 1e30) -> None:
        self.at = at
        self.rate = rate

    def __call__(self, step: int) -> float:
        return self.rate if step == self.at else 0.01


FIRST = RECORDED * BATCHES  # steps before the epoch in which windows are recorded


@pytest.mark.parametrize("at", [0, 1, 15, 16, 17, 31, 32, BATCHES - 2, BATCHES - 1])
@pytest.mark.parametrize("first", [0, FIRST, FIRST + BATCHES])
@pytest.mark.parametrize("rate", [1e30, 1e38])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_is_told_and_mended_as_one_by_one(at: int, first: int, rate: float) -> None:
    network = {"batch_norm": False, "dropout": 0.0, "activation": "relu"}
    found, expected = (
        run(backend, network, optimizer=gpunet.SGD(Spike(first + at, rate))) for backend in (DeviceBackend(), "cpu")
    )
    assert f"step {first + at + 2};" in expected["error"] or "last update" in expected["error"]
    assert found == expected
    assert first + at - GOOD_WEIGHTS_EVERY < found["steps"][0] <= first + at


def test_weights_stay_where_they_are_after_a_loss_that_is_lost() -> None:
    """Other batches of the epoch would give a finite one, and go on."""
    X, y = random_problem(ROWS, 5, 3)
    X[-1] = 3e38  # in the first batch of the only epoch that is not shuffled
    arguments: dict[str, Any] = {"epochs": 1, "batch_size": BATCH, "shuffle": False, "optimizer": gpunet.SGD(0.01)}
    results = []
    for backend in (DeviceBackend(), "cpu"):
        network = new_network(backend, batch_norm=False, activation="relu", dropout=0.0)
        with np.errstate(all="ignore"), pytest.raises(gpunet.TrainingDivergedError) as caught:
            gpunet.fit(network, X[::-1], y[::-1], **arguments)
        results.append((str(caught.value), network.steps, network.flat_parameters.tolist()))
    assert results[0] == results[1]
    assert "step 1;" in results[0][0]


def test_a_long_epoch_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOOK_EVERY", GOOD_WEIGHTS_EVERY)
    backend = DeviceBackend()
    network = {"batch_norm": False, "dropout": 0.0, "activation": "relu"}
    spike = gpunet.SGD(Spike(3))
    found, expected = (run(one, network, optimizer=spike) for one in (backend, "cpu"))
    assert found == expected
    assert backend.looks < 20  # the first of them is enough


class Fails(gpunet.Schedule):
    def __call__(self, step: int) -> float:
        if step == FIRST + 20:
            raise ZeroDivisionError("no rate")
        return 0.01


def test_a_schedule_that_fails_ends_the_run_at_its_step() -> None:
    found, expected = (run(backend, optimizer=gpunet.SGD(Fails())) for backend in (DeviceBackend(), "cpu"))
    assert found == expected
    assert found["steps"] == (FIRST + 20,) * 3


@pytest.fixture(scope="module")
def weights_of_every_step() -> list[Any]:
    class Watch(gpunet.Callback):
        def __init__(self) -> None:
            self.weights = [new_network("cpu").flat_parameters]

        def on_step_end(self, run: gpunet.Run) -> None:
            self.weights.append(run.network.flat_parameters.copy())

    watch = Watch()
    run("cpu", callbacks=[watch])
    return watch.weights


def assert_counted(backend: Any, error: type[BaseException], weights: list[Any]) -> int:
    """Run into an error, and return how many steps were made, which everything has to agree about."""
    network, optimizer = new_network(backend), gpunet.SGD(0.05, momentum=0.9)
    X, y = random_problem(ROWS, 5, 3)
    with pytest.raises(error):
        gpunet.fit(network, X, y, epochs=EPOCHS, batch_size=BATCH, l2=1e-3, optimizer=optimizer)
    assert network.steps == optimizer.step == int(network.step_count.on_device[0])
    np.testing.assert_array_equal(network.flat_parameters, weights[network.steps])
    return network.steps


class Interrupted(DeviceBackend):
    """Is interrupted at the first window that is done at once, before the device has been asked for it or after."""

    def __init__(self, is_asked: bool) -> None:
        super().__init__()
        self._is_asked = is_asked

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        replay = super().capture(step)
        if self.recordings != 2:
            return replay

        def interrupted() -> None:
            if self._is_asked:
                replay()
            raise KeyboardInterrupt

        return interrupted


@pytest.mark.parametrize("is_asked", [False, True])
def test_what_an_interrupted_window_has_done_counts(is_asked: bool, weights_of_every_step: list[Any]) -> None:
    made = assert_counted(Interrupted(is_asked), KeyboardInterrupt, weights_of_every_step)
    assert made == BATCHES + (GOOD_WEIGHTS_EVERY if is_asked else 0)


class Full(DeviceBackend):
    """Has no memory left at the end of one step; records nothing."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._left = step

    def sgd_step(self, *arguments: Any, **options: Any) -> None:
        self._left -= 1
        if self._left == 0:
            raise MemoryError
        super().sgd_step(*arguments, **options)

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        return step


@pytest.mark.parametrize("step", [1, 2, 9, 16, 17, BATCHES, BATCHES + 1])
def test_a_step_that_fails_half_way_does_not_count(step: int, weights_of_every_step: list[Any]) -> None:
    assert assert_counted(Full(step), MemoryError, weights_of_every_step) == step - 1
