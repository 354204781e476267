"""One network in several threads: every result is that of one thread, and a second run of training is refused."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.turns import TurnLock
from tests.helpers.networks import learnable, random_problem, small_network

THREADS = 8


def in_threads(calls: list[Callable[[], Any]]) -> list[Any]:
    """Return the results of calls that start together."""
    barrier = threading.Barrier(THREADS)

    def together(part: list[Callable[[], Any]]) -> list[Any]:
        barrier.wait()
        return [call() for call in part]

    with ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(together, [calls[first::THREADS] for first in range(THREADS)]))
    return [parts[number % THREADS][number // THREADS] for number in range(len(calls))]


def assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)
    else:
        np.testing.assert_array_equal(found, expected)


METHODS: dict[str, Callable[[gpunet.Network, Any, Any], Any]] = {
    "logits": lambda network, X, y: network.logits(X),
    "predict_proba": lambda network, X, y: network.predict_proba(X),
    "predict": lambda network, X, y: network.predict(X),
    "evaluate": lambda network, X, y: gpunet.evaluate(network, X, y).loss,
    "gradients": lambda network, X, y: network.loss_and_gradients(X, y)[1],
    "inspect": lambda network, X, y: gpunet.diagnostics.inspect(network, X, y).loss,
    "change_rates": lambda network, X, y: gpunet.data_initializers.change_rates(network, X),
    "check_gradients": lambda network, X, y: gpunet.diagnostics.check_gradients(network, X, y, directions=1),
}


def assert_same_in_threads(network: gpunet.Network, count: int, rows: int, methods: list[str]) -> None:
    calls: list[Callable[[], Any]] = []
    for number in range(count):
        X, y = random_problem(rows + number % 3, 6, 3, seed=number)
        method = METHODS[methods[number % len(methods)]]
        calls.append(lambda method=method, X=X, y=y: method(network, X, y))
    expected = [call() for call in calls]
    for one, found in zip(expected, in_threads(calls), strict=True):
        assert_equal(found, one)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_inference_in_many_threads(batch_norm):
    network = gpunet.Network([6, 64, 64, 3], batch_norm=batch_norm, device="cpu")
    assert_same_in_threads(network, 30 * THREADS, 300, ["logits", "predict_proba", "predict", "evaluate"])


def test_everything_that_uses_the_layers_in_many_threads():
    assert_same_in_threads(small_network(dropout=0.3), 10 * len(METHODS), 200, list(METHODS))


def test_many_threads_on_a_device(device):
    network = small_network(device=CudaBackend(device))
    assert_same_in_threads(network, 4 * THREADS, 20, ["logits", "gradients", "evaluate"])


def test_predictions_while_another_thread_trains():
    """Training gives the bits it gives alone; each prediction is that of the weights after some step, and none waits
    for the end of training."""
    X, y = learnable(128)
    looked_at = X[:9]
    alone, shared = small_network(dropout=0.2), small_network(dropout=0.2)
    after_step = [alone.logits(looked_at)]

    class Watch(gpunet.Callback):
        def on_step_end(self, run):
            after_step.append(run.network.logits(looked_at))

    arguments: dict[str, Any] = {"batch_size": 32, "optimizer": gpunet.Adam(), "validation": (X, y)}
    gpunet.fit(alone, X, y, epochs=30, callbacks=[Watch()], **arguments)

    trained = threading.Event()
    found = []

    def look() -> None:
        while not trained.is_set():
            found.append(shared.logits(looked_at).tobytes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        gpunet.fit(shared, X, y, epochs=30, **arguments | {"optimizer": gpunet.Adam()})
    finally:
        trained.set()
        looking.join()
    np.testing.assert_array_equal(shared.flat_parameters, alone.flat_parameters)
    known = {outputs.tobytes() for outputs in after_step}
    assert known.issuperset(found)
    assert len(set(found)) > 3  # it had its turns during training


def test_who_waits_comes_before_who_asks_again():
    lock, order = TurnLock(), []
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        with lock:
            order.append("waited")

    with lock, lock:  # the holder may take it again
        other = threading.Thread(target=wait)
        other.start()
        waiting.wait()
        while other.is_alive() and not lock._queue.locked():  # until it stands in the queue
            pass
    with lock:
        order.append("asked again")
    other.join()
    assert order == ["waited", "asked again"]


class Nested(gpunet.Callback):
    """Calls something once, in the middle of a run."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.error: Exception | None = None

    def on_epoch_end(self, run, record):
        if record.epoch == 1:
            try:
                self.call()
            except gpunet.InUseError as error:
                self.error = error


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("what", ["network", "optimizer"])
def test_a_second_run_is_refused_and_the_first_goes_on(what, threaded):
    X, y = learnable(64)
    expected = gpunet.fit(small_network(), X, y, epochs=3, optimizer=gpunet.Adam())
    network, optimizer = small_network(), gpunet.Adam()
    other = {"network": (network, gpunet.Adam()), "optimizer": (small_network(seed=5), optimizer)}[what]
    before = other[0].get_parameters()

    def second() -> None:
        gpunet.fit(other[0], X, y, epochs=1, optimizer=other[1])

    def call() -> None:
        if threaded:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(second).result()
        else:
            second()

    callback = Nested(call)
    found = gpunet.fit(network, X, y, epochs=3, optimizer=optimizer, callbacks=[callback])
    assert str(callback.error).startswith(f"{what}: another call of fit is using it")
    assert found["loss"] == expected["loss"]
    if what == "optimizer":
        assert_equal(other[0].get_parameters(), before)
    second()  # now it may


def test_an_error_in_training_gives_network_and_optimizer_free():
    X, y = learnable(64)
    network, optimizer = small_network(), gpunet.SGD(0.1)
    for _ in range(2):
        with pytest.raises(gpunet.ShapeError):
            gpunet.fit(network, X[:1], y[:1], optimizer=optimizer)
    assert len(gpunet.fit(network, X, y, epochs=1, optimizer=optimizer)) == 1


def test_copies_run_beside_one_another():
    X, y = learnable(64)
    network, optimizer = small_network(), gpunet.Adam()
    twins: list[Any] = []

    def train_copies() -> None:
        for duplicate in (copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))):
            twin = duplicate(network)
            gpunet.fit(twin, X, y, epochs=1, optimizer=copy.deepcopy(optimizer))
            twins.append(twin)

    callback = Nested(train_copies)
    gpunet.fit(network, X, y, epochs=2, optimizer=optimizer, callbacks=[callback])
    assert callback.error is None
    assert len(twins) == 2
