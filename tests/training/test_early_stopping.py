"""Early stopping, and that the best weights are there at the end of every kind of run."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet.training.early_stopping import BestWeights
from gpunet.training.history import EpochRecord
from tests.helpers.networks import learnable, small_network


def test_early_stopping_restores_the_best_weights():
    X, y = learnable(200)
    noise = np.random.default_rng(0).integers(0, 3, 60)  # validation labels that no network can learn
    network = small_network(batch_norm=True)
    kept = {}

    class Keep(gpunet.Callback):
        def on_epoch_end(self, run, record):
            kept[record.epoch] = run.network.get_parameters() | run.network.get_state()

    history = gpunet.fit(
        network,
        X,
        y,
        epochs=60,
        batch_size=32,
        optimizer=gpunet.Adam(0.01),
        validation=(X[:60], noise),
        early_stopping=gpunet.EarlyStopping(patience=3),
        callbacks=[Keep()],
    )
    best = int(np.argmin(history["validation_loss"])) + 1
    assert history.stopped_early
    assert history.best_epoch == best
    assert len(history) == best + 3 < 60
    for name, value in (network.get_parameters() | network.get_state()).items():
        np.testing.assert_array_equal(value, kept[best][name])
    assert gpunet.evaluate(network, X[:60], noise).loss == min(history["validation_loss"])


def test_early_stopping_on_accuracy_restores_also_without_stopping():
    X, y = learnable(200)
    network = small_network()
    rule = gpunet.EarlyStopping(patience=50, monitor="validation_accuracy")
    history = gpunet.fit(network, X, y, epochs=6, batch_size=32, validation=(X, y), early_stopping=rule)
    assert not history.stopped_early
    assert history.best_epoch == int(np.argmax(history["validation_accuracy"])) + 1
    assert gpunet.evaluate(network, X, y).accuracy == max(history["validation_accuracy"])


def test_no_change_is_no_improvement():
    X, y = learnable(40)
    rule = gpunet.EarlyStopping(patience=2)
    history = gpunet.fit(
        small_network(),
        X,
        y,
        epochs=9,
        optimizer=gpunet.SGD(0.0),
        validation=(X[:1], y[:1]),
        early_stopping=rule,
        batch_size=40,
    )
    improved = [a > b for a, b in zip([np.inf, *history["validation_loss"]], history["validation_loss"], strict=False)]
    assert history.best_epoch == max(place for place, better in enumerate(improved, start=1) if better)

    network = small_network(batch_norm=False)  # nothing moves: no running averages either
    history = gpunet.fit(network, X, y, epochs=9, optimizer=gpunet.SGD(0.0), validation=(X, y), early_stopping=rule)
    assert (len(history), history.best_epoch) == (3, 1)


@pytest.mark.parametrize(("monitor", "sign"), [("validation_loss", 1), ("validation_accuracy", -1)])
def test_an_improvement_is_more_than_the_minimum_change(monitor, sign):
    rule = gpunet.EarlyStopping(patience=2, minimum_change=0.125, monitor=monitor)
    best, found = BestWeights(small_network(), rule), []
    for epoch, value in enumerate((0.5, 0.375, 0.25, 0.125, 0.0625), start=1):
        quantity = value if sign > 0 else 1 - value
        best.consider(EpochRecord(epoch, epoch, 1.0, 0.0, 0.1, 1.0, 1.0, **{monitor: quantity}))
        found.append((best.epoch, best.waited, best.is_over))
    assert found == [(1, 0, False), (1, 1, False), (3, 0, False), (3, 1, False), (5, 0, False)]
    best.consider(EpochRecord(6, 6, 1.0, 0.0, 0.1, 1.0, 1.0, **{monitor: quantity}))
    assert not best.is_over
    best.consider(EpochRecord(7, 7, 1.0, 0.0, 0.1, 1.0, 1.0, **{monitor: quantity - sign * 0.125}))
    assert (best.epoch, best.waited, best.is_over) == (5, 2, True)


def test_early_stopping_that_goes_back_forgets_later_moments():
    X, y = learnable(60)
    noise = np.random.default_rng(0).integers(0, 3, 60)
    network, optimizer = small_network(), gpunet.SGD(0.1, momentum=0.9)
    rule = gpunet.EarlyStopping(patience=2)
    gpunet.fit(network, X, y, epochs=40, optimizer=optimizer, validation=(X, noise), early_stopping=rule)
    assert optimizer.step == 0
    assert not optimizer.moments["velocity"].any()


def test_the_ending_of_a_run_reaches_every_callback_with_the_best_weights():
    ended = []

    class Ending(gpunet.Callback):
        def __init__(self, fails=False):
            self.fails = fails

        def on_fit_end(self, run):
            ended.append((run.history.best_epoch, run.network.steps))
            if self.fails:
                raise RuntimeError("in on_fit_end")

    X, y = learnable(60)
    noise = np.random.default_rng(0).integers(0, 3, 60)
    with pytest.raises(RuntimeError, match="in on_fit_end"):
        gpunet.fit(
            small_network(),
            X,
            y,
            epochs=40,
            batch_size=60,
            validation=(X, noise),
            early_stopping=gpunet.EarlyStopping(2),
            callbacks=(callback for callback in [Ending(fails=True), Ending()]),
        )
    assert len(ended) == 2
    assert ended[0] == ended[1]
    assert ended[0][0] == ended[0][1]  # one step per epoch: the weights are those of the best one
