"""A loss that is no longer finite: training stops, says where, and keeps the last good weights."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import gpunet
from gpunet.training.snapshot import GOOD_WEIGHTS_EVERY
from tests.helpers.networks import random_problem


class WeightsOfEveryStep(gpunet.Callback):
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
    watch = WeightsOfEveryStep()
    with np.errstate(all="ignore"), pytest.raises(gpunet.TrainingDivergedError) as caught:
        gpunet.fit(network, X, y, epochs=3, batch_size=32, optimizer=optimizer, callbacks=[watch])
    error = caught.value
    assert error.epoch == 1
    assert error.step >= 2
    assert error.layer in str(error)
    assert str(error.step) in str(error)
    assert error.layer.split()[0] in ("parameter", "output")
    assert watch.ended
    assert np.isfinite(network.loss_and_gradients(X, y)[0])
    np.testing.assert_array_equal(network.flat_parameters, watch.weights[network.steps])
    assert optimizer.step == 0


@pytest.mark.parametrize("bad_step", [1, 2, 5, GOOD_WEIGHTS_EVERY, GOOD_WEIGHTS_EVERY + 1, 33, 40])
def test_which_weights_are_kept(bad_step):
    """Break a weight after a given step; the weights kept are at most 16 steps older, and gave a finite loss."""

    class Break(WeightsOfEveryStep):
        def on_step_end(self, run):
            super().on_step_end(run)
            if run.network.steps == bad_step:
                run.network.parameters["W2"][3, 4] = np.nan

    network, X, y, _ = diverging()
    watch = Break()
    with pytest.raises(gpunet.TrainingDivergedError) as caught:
        gpunet.fit(network, X, y, epochs=4, batch_size=32, optimizer=gpunet.SGD(0.01), callbacks=[watch])
    # Seen by the next loss, or by the check of the weights after an epoch of 16 steps.
    assert caught.value.step == (bad_step if bad_step % 16 == 0 else bad_step + 1)
    assert caught.value.epoch == (bad_step - 1) // 16 + 1
    assert len(caught.value.history) == (bad_step - 1) // 16
    assert caught.value.layer == "parameter W2"
    assert bad_step - GOOD_WEIGHTS_EVERY <= network.steps <= bad_step
    np.testing.assert_array_equal(network.flat_parameters, watch.weights[network.steps])


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


def test_an_update_whose_loss_nobody_sees_is_checked_too(tmp_path):
    """The last update of a run, and of every epoch before its checkpoint is written."""
    X, y = random_problem(64, 5, 3)
    path = tmp_path / "run.npz"
    network = gpunet.Network([5, 8, 3], batch_norm=False, device="cpu")
    before = network.get_parameters()
    with pytest.raises(gpunet.TrainingDivergedError, match="after the last update"):
        gpunet.fit(network, X, y, epochs=1, batch_size=64, optimizer=gpunet.Adam(1e38), checkpoint=path)
    assert not path.exists()
    for name, value in network.get_parameters().items():
        np.testing.assert_array_equal(value, before[name])

    targets = X[:, :3] * 10
    network = gpunet.Network([5, 8, 3], batch_norm=False, loss="squared_error", device="cpu")
    for epochs in range(1, 8):
        network.reset_parameters()
        try:
            gpunet.fit(network, X, targets, epochs=epochs, batch_size=64, optimizer=gpunet.SGD(1.0, momentum=0.9))
        except gpunet.TrainingDivergedError:
            break
        assert np.isfinite(network.predict(X)).all()
    else:
        pytest.fail("the run was to diverge")
    assert np.isfinite(network.predict(X)).all()


def test_running_averages_that_overflow_are_named():
    X, y = random_problem(64, 5, 3)
    network = gpunet.Network([5, 8, 3], device="cpu")
    with pytest.raises(gpunet.TrainingDivergedError) as caught:
        gpunet.fit(network, X * 3e18, y, epochs=2, batch_size=32)
    assert caught.value.layer == "running average running_variance1"
    assert np.isfinite(network.flat_state).all()


def test_early_stopping_keeps_the_best_weights_also_when_a_run_fails():
    class Break(gpunet.Callback):
        kept: np.ndarray
        interrupts = False

        def on_step_end(self, run):
            if self.interrupts and run.epoch == 4:
                raise KeyboardInterrupt

        def on_epoch_end(self, run, record):
            if record.validation_loss == min(run.history["validation_loss"]):
                self.kept = run.network.flat_parameters.copy()
            if record.epoch == 4:
                run.network.parameters["W1"][0, 0] = np.nan

    X, y = random_problem(64, 5, 3)
    for error in (gpunet.TrainingDivergedError, KeyboardInterrupt):
        network = gpunet.Network([5, 8, 3], device="cpu")
        callback = Break()
        callback.interrupts = error is KeyboardInterrupt
        with pytest.raises(error) as caught:
            gpunet.fit(
                network,
                X,
                y,
                epochs=9,
                batch_size=16,
                validation=(X, y),
                early_stopping=gpunet.EarlyStopping(5),
                callbacks=[callback],
            )
        np.testing.assert_array_equal(network.flat_parameters, callback.kept)
        if error is not KeyboardInterrupt:
            assert len(caught.value.history) == 4


def test_the_error_survives_pickling():
    error = gpunet.TrainingDivergedError("lost", 2, 30, "parameter W1", gpunet.History())
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.epoch, twin.step, twin.layer, len(twin.history)) == ("lost", 2, 30, "parameter W1", 0)


def test_divergence_warns_of_nothing_before_it_raises():
    X, y = random_problem(64, 5, 3)
    network = gpunet.Network([5, 8, 8, 3], batch_norm=False, device="cpu")
    with pytest.raises(gpunet.TrainingDivergedError):  # pytest turns warnings into errors
        gpunet.fit(network, X, y, epochs=3, batch_size=32, optimizer=gpunet.SGD(1e25))


def test_an_infinite_running_average_is_the_cause_that_is_named():
    X, y = random_problem(64, 5, 3)
    for epochs, batch_size in ((1, 64), (2, 32)):  # seen after the run's only update, and in the middle of a run
        network = gpunet.Network([5, 8, 3], device="cpu")
        with pytest.raises(gpunet.TrainingDivergedError) as caught:
            gpunet.fit(network, X * 3e19, y, epochs=epochs, batch_size=batch_size, clip_norm=1.0)
        message = str(caught.value)
        assert caught.value.layer == "running average running_variance1"
        assert "an update left a value that is not finite" in message
        assert "0." not in message.split("not finite first")[0]  # no loss that is fine
        assert message.endswith("Inputs scaled to about 1, dtype='float64' or a lower learning rate may help.")


@pytest.mark.parametrize(
    ("arguments", "clip_norm", "advice"),
    [
        ({"batch_norm": False}, None, "A lower learning rate, clip_norm or batch norm may help."),
        ({"batch_norm": False}, 1e30, "A lower learning rate or batch norm may help."),
        ({"batch_norm": True}, None, "A lower learning rate or clip_norm may help."),
        ({"batch_norm": True}, 1e30, "A lower learning rate may help."),
        ({"layer_sizes": [5, 3]}, 1e30, "A lower learning rate may help."),
    ],
)
def test_the_advice_is_what_the_run_does_not_do_already(arguments, clip_norm, advice):
    class Break(gpunet.Callback):
        def on_step_end(self, run):
            run.network.parameters["W1"][0, 0] = np.nan

    X, y = random_problem(64, 5, 3)
    network = gpunet.Network(**{"layer_sizes": [5, 8, 3], "device": "cpu", **arguments})
    with pytest.raises(gpunet.TrainingDivergedError) as caught:
        gpunet.fit(network, X, y, epochs=1, batch_size=16, clip_norm=clip_norm, callbacks=[Break()])
    assert str(caught.value).endswith(f". {advice}")


@pytest.mark.parametrize(("dtype", "advice"), [("float32", " or dtype='float64'"), ("float64", "")])
def test_a_loss_before_any_update_is_not_the_learning_rates_fault(dtype, advice):
    X, y = random_problem(64, 5, 3)
    network = gpunet.Network([5, 8, 3], batch_norm=False, dtype=dtype, device="cpu")
    large = float(np.sqrt(np.finfo(dtype).max))
    network.set_parameters({"W1": np.full((8, 5), large), "W2": np.full((3, 8), large)})
    with pytest.raises(gpunet.TrainingDivergedError, match="step 1;") as caught:
        gpunet.fit(network, np.abs(X) * 10, y)
    assert str(caught.value).endswith(f". Inputs scaled to about 1{advice} may help.")
