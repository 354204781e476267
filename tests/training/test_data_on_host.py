"""Data that stay on the host and are copied batch by batch give, bit for bit, what data on the device give."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet import fingerprint, validation
from gpunet.backends import Backend, feed, notices
from gpunet.backends.cpu import CpuBackend
from gpunet.backends.cuda import lane_feed
from gpunet.backends.devices import lane
from gpunet.network import Network
from gpunet.training import evaluation, step
from tests.backends.cuda.test_users_arrays import Machine
from tests.backends.cuda.test_users_arrays import machine as machine  # a fixture
from tests.backends.devices.test_planted_bugs import plant
from tests.conftest import cupy_device as gpu
from tests.helpers import fake_cupy
from tests.helpers.cuda_faults import no_room_after_all
from tests.helpers.recording import RecordingBackend

RANDOM = np.random.default_rng(3)
X = RANDOM.standard_normal((101, 9))  # float64: a float32 network converts it
Y = RANDOM.integers(0, 4, 101)
TARGETS = RANDOM.uniform(0, 1, (101, 4))
WEIGHTS = RANDOM.uniform(0.5, 2, 101)
Result = dict[str, np.ndarray]


def result_of(network: Network, history: gpunet.History) -> Result:
    """Return all numbers of a run."""
    records = [
        (record.loss, record.validation_loss or 0, record.validation_accuracy or 0, record.learning_rate, record.step)
        for record in history
    ]
    return {**network.get_parameters(), **network.get_state(), "history": np.array(records)}


def train(network: Network, data_on: str, X: Any = X, y: Any = Y, **arguments: Any) -> Result:
    """Train for 3 epochs of 7 batches, the last of them short."""
    given = {"epochs": 3, "batch_size": 16, "l2": 1e-3} | arguments
    return result_of(network, gpunet.fit(network, X, y, data_on=data_on, **given))


def assert_same(found: Result, expected: Result) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "labels": ({}, {}),
    "float64": ({"dtype": "float64"}, {}),
    "dropout, Adam, clipped": ({"dropout": 0.3}, {"optimizer": gpunet.Adam(), "clip_norm": 0.5}),
    "weights": ({}, {"sample_weight": WEIGHTS, "class_weight": "balanced"}),
    "in order": ({}, {"shuffle": False}),
    "one batch": ({}, {"batch_size": 500}),
    "a row joins the batch before": ({}, {"batch_size": 50}),
    "two rows": ({}, {"batch_size": 2, "epochs": 1}),
    "numbers": ({"loss": "squared_error"}, {"y": TARGETS}),
    "probabilities": ({"loss": "sigmoid_cross_entropy"}, {"y": TARGETS, "sample_weight": WEIGHTS}),
    "validation": ({}, {"validation": (X[:50], Y[:50])}),
    "validation of numbers": ({"loss": "squared_error"}, {"y": TARGETS, "validation": (X[:50], TARGETS[:50])}),
}


@pytest.fixture(params=["cpu", "cuda"])
def network_of(request: pytest.FixtureRequest, machine: Machine) -> Callable[..., Network]:
    """Return what makes a network of a kind."""
    if request.param == "cuda":
        return machine.network
    return lambda *sizes, **arguments: Network(sizes or (9, 12, 4), device="cpu", seed=1, **arguments)


def fresh(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: gpunet.Adam() if name == "optimizer" else value for name, value in arguments.items()}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_the_same_bit_for_bit(
    network_of: Callable[..., Network], run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_ROWS", 16)
    kind, arguments = RUNS[run]
    found, expected = (train(network_of(**kind), data_on, **fresh(arguments)) for data_on in ("host", "device"))
    assert_same(found, expected)


def layouts(tmp_path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the same numbers, all of which float32 holds, in every dtype and layout."""
    numbers = np.round(X * 8)
    np.save(tmp_path / "X.npy", numbers)
    np.save(tmp_path / "columns.npy", np.asfortranarray(numbers, np.float32))
    yield "float32", numbers.astype(np.float32)
    yield "float64", numbers
    yield "int8", numbers.astype(np.int8)
    yield "float16", numbers.astype(np.float16)
    yield "of the other byte order", numbers.astype(">f4")
    yield "by columns", np.asfortranarray(numbers, np.float32)
    yield "every second row", np.repeat(numbers, 2, axis=0).astype(np.float32)[::2]
    yield "backwards", numbers[::-1].astype(np.float32)[::-1]
    yield "not aligned", np.frombuffer(b"." + numbers.astype("f4").tobytes(), "f4", offset=1).reshape(X.shape)
    yield "a list", numbers.tolist()
    yield "a file", np.load(tmp_path / "X.npy", mmap_mode="r")
    yield "a file by columns", np.load(tmp_path / "columns.npy", mmap_mode="r")


def test_every_dtype_and_layout(network_of: Callable[..., Network], tmp_path: Path) -> None:
    expected = None
    for name, values in layouts(tmp_path):
        for data_on in ("host", "device", "auto"):
            found = train(network_of(), data_on, values, epochs=1, validation=(values, Y))
            expected = expected or found
            for key, value in expected.items():
                np.testing.assert_array_equal(found[key], value, err_msg=f"{name}, {data_on}: {key}")


@pytest.mark.parametrize("kind", [RecordingBackend, CpuBackend])
def test_recorded_steps_read_what_is_delivered(kind: type[Backend]) -> None:
    found, expected = (
        train(Network([9, 12, 4], device=kind(), seed=1), data_on, validation=(X, Y)) for data_on in ("host", "device")
    )
    assert_same(found, expected)


# --- on the device ----------------------------------------------------------------------------------------------------


class Calls:
    """Counts what the host asks of the stand-in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
        self.made: list[str] = []
        runtime = machine.cupy.cuda.runtime
        for owner, name, what in (
            (fake_cupy.Event, "synchronize", "wait"),
            (fake_cupy.Stream, "synchronize", "synchronize"),
            (fake_cupy.Graph, "launch", "step"),
            (runtime, "memcpyAsync", "copy"),
            (lane_feed.LaneFeed, "prepare", "prepare"),
            (lane_feed.LaneFeed, "deliver", "deliver"),
        ):
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name), what))

    def _counted(self, function: Callable[..., Any], what: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.made.append(what)
            return function(*arguments, **options)

        return call

    def count(self, what: str) -> int:
        return self.made.count(what)


class Epochs(gpunet.Callback):
    """Notes what was asked for in each epoch."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.of_epochs: list[list[str]] = []

    def on_epoch_end(self, run: Any, record: Any) -> None:
        self.of_epochs.append(self.calls.made[:])
        self.calls.made.clear()


def epoch_of(monkeypatch: pytest.MonkeyPatch, machine: Machine, data_on: str, **arguments: Any) -> list[str]:
    with monkeypatch.context() as patched:
        counted = Epochs(Calls(patched, machine))
        train(machine.network(), data_on, callbacks=[counted], batch_size=25, X=X[:100], y=Y[:100], **arguments)
    return counted.of_epochs[-1]


def test_what_a_batch_costs(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two copies and one wait, of an event that has normally passed; nothing that waits for a stream."""
    there, here = (epoch_of(monkeypatch, machine, data_on) for data_on in ("device", "host"))
    batches = 4
    assert (there.count("step"), here.count("step")) == (2, batches + 1)  # recorded all the same; the epoch's end too
    assert here.count("copy") - there.count("copy") == 2 * batches
    assert here.count("wait") - there.count("wait") == batches
    assert here.count("synchronize") == there.count("synchronize")


def test_the_next_batch_is_copied_while_the_device_works(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is prepared after the step before it was asked for, and before anybody waits for that.

    After the last step comes the end of the epoch.
    """
    made = [name for name in epoch_of(monkeypatch, machine, "host") if name not in ("copy", "wait")]
    last = made.index("synchronize")
    assert made[:last] == ["prepare", *["deliver", "step", "prepare"] * 3, "deliver", "step", "step"]


def test_bytes_that_go_to_the_device(machine: Machine) -> None:
    """Every row once per epoch, in the network's dtype, and hardly more."""
    copied = {}
    for data_on in ("device", "host"):
        machine.cupy.bytes_to_device = 0
        train(machine.network(), data_on, batch_size=25)
        copied[data_on] = machine.cupy.bytes_to_device
    data = X.size * 4
    assert 2 * data <= copied["host"] - copied["device"] <= 2 * data + 3 * 5 * lane.ALIGNMENT


def test_the_device_holds_no_more_than_batches(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_ROWS", 16)
    values, labels = RANDOM.standard_normal((400, 64)), np.arange(400) % 4
    sizes: list[int] = []
    empty = machine.cupy.empty
    monkeypatch.setattr(
        machine.cupy, "empty", lambda shape, dtype: (array := empty(shape, dtype), sizes.append(array.nbytes))[0]
    )
    train(machine.network(64, 4, batch_norm=False), "host", values, labels, validation=(values, labels))
    assert 16 * 64 * 4 <= max(sizes) < values.size * 4 / 10


def test_what_is_in_cuda_memory_stays_there(machine: Machine) -> None:
    found, to_host = [], []
    for values in (X, machine.late(X)):
        machine.cupy.bytes_to_host = 0
        found.append(train(machine.network(loss="squared_error"), "host", values, TARGETS))
        to_host.append(machine.cupy.bytes_to_host)
    assert abs(to_host[1] - to_host[0]) < 64
    assert_same(found[1], found[0])


def test_other_calls_in_between(machine: Machine) -> None:
    """They use the same stream, and evaluate a feed of its own."""

    class Looks(gpunet.Callback):
        def on_step_end(self, run: Any) -> None:
            run.network.predict(X[:20])
            gpunet.evaluate(run.network, X, Y)

    expected = train(machine.network(), "device")
    assert_same(train(machine.network(), "host", callbacks=[Looks()]), expected)


def test_an_ended_run_leaves_nothing(machine: Machine) -> None:
    class Stops(gpunet.Callback):
        def on_step_end(self, run: Any) -> None:
            raise KeyboardInterrupt

    before, streams = threading.active_count(), dict(fake_cupy.Stream.by_address)
    network = machine.network()
    with pytest.raises(KeyboardInterrupt):
        train(network, "host", callbacks=[Stops()])
    assert threading.active_count() == before
    gc.collect()
    assert not any(stream.queue for key, stream in fake_cupy.Stream.by_address.items() if key not in streams)
    network.reset_parameters()
    assert_same(train(network, "host"), train(machine.network(), "device"))


# --- where they are put -----------------------------------------------------------------------------------------------


def fed(monkeypatch: pytest.MonkeyPatch, machine: Machine, **arguments: Any) -> int:
    """Return how many feeds a run has."""
    made: list[Any] = []
    with monkeypatch.context() as patched:
        start = lane_feed.LaneFeed.__init__
        patched.setattr(lane_feed.LaneFeed, "__init__", lambda self, *rest: (made.append(self), start(self, *rest))[1])
        train(machine.network(), "auto", **arguments)
    return len(made)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(notices, "_said", set())
    return caplog


SIZE = X.size * 4


def test_data_that_take_three_quarters_of_what_is_free(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    machine.cupy.free = SIZE * 4 // 3
    assert fed(monkeypatch, machine) == 0
    assert said.messages == []
    machine.cupy.free -= 1
    assert fed(monkeypatch, machine) == 1
    assert fed(monkeypatch, machine) == 1
    (message,) = said.messages
    assert message == (
        f"on cuda:0, data stay on the host and are copied batch by batch: they need {SIZE:,} bytes, more than 75% of "
        f"the {SIZE * 4 // 3 - 1:,} that are free"
    )


def test_targets_count_and_the_validation_data_are_asked_about_by_themselves(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_ROWS", 16)
    machine.cupy.free = SIZE * 4 // 3
    network = machine.network(loss="squared_error")
    monkeypatch.setattr(machine, "network", lambda: network)
    assert fed(monkeypatch, machine, y=TARGETS) == 1
    assert fed(monkeypatch, machine, y=TARGETS[:50], X=X[:50], validation=(X, TARGETS)) == 1


def test_no_room_after_all(machine: Machine, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture) -> None:
    """What seemed to fit does not: the run goes on with the data on the host, and says so once."""
    expected = train(machine.network(), "device")
    with monkeypatch.context() as patched:
        no_room_after_all(patched, machine.cupy, SIZE - 1)
        assert_same(train(machine.network(), "auto"), expected)
        assert_same(train(machine.network(), "auto"), expected)
        (message,) = said.messages
        assert "data stay on the host and are copied batch by batch: cuda:0 (NVIDIA Fake) has no room for" in message
        network = machine.network()
        before = network.get_parameters()
        with pytest.raises(gpunet.OutOfDeviceMemoryError, match=r"no room for .*data_on='host'"):
            train(network, "device")
        assert_same(network.get_parameters(), before)
        assert network.steps == 0


def test_no_room_for_a_batch(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    no_room_after_all(monkeypatch, machine.cupy, 1000)
    network = machine.network(9, 4)
    with pytest.raises(gpunet.OutOfDeviceMemoryError, match="no room for 1,024 bytes"):
        train(network, "host", batch_size=25)
    assert network.steps == 0


@pytest.mark.parametrize("value", ["disk", None, 1])
def test_another_place_is_refused(value: Any) -> None:
    network = Network([9, 4], device="cpu")
    with pytest.raises(gpunet.InvalidValueError, match=r"data_on: got .*\. Expected one of: auto, device, host"):
        gpunet.fit(network, X, Y, data_on=value)
    assert network.steps == 0


def test_the_rest_of_a_call_is_checked_as_ever(network_of: Callable[..., Network]) -> None:
    """With the message of a whole conversion, also where it is a batch's number that float32 does not hold."""
    network = network_of()
    for value, text in ((np.nan, "X: nan in row 99, column 3"), (1e300, r"X: 1e\+300 in row 99, column 3, too large")):
        wrong = X.copy()
        wrong[99, 3] = value
        with pytest.raises(gpunet.NonFiniteError, match=text) as caught:
            train(network, "host", wrong)
        assert caught.value.row == 99
    wrong = np.where(np.arange(404).reshape(101, 4) == 77, 1.5, TARGETS)
    with pytest.raises(gpunet.InvalidValueError, match=r"y: 1\.5 in row 19, column 1 is out of range"):
        train(network_of(loss="sigmoid_cross_entropy"), "host", y=wrong)
    assert network.steps == 0


# --- memory of the host -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_a_file_is_not_read_whole(
    network_of: Callable[..., Network], dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call allocates a quarter of what float32 would need."""
    monkeypatch.setattr(validation, "_NUMBERS_AT_A_TIME", 1 << 12)
    monkeypatch.setattr(fingerprint, "_BYTES_AT_A_TIME", 1 << 14)
    for module, name in ((gpunet.network, "_PREDICTION_ROWS"), (evaluation, "_ROWS")):
        monkeypatch.setattr(module, name, 64)
    rows, columns = 8000, 300
    np.save(tmp_path / "X.npy", (100 * np.random.default_rng(0).standard_normal((rows, columns))).astype(dtype))
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    y = np.arange(rows) % 4
    network = network_of(columns, 4, batch_norm=False)
    numbers = network_of(columns, 4, batch_norm=False, loss="squared_error", output_activation="tanh")
    data_on = "auto" if network.backend.synchronous else "host"
    for call in (
        lambda: gpunet.fit(
            network, mapped, y, epochs=1, data_on=data_on, validation=(mapped, y), checkpoint=tmp_path / "run.npz"
        ),
        lambda: gpunet.fit(numbers, mapped, mapped[:, ::80], epochs=1, data_on=data_on, optimizer=gpunet.SGD(1e-9)),
        lambda: gpunet.evaluate(network, mapped, y),
        lambda: network.predict(mapped[:64]),
    ):
        call()
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < rows * columns


def test_memory_of_the_file_is_what_is_read(tmp_path: Path) -> None:
    """On the CPU, where a file has the network's dtype, its pages are the batch's source."""
    np.save(tmp_path / "X.npy", X.astype(np.float32))
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for data_on in ("auto", "host", "device"):
        data = evaluation.DeviceData(Network([9, 4], device="cpu"), mapped, Y, data_on=data_on)
        assert data.fed == ()
        assert np.shares_memory(data.features, mapped)
    assert feed.is_mapped(mapped[::2, 1:])
    assert not feed.is_mapped(mapped + 1)


# --- what a run promises ----------------------------------------------------------------------------------------------


def test_evaluation_and_predictions(network_of: Callable[..., Network], monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces, what the pieces were before: those of an array that needs no conversion."""
    for module, name in ((gpunet.network, "_PREDICTION_ROWS"), (evaluation, "_ROWS")):
        monkeypatch.setattr(module, name, 16)
    network = network_of()
    single = X.astype(np.float32)
    for values in (X, np.asfortranarray(single), X.astype(">f4")):
        np.testing.assert_array_equal(network.predict_proba(values), network.predict_proba(single))
        for weights in (None, WEIGHTS):
            assert gpunet.evaluate(network, values, Y, sample_weight=weights) == gpunet.evaluate(
                network, single, Y, sample_weight=weights
            )


@pytest.mark.parametrize("places", [("host", "device"), ("device", "host"), ("host", "host")])
def test_a_run_goes_on_from_its_checkpoint_wherever_the_data_are(
    network_of: Callable[..., Network], places: tuple[str, str], tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"checkpoint": tmp_path / "run.npz", "validation": (X[:40], Y[:40])}
    train(network_of(), places[0], epochs=2, **arguments)
    found = train(network_of(), places[1], epochs=3, resume=True, **arguments)
    assert_same(found, train(network_of(), "device", validation=(X[:40], Y[:40])))
    with pytest.raises(gpunet.InvalidValueError, match="of a run with another X"):
        train(network_of(), places[1], X + 1e-3, resume=True, **arguments)


def failures_of(network_of: Callable[..., Network], places: tuple[str, ...]) -> list[Result]:
    """Return what runs that diverge leave and say: by growing weights, and at a row that overflows in its batch."""
    wrong = X.copy()
    wrong[57] = 3e38
    found = []
    for data_on in places:
        left: Result = {}
        for name, values, rate, shuffle in (("growing", 1e3 * X, 10.0, True), ("a row", wrong, 1e-6, False)):
            network = network_of(batch_norm=False, loss="squared_error")
            with pytest.raises(gpunet.TrainingDivergedError) as caught:
                train(network, data_on, values, TARGETS, batch_size=5, optimizer=gpunet.SGD(rate), shuffle=shuffle)
            left |= {f"{name}, {key}": value for key, value in network.get_parameters().items()}
            left[name] = np.array([str(caught.value), network.steps, caught.value.epoch, caught.value.step])
        found.append(left)
    return found


def test_divergence(network_of: Callable[..., Network]) -> None:
    """The step and the layer are named, and the weights put back that were good."""
    found, expected = failures_of(network_of, ("host", "device"))
    assert "not finite first: output of" in found["a row"][0]
    assert_same(found, expected)


def test_the_batch_that_diverged_is_looked_at(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the one that came last, by when somebody looked."""
    bug = "            self._prepare(number)\n            self._deliver(self.sizes[number])\n"
    (expected,) = failures_of(machine.network, ("device",))
    plant(monkeypatch, step, bug, "")
    (found,) = failures_of(machine.network, ("host",))
    assert found["a row"][0] != expected["a row"][0]


def test_early_stopping_goes_back_to_the_best(network_of: Callable[..., Network]) -> None:
    stopping = gpunet.EarlyStopping(patience=1)
    arguments: dict[str, Any] = {"validation": (X[:40], Y[:40]), "epochs": 6, "early_stopping": stopping}
    found, expected = (train(network_of(), data_on, **arguments) for data_on in ("host", "device"))
    assert_same(found, expected)


# --- bugs -------------------------------------------------------------------------------------------------------------


BUGS: dict[str, tuple[Any, str, str]] = {
    "nothing is prepared": (step, "self._prepare(stop)", "pass"),
    "the same rows again": (step, "self._prepare(stop)", "self._prepare(first)"),
    "the batch after the next": (step, "self._prepare(stop)", "self._prepare(stop + 1)"),
    "the first batch is another": (step, "self._prepare(0)", "self._prepare(1)"),
    "nothing is delivered": (step, "            self._deliver(batches[0].rows)\n", ""),
    "rows in their order": (
        lane_feed,
        "copy_rows(source, rows, there)",
        "copy_rows(source, rows if isinstance(rows, slice) else np.sort(rows), there)",
    ),
    "a piece too early": (evaluation, "feed.prepare(following)", "feed.prepare(rows)"),
    "a piece that is overwritten": (
        evaluation,
        "                feed.deliver(list(here.values()))\n                if following is not None:\n"
        "                    feed.prepare(following)",
        "                if following is not None:\n"
        "                    feed.prepare(following)\n                feed.deliver(list(here.values()))",
    ),
    "a page-locked buffer is overwritten while it is copied": (
        lane,
        "            self._copied[self._turn].synchronize()\n",
        "            pass\n",
    ),
    "a batch is overwritten before it is taken": (lane, "            self._copying.wait_event(self._taken)\n", ""),
    "a batch is taken before it is copied": (
        lane,
        "            self._compute.wait_event(self._copied[self._turn])\n",
        "",
    ),
    "a batch that is taken is not told": (lane, "            self._taken.record(self._compute)\n", ""),
    "the copy's event is not recorded": (lane, "            self._copied[self._turn].record(self._copying)\n", ""),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    module, old, new = BUGS[bug]
    monkeypatch.setattr(evaluation, "_ROWS", 16)
    arguments: dict[str, Any] = {"X": X.astype(np.float32), "validation": (X, Y)}
    expected = train(machine.network(), "device", **arguments)
    plant(monkeypatch, module, old, new)
    with pytest.raises((AssertionError, gpunet.TrainingDivergedError)):
        assert_same(train(machine.network(), "host", **arguments), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_on_a_gpu(dtype: str) -> None:
    """Large enough batches for a copy to take as long as a step."""
    gpu()
    rows, columns = 20_000, 512
    values = np.random.default_rng(0).standard_normal((rows, columns))
    labels = np.arange(rows) % 10
    results = []
    for data_on in ("device", "host", "host"):
        network = Network([columns, 64, 10], device="cuda", dtype=dtype, seed=0)
        results.append(train(network, data_on, values, labels, batch_size=1024, validation=(values, labels)))
    for found in results[1:]:
        assert_same(found, results[0])
