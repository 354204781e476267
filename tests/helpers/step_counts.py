"""Counts, of training steps as a device is asked for them, what ``benchmarks/report/step_counts.json`` holds.

``python -m tests.helpers.step_counts`` writes that file; ``gpunet bench report --update docs/performance.md`` then says
what the predictions are with it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

import gpunet
from benchmarks.report.prediction import COUNTS_FILE
from gpunet.backends.cuda import CudaBackend
from gpunet.verification.configurations import CONFIGURATIONS, layer_sizes
from tests.helpers.verification import SmallDevice

BATCH, WIDTH = 4, 8
DTYPES = ("float32", "bfloat16")
# Batches of an epoch, as many as one recording has of them, once and twice.
FEW, MANY = 16, 32
# From the fourth on, nothing is recorded any more.
EPOCHS = 5


class CountingDevice(SmallDevice):
    """Counts what it is asked to launch, multiply, copy and replay, and keeps its recordings."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.replays: list[Any] = []

    def capture(self, step: Callable[[], object]) -> Any:
        before = self.calls
        replay = super().capture(step)
        self.calls = before
        self.replays.append(replay)
        return SimpleNamespace(nodes=replay.nodes, launch=self._counted(replay.launch))

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            return method(*args, **options)

        return call

    def __getattribute__(self, name: str) -> Any:
        attribute = super().__getattribute__(name)
        return self._counted(attribute) if name in ("launch", "gemm", "copy", "to_numpy") else attribute


class LastEpoch(gpunet.Callback):
    """Counts the calls of the last epoch."""

    def __init__(self) -> None:
        self.before = self.after = 0

    def on_epoch_end(self, run: gpunet.Run, record: gpunet.EpochRecord) -> None:
        self.before, self.after = self.after, run.network.backend.device.calls


class Watching(gpunet.Callback):
    """Looks at every step: each is then a recording of its own."""

    def on_step_end(self, run: gpunet.Run) -> None:
        pass


def trained(layers: int, dtype: str, batches: int, *callbacks: gpunet.Callback) -> CountingDevice:
    """Train a network on a device of its own, and return that."""
    device, rng = CountingDevice(), np.random.default_rng(0)
    sizes = layer_sizes(WIDTH, layers, WIDTH)
    X = rng.standard_normal((batches * BATCH, WIDTH), dtype=np.float32)
    network = gpunet.Network(sizes, batch_norm=True, seed=0, precision=dtype, device=CudaBackend(device, dtype))
    options: dict[str, Any] = {"epochs": EPOCHS, "batch_size": BATCH, "optimizer": gpunet.Adam(1e-4)}
    gpunet.fit(network, X, rng.integers(0, sizes[-1], len(X)), callbacks=callbacks, **options)
    return device


@functools.cache
def calls(dtype: str) -> dict[str, float]:
    """Return the calls of a step that nobody watches, what an epoch of more batches has more of; and all the others."""
    of_epoch = {}
    for batches in (FEW, MANY):
        counted = LastEpoch()
        trained(3, dtype, batches, counted)
        of_epoch[batches] = counted.after - counted.before
    of_step = (of_epoch[MANY] - of_epoch[FEW]) / (MANY - FEW)
    return {"calls": round(of_step, 3), "calls_of_epoch": round(of_epoch[FEW] - FEW * of_step)}


@functools.cache
def counts(layers: int, dtype: str) -> dict[str, float]:
    """Return nodes, chain and calls of a network's step."""
    replay = max(trained(layers, dtype, 3, Watching()).replays, key=lambda replay: replay.nodes)
    return {"nodes": replay.nodes, "chain": replay.longest_chain, **calls(dtype)}


def all_counts() -> dict[str, dict[str, dict[str, float]]]:
    """Return what the file holds: the counts by dtype and number of linear layers."""
    numbers = sorted({layers for _, _, layers, _ in CONFIGURATIONS.values()})
    return {dtype: {str(layers): counts(layers, dtype) for layers in numbers} for dtype in DTYPES}


if __name__ == "__main__":
    COUNTS_FILE.write_text(json.dumps(all_counts(), indent=1) + "\n", encoding="utf-8")
    print(COUNTS_FILE.read_text(encoding="utf-8"))
