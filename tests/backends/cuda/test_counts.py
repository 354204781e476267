"""What a training step and an epoch ask of the driver: counts that may only fall."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.devices.cupy import CupyDevice
from gpunet.training.snapshot import GOOD_WEIGHTS_EVERY
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy

LAYERS, BATCHES, EPOCHS = (64, 128, 128, 10), 12, 5
# Of one recorded step, its loss and its place in the epoch included.
NODES_OF_A_STEP, CHAIN_OF_A_STEP = 15, 13
# At the end of an epoch: the last batch in inference mode (three products, the last with its bias, two batch norms, a
# loss), two copies of losses, a look at parameters and one at running averages; with validation the same pass, its loss
# copied, a score.
NODES_OF_THE_END, NODES_OF_VALIDATION = 10, 8


class Counts(gpunet.Callback):
    """Counts calls of CuPy and of cuBLAS, by kind, epoch by epoch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Counter[str] = Counter()
        self.epochs: list[Counter[str]] = []
        self.graphs: list[int] = []
        self.chains: list[int] = []
        self.cupy = cupy = fake_cupy.FakeCupy(EmulatedDevice(multiprocessor_count=2, compute_capability=(8, 0)))
        fake_cupy.install(monkeypatch, cupy)
        runtime = cupy.cuda.runtime
        monkeypatch.setattr(runtime, "memcpyAsync", self._counting_copies(runtime.memcpyAsync))
        owner: Any
        for owner, name, kind in (
            (fake_cupy.Stream, "synchronize", "waits"),
            (fake_cupy.Event, "record", "events"),
            (fake_cupy.ndarray, "get", "copies to the host"),
            (fake_cupy.Graph, "launch", "graphs"),
        ):
            monkeypatch.setattr(owner, name, self._counting(getattr(owner, name), kind))
        for owner, name in ((fake_cupy.FakeCupy, "_function"), (fake_cupy.FakeCublas, "_gemm")):
            monkeypatch.setattr(owner, name, self._counting_launches(getattr(owner, name)))

    def _counting(self, function: Any, kind: str) -> Any:
        def call(owner: Any, *arguments: Any, **options: Any) -> Any:
            is_captured = kind == "events" and any(stream.recording is not None for stream in arguments)
            self.calls[kind] += not is_captured
            if kind == "graphs":
                self.graphs.append(len(owner.operations))
                self.chains.append(owner.recording.longest_chain())
            return function(owner, *arguments, **options)

        return call

    def _counting_copies(self, function: Any) -> Any:
        def call(*arguments: Any) -> None:
            before = self.cupy.bytes_to_device
            function(*arguments)
            is_captured = fake_cupy.Stream.by_address[arguments[-1]].recording is not None
            if not is_captured:
                self.calls["copies to the device" if self.cupy.bytes_to_device > before else "copies inside"] += 1

        return call

    def _counting_launches(self, function: Any) -> Any:
        def count(stream: Any) -> None:
            self.calls["launches"] += stream.recording is None

        def gemm(library: Any, handle: int, *arguments: Any) -> int:
            count(fake_cupy.Stream.by_address[library.open[handle].stream])
            return int(function(library, handle, *arguments))

        def kernel(cupy: Any, compiled: Any) -> Any:
            one = function(cupy, compiled)

            def call(*arguments: Any, stream: Any, **options: Any) -> None:
                count(stream)
                one(*arguments, stream=stream, **options)

            return type("Function", (), {"ptr": one.ptr, "__call__": staticmethod(call)})()

        return gemm if function.__name__ == "_gemm" else kernel

    def on_epoch_end(self, run: gpunet.Run, record: gpunet.EpochRecord) -> None:
        self.epochs.append(Counter(self.calls))
        self.bytes_to_host = self.cupy.bytes_to_host

    def of_last_epoch(self) -> Counter[str]:
        return self.epochs[-1] - self.epochs[-2]


class Looks(gpunet.Callback):
    def on_step_end(self, run: gpunet.Run) -> None:
        return


def trained(monkeypatch: pytest.MonkeyPatch, batches: int = BATCHES, **arguments: Any) -> Counts:
    """Train the network of the digits, on batches of a few rows: the last is shorter."""
    counts = Counts(monkeypatch)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((4 * batches - 1, LAYERS[0])), rng.integers(0, LAYERS[-1], 4 * batches - 1)
    network = gpunet.Network(LAYERS, seed=0, device=CudaBackend(CupyDevice(0)))
    callbacks = [*arguments.pop("callbacks", ()), counts]
    settings = SimpleNamespace(epochs=EPOCHS, batch_size=4, optimizer=gpunet.SGD(0.01, momentum=0.9), l2=1e-4)
    gpunet.fit(network, X, y, **{**vars(settings), "callbacks": callbacks, **arguments})
    return counts


def test_an_epoch_of_one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    validation = rng.standard_normal((9, LAYERS[0])), rng.integers(0, LAYERS[-1], 9)
    counts = trained(monkeypatch, validation=validation)
    found = counts.of_last_epoch()
    assert found == {
        "graphs": 3,  # all steps, their end, validation
        "copies to the device": 2,  # the order of the rows, and the place in it; none for a step
        "copies to the host": 1,  # what came of it all
        "waits": 1,
        "events": 2,  # when it began, and when it was trained
    }
    steps, end, evaluated = counts.graphs[-3:]
    assert steps <= BATCHES * NODES_OF_A_STEP + 2  # and the good weights
    assert counts.chains[-3] <= BATCHES * CHAIN_OF_A_STEP + 2
    assert end <= NODES_OF_THE_END
    assert evaluated <= NODES_OF_VALIDATION


def test_no_parameters_come_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = trained(monkeypatch, callbacks=[Looks()])
    assert counts.bytes_to_host < EPOCHS * (16 * BATCHES + 200)


def test_changing_rates_are_one_copy_per_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = trained(monkeypatch, optimizer=gpunet.Adam(gpunet.CosineRate(0.01, 1000)))
    found = counts.of_last_epoch()
    assert found["copies to the device"] == 3
    assert found["graphs"] == 2


def test_a_step_that_somebody_looks_at_is_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = trained(monkeypatch, callbacks=[Looks()]).of_last_epoch()
    assert found == {
        "graphs": BATCHES + 1,
        "launches": 2,  # the good weights
        "copies to the device": 2,
        "copies to the host": 1,
        "waits": 1,
        "events": 2,
    }


def test_windows_of_a_long_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = 2 * GOOD_WEIGHTS_EVERY + 3
    counts = trained(monkeypatch, batches=batches)
    assert counts.of_last_epoch() == {
        "graphs": 3 + 1,
        "copies to the device": 2,
        "copies to the host": 1,
        "waits": 1,
        "events": 2,
    }
    first, second, third, _ = counts.graphs[-4:]
    assert first == second == GOOD_WEIGHTS_EVERY * (third - 2) // 3 + 2
