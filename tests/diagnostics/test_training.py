"""Diagnostics while a network trains, the gradient check, and the figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import gpunet
from gpunet.activations import Tanh
from gpunet.diagnostics import DiagnosticsCallback, check_gradients, draw_layers, draw_training, inspect
from gpunet.errors import InvalidTypeError, InvalidValueError, ShapeError
from tests.helpers.networks import learnable, random_problem, randomise, small_network


class Parameters(gpunet.Callback):
    """Keeps the parameters after every step."""

    def __init__(self):
        self.values = []

    def on_fit_start(self, run):
        self.values.append(run.network.get_parameters())

    def on_step_end(self, run):
        self.values.append(run.network.get_parameters())


@pytest.mark.parametrize(("batch_size", "steps"), [(50, 6), (300, 1), (150, 2)])
@pytest.mark.parametrize("every", [1, 3])
def test_what_the_callback_records(batch_size, steps, every):
    """Epoch 0, every so many epochs, and the last; the update is the last one of the epoch."""
    X, y = learnable(300)
    network, watch = small_network(), Parameters()
    callback = DiagnosticsCallback(X, y, every=every, rows=100, l2=0.01)
    gpunet.fit(network, X, y, epochs=5, batch_size=batch_size, l2=0.01, callbacks=[watch, callback])
    expected = [0, 1, 2, 3, 4, 5] if every == 1 else [0, 3, 5]
    assert [record.epoch for record in callback.records] == expected
    assert [record.steps for record in callback.records] == [epoch * steps for epoch in expected]
    assert {record.rows for record in callback.records} == {100}
    assert callback.records[0].parameters["W1"].update_ratio is None
    for record in callback.records[1:]:
        before, after = watch.values[record.steps - 1]["W1"], watch.values[record.steps]["W1"]
        change = np.linalg.norm(after.astype(float) - before) / np.linalg.norm(before.astype(float))
        assert record.parameters["W1"].update_ratio == pytest.approx(change, rel=1e-6)
    X_sample, y_sample = callback.sample
    assert callback.records[-1] == inspect(
        network, X_sample, y_sample, l2=0.01, before=watch.values[-2], epoch=callback.records[-1].epoch
    )


@pytest.mark.parametrize("arguments", [{}, {"batch_norm": False}, {"dropout": 0.3}], ids=str)
def test_training_goes_on_bit_for_bit(arguments):
    X, y = learnable(300)
    found = []
    for callbacks in ([], [DiagnosticsCallback(X, y)]):
        network = small_network(**arguments)
        history = gpunet.fit(network, X, y, epochs=4, batch_size=32, validation=(X, y), callbacks=callbacks)
        found.append((network.get_parameters() | network.get_state(), history["loss"], history["validation_loss"]))
    (ours, *our_history), (others, *other_history) = found
    assert our_history == other_history
    for name, value in ours.items():
        np.testing.assert_array_equal(value, others[name])


def test_a_resumed_run_records_where_it_goes_on(tmp_path):
    X, y = learnable(300)
    arguments = {"batch_size": 100, "checkpoint": tmp_path / "checkpoint.npz", "resume": True}
    gpunet.fit(small_network(), X, y, epochs=3, **arguments)
    callback = DiagnosticsCallback(X, y)
    gpunet.fit(small_network(), X, y, epochs=5, callbacks=[callback], **arguments)
    assert [record.epoch for record in callback.records] == [3, 4, 5]
    assert [record.steps for record in callback.records] == [9, 12, 15]


def test_a_callback_can_be_used_again():
    X, y = learnable(100)
    callback = DiagnosticsCallback(X, y)
    for epochs in (2, 1):
        gpunet.fit(small_network(), X, y, epochs=epochs, callbacks=[callback])
        assert [record.epoch for record in callback.records] == list(range(epochs + 1))
        assert callback.records[0].parameters["W1"].update_ratio is None


class StopAt(gpunet.Callback):
    """Ends training after an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, run, record):
        run.stop = run.epoch == self.epoch


@pytest.mark.parametrize("batch_size", [50, 300])
@pytest.mark.parametrize("patience", [None, 2])
def test_the_last_epoch_is_recorded_also_where_training_ends_early(patience, batch_size):
    X, y = learnable(300)
    network, watch = small_network(), Parameters()
    callback = DiagnosticsCallback(X, y, every=50)
    stopping = {"callbacks": [StopAt(3), watch, callback]}
    if patience:
        noise = np.random.default_rng(0).permutation(y)
        stopping = {
            "callbacks": [watch, callback],
            "validation": (X, noise),
            "early_stopping": gpunet.EarlyStopping(patience),
        }
    history = gpunet.fit(network, X, y, epochs=100, batch_size=batch_size, **stopping)
    assert len(history) < 50
    assert [record.epoch for record in callback.records] == [0, len(history)]
    before, after = (weights["W2"].astype(float) for weights in watch.values[-2:])
    change = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert callback.records[-1].parameters["W2"].update_ratio == pytest.approx(change, rel=1e-6)


def test_bad_data_are_refused_before_training():
    X, y = learnable(100)
    network = small_network()
    before = network.get_parameters()
    with pytest.raises(ShapeError, match="columns"):
        gpunet.fit(network, X, y, epochs=1, callbacks=[DiagnosticsCallback(X[:, :3], y)])
    np.testing.assert_array_equal(network.get_parameters()["W1"], before["W1"])
    assert network.steps == 0
    for name, value, error in (("every", 0, InvalidValueError), ("rows", 1.5, InvalidTypeError)):
        with pytest.raises(error, match=name):
            DiagnosticsCallback(X, y, **{name: value})


# --- the gradient check -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu", "leaky_relu(0.1)", "elu"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_right_gradients_pass(activation, batch_norm):
    network = gpunet.Network(
        [6, 12, 9, 4],
        activation=activation,
        batch_norm=batch_norm,
        dropout=0.2,
        bias_before_batch_norm=True,
        device="cpu",
    )
    randomise(network)
    X, y = random_problem(50, 6, 4)
    before = network.get_parameters()
    errors = check_gradients(network, X, y, l2=0.01, sample_weight=np.linspace(0.1, 1, 50))
    assert errors.keys() == before.keys()
    assert max(errors.values()) < 1e-6
    for name, value in before.items():
        np.testing.assert_array_equal(network.get_parameters()[name], value)


@dataclass(frozen=True)
class WrongTanh(Tanh):
    """Its derivative is a little off."""

    name = "wrong_tanh"
    share: float = 0.05

    def derivative(self, y):
        return (1 + self.share * y) * super().derivative(y)


@pytest.mark.parametrize("share", [1e-3, 0.05])
def test_wrong_gradients_show_as_what_is_wrong_in_them(share):
    network = gpunet.Network([6, 12, 4], activation=WrongTanh(share), batch_norm=False, device="cpu")
    X, y = random_problem(60, 6, 4)
    errors = check_gradients(network, X, y, directions=16)
    right = gpunet.Network([6, 12, 4], activation="tanh", batch_norm=False, dtype="float64", device="cpu")
    right.set_parameters(network.get_parameters())
    _, expected = right.loss_and_gradients(X, y)
    double = gpunet.Network([6, 12, 4], activation=WrongTanh(share), batch_norm=False, dtype="float64", device="cpu")
    double.set_parameters(network.get_parameters())
    _, wrong = double.loss_and_gradients(X, y)
    for name in ("W1", "b1"):
        exact = np.linalg.norm(wrong[name] - expected[name]) / (np.linalg.norm(wrong[name]) * 2)
        assert exact / 2 < errors[name] < 2 * exact
    assert max(errors["W2"], errors["b2"]) < 1e-8


def test_arguments_of_the_gradient_check():
    X, y = random_problem(10, 6, 3)
    for arguments, error in (({"directions": 0}, InvalidValueError), ({"step": 0.0}, InvalidValueError)):
        with pytest.raises(error, match=next(iter(arguments))):
            check_gradients(small_network(), X, y, **arguments)


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [0, 1, 8])
def test_figures_are_labelled(hidden):
    pytest.importorskip("matplotlib")
    X, y = random_problem(60, 6, 3)
    network = gpunet.Network([6, *[8] * hidden, 3], activation="tanh", device="cpu")
    callback = DiagnosticsCallback(X, y)
    gpunet.fit(network, X, y, epochs=2, callbacks=[callback])
    layers = draw_layers(callback.records[-1], title="after two epochs")
    layers.draw_without_rendering()
    shown = [axes for axes in layers.axes if axes.get_visible()]
    assert len(shown) == 2 * (hidden + 1)
    assert {axes.get_xlabel() for axes in shown} == {"activation", "dJ/ds"}
    assert shown[-1].get_ylabel() in ("", "share")
    training = draw_training(callback.records)
    training.draw_without_rendering()
    assert all(axes.get_xlabel() == "epoch" and axes.get_ylabel() for axes in training.axes)
    assert len(training.axes[1].lines) == hidden + 1


def test_figures_of_dead_and_diverged_networks():
    pytest.importorskip("matplotlib")
    X, y = random_problem(60, 6, 3)
    network = small_network(batch_norm=False, initial_bias=-1e3)
    dead = inspect(network, X, y)
    network.parameters["W1"][...] = np.nan
    for diagnosis in (dead, inspect(network, X, y)):
        draw_layers(diagnosis).draw_without_rendering()
        draw_training([diagnosis]).draw_without_rendering()
    with pytest.raises(InvalidValueError, match="records"):
        draw_training([])


def test_figures_share_their_epochs_and_say_where_they_are_empty():
    pytest.importorskip("matplotlib")
    X, y = random_problem(60, 6, 3)
    network = small_network(batch_norm=False, initializer="zeros")
    first = inspect(network, X, y, epoch=4)
    axes = draw_training([first]).axes
    assert [[text.get_text() for text in one.texts] for one in axes[:4]] == [
        ["nothing finite above 0"],
        [],
        [],
        ["no update yet"],
    ]
    assert {one.get_xlim() for one in axes[:4]} == {(3.5, 4.5)}
    assert all([tick for tick in one.get_xticks() if 3.5 < tick < 4.5] == [4] for one in axes[:4])
    low, high = axes[1].get_ylim()
    assert high == pytest.approx(10 * low), "one value is drawn on a whole decade"
    callback = DiagnosticsCallback(X, y)
    gpunet.fit(small_network(), X, y, epochs=3, callbacks=[callback])
    axes = draw_training(callback.records).axes
    assert len({one.get_xlim() for one in axes[:4]}) == 1
    assert axes[0].get_xlim() == pytest.approx((-0.15, 3.15))
    assert not any(one.texts for one in axes[:4])


def test_many_layers_are_drawn_in_rows_of_equal_length():
    pytest.importorskip("matplotlib")
    X, y = random_problem(60, 6, 3)
    diagnosis = inspect(gpunet.Network([6, *[8] * 7, 3], device="cpu"), X, y)
    assert draw_layers(diagnosis).axes[0].get_subplotspec().get_gridspec().get_geometry() == (4, 4)
