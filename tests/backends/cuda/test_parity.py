"""One network, same numbers: a run on CUDA follows the run on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend

ROWS, INPUTS, CLASSES = 200, 12, 4


class Losses(gpunet.Callback):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_step_end(self, run: gpunet.Run) -> None:
        self.values.append(float(run.network.backend.to_numpy(run.network.loss_layer.value)[0]))


def problem() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    X = generator.standard_normal((ROWS, INPUTS)).astype(np.float32)
    return X, (X @ generator.standard_normal((INPUTS, CLASSES))).argmax(axis=1)


def losses(device: Any, X: np.ndarray, y: np.ndarray, steps: int, **arguments: Any) -> np.ndarray:
    """Train for ``steps`` steps of 40 examples in float32 and return the losses."""
    network = gpunet.Network(
        [INPUTS, 24, 17, CLASSES], activation="tanh", seed=3, dtype="float32", device=device, **arguments
    )
    callback = Losses()
    gpunet.fit(
        network,
        X,
        y,
        epochs=steps // 5,
        batch_size=40,
        optimizer=gpunet.SGD(0.1, momentum=0.9),
        l2=1e-4,
        callbacks=[callback],
    )
    assert len(callback.values) == steps
    return np.array(callback.values)


@pytest.mark.parametrize(
    "arguments", [{}, {"batch_norm": False}, {"dropout": 0.3}], ids=["batch_norm", "plain", "dropout"]
)
def test_losses_agree_over_20_steps(device, arguments):
    X, y = problem()
    ours = losses(CudaBackend(device), X, y, 20, **arguments)
    np.testing.assert_allclose(ours, losses("cpu", X, y, 20, **arguments), rtol=0, atol=1e-5)


def test_losses_over_200_steps_stay_within_what_rounding_itself_causes(device):
    """The yardstick: CPU runs of the same problem with one input moved by one unit in the last place."""
    X, y = problem()
    reference = losses("cpu", X, y, 200)
    spread = np.zeros(200)
    for trial in range(8):
        moved = X.copy()
        moved[trial, trial] = np.nextafter(moved[trial, trial], np.float32(np.inf))
        spread = np.maximum(spread, np.abs(losses("cpu", moved, y, 200) - reference))
    assert 0 < spread.max() < 1e-2
    deviation = np.abs(losses(CudaBackend(device), X, y, 200) - reference)
    # One rounding in one number against one in every operation: a kernel may be a few times further away, and before
    # anything is amplified a few units in the last place of the loss.
    allowed = 4 * np.maximum.accumulate(spread) + 4 * np.finfo(np.float32).eps
    assert (deviation <= allowed).all(), (deviation / allowed).max()
