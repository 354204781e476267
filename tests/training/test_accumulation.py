"""Several batches make one update: the gradient of the large batch, dropout and schedules counted as they say."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.training import loop
from tests.emulation import EmulatedDevice
from tests.helpers.networks import learnable, random_problem, small_network
from tests.training.test_windows import BATCH, DeviceBackend, run

ROWS = 101  # batches of 8 make updates of 32 rows; five rows are left at the end of an epoch


def fit(network: gpunet.Network, batch_size: int, accumulate: int, **arguments: Any) -> gpunet.History:
    X, y = learnable(ROWS)
    options = {"epochs": 3, "optimizer": gpunet.SGD(0.1, momentum=0.9), "l2": 1e-3, "shuffle": False} | arguments
    return gpunet.fit(network, X, y, batch_size=batch_size, accumulate=accumulate, **options)


@pytest.mark.parametrize("device", ["cpu:numpy", "cpu:compiled"])
@pytest.mark.parametrize("clip_norm", [None, 0.2])
@pytest.mark.parametrize("weights", [None, np.arange(ROWS) % 5.0, np.where(np.arange(ROWS) < 17, 0.0, 2.0)])
def test_without_batch_norm_it_is_the_large_batch(device: str, clip_norm: float | None, weights: Any) -> None:
    """Also where the first batches of an update weigh nothing, and where the gradient is clipped."""
    networks = [small_network(dtype="float64", batch_norm=False, device=device) for _ in range(2)]
    small, large = (
        fit(network, *sizes, clip_norm=clip_norm, sample_weight=weights)
        for network, sizes in zip(networks, ((8, 4), (32, 1)), strict=True)
    )
    np.testing.assert_allclose(networks[0].flat_parameters, networks[1].flat_parameters, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(small["loss"], large["loss"], rtol=1e-12)


def test_batch_norm_and_dropout_are_those_of_each_batch() -> None:
    """By hand: one gradient for each batch, at its own step count, and their mean weighted by the rows."""
    X, y = learnable(20)
    network, by_hand = (small_network(dtype="float64", dropout=0.4, batch_norm=True) for _ in range(2))
    gpunet.fit(network, X, y, epochs=2, batch_size=8, accumulate=2, optimizer=gpunet.SGD(0.1), l2=0.01, shuffle=False)
    for step, rows in enumerate([slice(0, 8), slice(8, 16), slice(16, 20)] * 2):
        by_hand.set_step(step)
        gradients = by_hand.loss_and_gradients(X[rows], y[rows], l2=0.01)[1]
        by_hand.forward(by_hand.backend.asarray(X[rows]), training=True)  # moves the running averages
        if step % 3 == 0:
            kept = gradients
            continue
        if step % 3 == 1:
            gradients = {name: (kept[name] + gradients[name]) / 2 for name in gradients}
        by_hand.set_parameters({name: W - 0.1 * gradients[name] for name, W in by_hand.get_parameters().items()})
    np.testing.assert_allclose(network.flat_parameters, by_hand.flat_parameters, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(network.flat_state, by_hand.flat_state, rtol=1e-12)


def test_the_network_counts_batches_and_the_optimizer_updates() -> None:
    network, optimizer = small_network(), gpunet.Adam(gpunet.StepRate(0.01, every=1, factor=0.5))
    history = fit(network, 8, 4, optimizer=optimizer)
    batches, updates = 13, 4
    assert (network.steps, optimizer.step) == (3 * batches, 3 * updates)
    assert history["step"] == [batches, 2 * batches, 3 * batches]
    assert history["learning_rate"] == [0.01 * 0.5 ** (updates * epoch - 1) for epoch in (1, 2, 3)]


@pytest.mark.parametrize("accumulate", [2, 3, 16, 1000])
@pytest.mark.parametrize("average", [None, gpunet.WeightAverage(0.9)])
def test_the_same_on_a_device_that_records(accumulate: int, average: Any) -> None:
    """Windows of sixteen batches begin and end in the middle of an update."""
    arguments: dict[str, Any] = {
        "optimizer": gpunet.Adam(gpunet.CosineRate(0.01, 100)),
        "accumulate": accumulate,
        "average": average,
        "clip_norm": 0.7,
        "epochs": 9,
        "validation": random_problem(50, 5, 3, seed=1),
        "early_stopping": gpunet.EarlyStopping(4),
    }
    assert run(DeviceBackend(), **arguments) == run("cpu", **arguments)


class Watching(gpunet.Callback):
    def on_step_end(self, run: gpunet.Run) -> None:
        pass


def on_cuda() -> CudaBackend:
    return CudaBackend(EmulatedDevice(multiprocessor_count=2))


@pytest.mark.parametrize("device", [lambda: "cpu", on_cuda])
def test_a_skipped_update_takes_none_of_the_schedule(device: Any) -> None:
    """In float16, where the first scales are too large; the device counts updates that nobody looks at."""
    rates = gpunet.StepRate(0.01, every=1, factor=0.7)
    X, y = random_problem(6 * BATCH, 6, 3)
    runs = []
    for callbacks in ([], [Watching()]):
        network, optimizer = small_network(precision="float16", device=device()), gpunet.SGD(rates)
        network.loss_scale.restore({"scale": 2.0**20, "good_steps": 0, "skipped_steps": 0})
        history = gpunet.fit(
            network, X, y, epochs=3, batch_size=BATCH, accumulate=2, optimizer=optimizer, callbacks=callbacks
        )
        skipped = network.loss_scale.to_dict()["skipped_steps"]
        assert 0 < skipped < 9
        assert optimizer.step == 9 - skipped
        assert history["learning_rate"][-1] == rates(optimizer.step - 1)
        runs.append(network.get_parameters())
    for name, value in runs[0].items():
        np.testing.assert_array_equal(runs[1][name], value, err_msg=name)


@pytest.mark.parametrize("device", ["cpu:numpy", DeviceBackend])
@pytest.mark.parametrize("room", [4, 256])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_batches_of_a_stream_make_the_same_updates(
    monkeypatch: pytest.MonkeyPatch, device: Any, room: int, precision: str
) -> None:
    """Also those that are left at the end of an epoch, of which nobody knows before that they are the last."""
    monkeypatch.setattr(loop, "LOOK_EVERY", room)  # for so many there is room; parts of an epoch are whole updates
    if precision == "float16":
        device = "cpu"
    X, y = learnable(ROWS)
    batches = [(X[start : start + 8], y[start : start + 8]) for start in range(0, ROWS, 8)]
    found = []
    for streamed in (False, True):
        network = small_network(device=device if isinstance(device, str) else device(), precision=precision)
        if network.loss_scale is not None:
            network.loss_scale.restore({"scale": 2.0**20, "good_steps": 0, "skipped_steps": 0})
        optimizer = gpunet.Adam(gpunet.StepRate(0.02, every=1, factor=0.9))
        options: dict[str, Any] = {"epochs": 3, "accumulate": 3, "optimizer": optimizer, "clip_norm": 0.5}
        options["average"] = gpunet.WeightAverage(0.7)
        if streamed:
            history = gpunet.fit(network, batches=batches, validation_batches=batches[:2], **options)
        else:
            held_out = (X[:16], y[:16])
            history = gpunet.fit(network, X, y, batch_size=8, shuffle=False, validation=held_out, **options)
        found.append((network.get_parameters(), network.get_state(), history, network.steps))
    (ours, state, history, steps), (expected, expected_state, expected_history, expected_steps) = found
    assert steps == expected_steps == 3 * 13
    assert (history["loss"], history["step"]) == (expected_history["loss"], expected_history["step"])
    # The first epoch's is the one that was planned, where updates may be skipped later.
    assert history["learning_rate"][1:] == expected_history["learning_rate"][1:]
    assert history["validation_loss"] == pytest.approx(expected_history["validation_loss"], rel=1e-6)
    for name, value in (expected | expected_state).items():
        np.testing.assert_array_equal((ours | state)[name], value, err_msg=name)


def test_resuming_is_exact_and_another_number_is_refused(tmp_path: Any) -> None:
    path, whole, resumed = tmp_path / "run.npz", small_network(dropout=0.3), small_network(dropout=0.3)
    fit(whole, 8, 4, epochs=5, shuffle=True)
    fit(small_network(dropout=0.3), 8, 4, epochs=2, shuffle=True, checkpoint=path)
    fit(resumed, 8, 4, epochs=5, shuffle=True, checkpoint=path, resume=True)
    np.testing.assert_array_equal(resumed.flat_parameters, whole.flat_parameters)
    np.testing.assert_array_equal(resumed.flat_state, whole.flat_state)
    with pytest.raises(gpunet.InvalidValueError, match=r"accumulate=4\. Expected 2"):
        fit(small_network(dropout=0.3), 8, 2, epochs=6, shuffle=True, checkpoint=path, resume=True)


class FailingRate(gpunet.Schedule):
    def __call__(self, step: int) -> float:
        if step == 5:
            raise ArithmeticError("no such rate")
        return 0.1


@pytest.mark.parametrize("device", ["cpu", DeviceBackend])
def test_a_schedule_that_fails_ends_the_run_before_the_batches_of_its_update(device: Any) -> None:
    network = small_network(device=device if isinstance(device, str) else device())
    optimizer = gpunet.SGD(FailingRate())
    with pytest.raises(ArithmeticError, match="no such rate"):
        fit(network, 8, 4, optimizer=optimizer)
    assert (network.steps, optimizer.step) == (13 + 4, 5)  # four updates, and one more


@pytest.mark.parametrize("at", [0, 3, 5])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_batch_without_finite_loss_makes_no_update(at: int) -> None:
    """Whichever of the batches of an update it is; the good weights are kept."""
    X, y = random_problem(48, 6, 3)
    X[8 * at + 1] = 3e38
    networks = [small_network(batch_norm=False, activation="identity", device=device) for device in ("cpu", "cpu")]
    networks[1] = small_network(batch_norm=False, activation="identity", device=DeviceBackend())
    for network in networks:
        before = network.get_parameters()
        with pytest.raises(gpunet.TrainingDivergedError, match=f"step {at + 1};") as told:
            gpunet.fit(network, X, y, batch_size=8, accumulate=3, shuffle=False, optimizer=gpunet.SGD(0.1))
        assert told.value.step == at + 1
        for name, value in network.get_parameters().items():
            assert np.isfinite(value).all()
            if at < 3:
                np.testing.assert_array_equal(value, before[name])


def test_an_optimizer_of_the_users_own_sees_updates() -> None:
    steps: list[int] = []

    class Noting(gpunet.SGD):
        def update(self, *arguments: Any) -> None:
            steps.append(self.step)
            super().update(*arguments)

    optimizer = Noting(0.1)
    fit(small_network(device="cpu:numpy"), 8, 4, epochs=2, optimizer=optimizer)
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]
    assert copy.deepcopy(optimizer).step == 8


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", None])
def test_a_number_of_batches_is_at_least_one(value: Any) -> None:
    with pytest.raises((gpunet.InvalidValueError, gpunet.InvalidTypeError), match="accumulate"):
        fit(small_network(), 8, value)
