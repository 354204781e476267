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
    ("loss", "precision", "data_on"),
    [
        ("softmax_cross_entropy(0.1)", "float32", "device"),
        ("probabilities", "float32", "device"),
        ("probabilities", "float32", "host"),
        ("huber(0.3)", "float16", "device"),
        ("quantile(0.1, 0.3, 0.5, 0.9)", "float32", "host"),
    ],
)
def test_every_kind_of_target_in_recorded_windows(device, loss, precision, data_on):
    """Losses, validation and class weights of 20 steps, most of them in windows that are one launch."""
    X, labels = problem()
    targets: Any = labels
    if loss == "probabilities":
        loss, targets = "softmax_cross_entropy(0.1)", (0.7 * np.eye(CLASSES)[labels] + 0.3 / CLASSES).astype(np.float32)
    elif not loss.startswith("softmax"):
        targets = X[:, :CLASSES].copy()
    found = []
    for where in (CudaBackend(device, precision), "cpu"):
        network = gpunet.Network(
            [INPUTS, 24, CLASSES], activation="tanh", seed=3, loss=loss, device=where, precision=precision
        )
        history = gpunet.fit(
            network,
            X,
            targets,
            epochs=4,
            batch_size=40,
            optimizer=gpunet.SGD(0.05, momentum=0.9),
            class_weight=[0.5, 1, 2, 0] if network.is_classifier else None,
            validation=(X, targets),
            data_on=data_on,
        )
        found.append([history["loss"], history["validation_loss"], history["validation_accuracy"]])
    tolerance = 1e-5 if precision == "float32" else 2e-3
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=0, atol=tolerance)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=0, atol=tolerance)
    if found[0][2][0] is not None:
        np.testing.assert_allclose(found[0][2], found[1][2], rtol=0, atol=0 if precision == "float32" else 0.02)


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
