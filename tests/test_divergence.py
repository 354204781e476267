"""A loss that is no longer finite: training stops, says where, and keeps the last good weights."""

from __future__ import annotations

import numpy as np
import pytest
from support import random_problem

import gpunet
from gpunet.training.snapshot import GOOD_WEIGHTS_EVERY


class Recorder(gpunet.Callback):
    """Keeps the weights before every step."""

    def __init__(self) -> None:
        self.weights: list[np.ndarray] = []
        self.ended = False

    def on_fit_start(self, run):
        self.weights.append(run.network.flat_parameters.copy())

    def on_step_end(self, run):
        self.weights.append(run.network.flat_parameters.copy())

    def on_fit_end(self, run):
        self.ended = True


def diverging(rate=1e10, **arguments):
    X, y = random_problem(512, 5, 3)
    network = gpunet.Network([5, 8, 8, 3], batch_norm=False, device="cpu", **arguments)
    return network, X, y, gpunet.SGD(rate)


def test_a_huge_learning_rate():
    network, X, y, optimizer = diverging(1e25)
    recorder = Recorder()
    with np.errstate(all="ignore"), pytest.raises(gpunet.TrainingDivergedError) as caught:
        gpunet.fit(network, X, y, epochs=3, batch_size=32, optimizer=optimizer, callbacks=[recorder])
    error = caught.value
    assert error.epoch == 1
    assert error.step >= 2
    assert error.layer in str(error)
    assert str(error.step) in str(error)
    assert error.layer.split()[0] in ("parameter", "output")
    assert recorder.ended
    assert np.isfinite(network.loss_and_gradients(X, y)[0])
    np.testing.assert_array_equal(network.flat_parameters, recorder.weights[network.steps])
    assert optimizer.step == 0


@pytest.mark.parametrize("bad_step", [1, 2, 5, GOOD_WEIGHTS_EVERY, GOOD_WEIGHTS_EVERY + 1, 33, 40])
def test_which_weights_are_kept(bad_step):
    """Break a weight after a given step; the weights kept are at most 16 steps older, and gave a finite loss."""

    class Break(Recorder):
        def on_step_end(self, run):
            super().on_step_end(run)
            if run.network.steps == bad_step:
                run.network.parameters["W2"][3, 4] = np.nan

    network, X, y, _ = diverging()
    recorder = Break()
    with pytest.raises(gpunet.TrainingDivergedError) as caught:
        gpunet.fit(network, X, y, epochs=4, batch_size=32, optimizer=gpunet.SGD(0.01), callbacks=[recorder])
    assert caught.value.step == bad_step + 1
    assert caught.value.epoch == bad_step // 16 + 1
    assert caught.value.layer == "parameter W2"
    assert bad_step - GOOD_WEIGHTS_EVERY <= network.steps <= bad_step
    np.testing.assert_array_equal(network.flat_parameters, recorder.weights[network.steps])


@pytest.mark.parametrize("broken", ["W1", "b2", "W3"])
def test_the_first_layer_in_forward_order_is_named(broken):
    class Break(gpunet.Callback):
        def on_step_end(self, run):
            run.network.parameters[broken].reshape(-1)[0] = np.inf

    network, X, y, _ = diverging()
    with np.errstate(all="ignore"), pytest.raises(gpunet.TrainingDivergedError) as caught:
        gpunet.fit(network, X, y, epochs=1, batch_size=32, optimizer=gpunet.SGD(0.01), callbacks=[Break()])
    assert caught.value.layer == f"parameter {broken}"


def test_an_overflowing_output_is_named():
    network, X, y, _ = diverging(activation="identity")
    network.set_parameters({"W2": np.full((8, 8), 1e30), "W3": np.full((3, 8), 1e30)})
    with np.errstate(all="ignore"), pytest.raises(gpunet.TrainingDivergedError) as caught:
        gpunet.fit(network, X, y, epochs=1)
    assert caught.value.layer == "output of activation3"  # the bias is added in place of the linear layer's output
    assert caught.value.step == 1
    assert network.steps == 0


def test_history_and_running_averages_survive(tmp_path):
    class Break(gpunet.Callback):
        def on_epoch_end(self, run, record):
            self.history = run.history
            if record.epoch == 2:
                run.network.parameters["W1"][0, 0] = np.nan

    X, y = random_problem(64, 5, 3)
    network = gpunet.Network([5, 8, 3], device="cpu")
    callback = Break()
    with pytest.raises(gpunet.TrainingDivergedError):
        gpunet.fit(network, X, y, epochs=5, batch_size=16, callbacks=[callback], checkpoint=tmp_path / "run.npz")
    assert len(callback.history) == 2
    assert np.isfinite(network.flat_state).all()
    assert np.isfinite(network.flat_parameters).all()
