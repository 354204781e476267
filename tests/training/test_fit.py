"""``fit``: what it learns, what it records, and that one seed is one run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gpunet
from gpunet.backends import NumpyBackend
from gpunet.batches import batch_slices
from tests.helpers.networks import learnable, small_network


def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16, y, test_size=0.2, stratify=y, random_state=0)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_learns_the_digits(batch_norm):
    X, X_test, y, y_test = digits()
    network = gpunet.Network([64, 64, 10], batch_norm=batch_norm, device="cpu")
    gpunet.fit(network, X, y, epochs=30, optimizer=gpunet.Adam(2e-3))
    assert gpunet.evaluate(network, X_test, y_test).accuracy > 0.95


@pytest.mark.parametrize(
    "optimizer", [lambda: gpunet.SGD(0.1, momentum=0.9, nesterov=True), lambda: gpunet.AdamW(0.01)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_seed_is_the_same_run_bit_for_bit(optimizer, dtype):
    X, y = learnable()
    runs = []
    for _ in range(2):
        network = small_network(dtype=dtype, dropout=0.2)
        history = gpunet.fit(network, X, y, epochs=4, batch_size=32, optimizer=optimizer(), validation=(X, y))
        runs.append((network.get_parameters() | network.get_state(), history))
    for name, value in runs[0][0].items():
        np.testing.assert_array_equal(value, runs[1][0][name])
    for quantity in ("loss", "validation_loss", "validation_accuracy", "learning_rate"):
        assert runs[0][1][quantity] == runs[1][1][quantity]
    other = small_network(dtype=dtype, dropout=0.2, seed=2)
    gpunet.fit(other, X, y, epochs=4, batch_size=32, optimizer=optimizer())
    assert not np.array_equal(other.parameters["W1"], runs[0][0]["W1"])


def test_float32_and_float64_start_from_the_same_weights():
    single, double = small_network(dtype="float32"), small_network(dtype="float64")
    for name, value in double.parameters.items():
        np.testing.assert_array_equal(single.parameters[name], value.astype(np.float32))


def test_history_says_what_happened():
    X, y = learnable(100)
    network = small_network()
    rate = gpunet.StepRate(0.1, every=4, factor=0.5)
    history = gpunet.fit(
        network, X, y, epochs=3, batch_size=32, optimizer=gpunet.SGD(rate), l2=0.01, validation=(X[:50], y[:50])
    )
    assert [record.epoch for record in history] == history["epoch"] == [1, 2, 3]
    assert history["step"] == [4, 8, 12]
    assert history["learning_rate"] == [0.1, 0.05, 0.025]
    expected = 0.01 * sum((network.parameters[name] ** 2).sum() for name in ("W1", "W2"))
    assert history["penalty"][-1] == pytest.approx(expected, rel=1e-5)
    result = gpunet.evaluate(network, X[:50], y[:50])
    assert history["validation_loss"][-1] == pytest.approx(result.loss, rel=1e-6)
    assert history["validation_accuracy"][-1] == result.accuracy
    assert all(speed > 0 for speed in history["samples_per_second"])
    assert repr(history).startswith("History(3 epochs, loss=")
    assert repr(gpunet.History()) == "History(no epochs)"
    with pytest.raises(KeyError):
        history["losss"]
    assert gpunet.History.from_dict(json.loads(json.dumps(history.to_dict()))) == history


def test_history_with_a_validation_loss_that_is_not_finite_is_still_json(tmp_path):
    record = gpunet.EpochRecord(1, 4, 0.5, 0.0, 0.1, 1e3, 0.1, validation_loss=float("nan"), validation_accuracy=0.5)
    content = gpunet.History([record]).save(tmp_path / "history.json").read_text()
    assert json.loads(content, parse_constant=pytest.fail)["epochs"][0]["validation_loss"] is None


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_history_can_be_drawn(tmp_path, suffix):
    X, y = learnable(60)
    history = gpunet.fit(small_network(), X, y, epochs=2, validation=(X, y))
    path = history.plot(tmp_path / "new" / f"history{suffix}")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert gpunet.fit(small_network(), X, y, epochs=2).plot(tmp_path / f"no validation{suffix}").exists()


def test_the_recorded_loss_is_the_mean_over_the_examples():
    """Without updates, the epoch's loss is that of the data, short last batch and weights included."""
    X, y = learnable(50)
    weights = np.linspace(0, 3, 50)
    network = small_network(batch_norm=False, dtype="float64")
    expected = network.loss_and_gradients(X, y, sample_weight=weights)[0]
    history = gpunet.fit(network, X, y, epochs=1, batch_size=16, optimizer=gpunet.SGD(0.0), sample_weight=weights)
    assert history["loss"][0] == pytest.approx(expected, rel=1e-12)
    assert gpunet.evaluate(network, X, y, sample_weight=weights).loss == pytest.approx(expected, rel=1e-12)


def test_every_example_once_per_epoch_in_a_new_order():
    seen = []

    class Watch(gpunet.Callback):
        def on_step_end(self, run):
            seen.append(run.network.layers[0]._x[:, 0].copy())

    X = np.arange(23.0).reshape(-1, 1)
    network = gpunet.Network([1, 2], device="cpu", batch_norm=False, dtype="float64")
    gpunet.fit(network, X, np.arange(23) % 2, epochs=2, batch_size=5, optimizer=gpunet.SGD(0.0), callbacks=[Watch()])
    epochs = np.concatenate(seen[:5]), np.concatenate(seen[5:])
    assert [len(batch) for batch in seen[:5]] == [5, 5, 5, 5, 3]
    for order in epochs:
        np.testing.assert_array_equal(np.sort(order), X[:, 0])
    assert not np.array_equal(*epochs)
    assert not np.array_equal(epochs[0], X[:, 0])

    seen.clear()
    gpunet.fit(network, X, np.arange(23) % 2, epochs=1, batch_size=5, shuffle=False, callbacks=[Watch()])
    np.testing.assert_array_equal(np.concatenate(seen), X[:, 0])


@pytest.mark.parametrize(
    ("rows", "size", "minimum", "lengths"),
    [
        (10, 5, 1, [5, 5]),
        (11, 5, 1, [5, 5, 1]),
        (11, 5, 2, [5, 6]),
        (12, 5, 2, [5, 5, 2]),
        (3, 5, 2, [3]),
        (1, 5, 1, [1]),
        (5, 2, 2, [2, 3]),
    ],
)
def test_a_lone_last_example_joins_the_batch_before_it(rows, size, minimum, lengths):
    slices = batch_slices(rows, size, minimum)
    assert [part.stop - part.start for part in slices] == lengths
    assert slices[0].start == 0
    assert slices[-1].stop == rows


def test_a_lone_last_example_does_not_break_batch_norm():
    X, y = learnable(33)
    history = gpunet.fit(small_network(), X, y, epochs=2, batch_size=16)
    assert history["step"] == [2, 4]


def test_class_weights_are_sample_weights_by_class():
    X, y = learnable(90)
    results = []
    for arguments in (
        {"class_weight": {0: 2.0, 2: 0.5}},
        {"class_weight": [2.0, 1.0, 0.5]},
        {"sample_weight": np.array([2.0, 1.0, 0.5])[y]},
        {"class_weight": {0: 4.0}, "sample_weight": np.array([0.5, 1.0, 0.5])[y]},
    ):
        network = small_network()
        gpunet.fit(network, X, y, epochs=2, batch_size=32, **arguments)
        results.append(network.get_parameters()["W1"])
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_balanced_class_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    from gpunet.training.class_weights import weigh_classes

    y = np.array([0] * 10 + [2] * 30, np.int32)
    weights = weigh_classes(small_network(), "balanced", y)
    expected = compute_class_weight("balanced", classes=np.array([0, 2]), y=y)
    np.testing.assert_allclose(weights[[0, 2]], expected, rtol=1e-6)


def test_clipping_bounds_the_update():
    X, y = learnable(64)
    for clip_norm, bound in ((0.01, True), (1e6, False)):
        network = small_network(batch_norm=False, dtype="float64")
        before = network.flat_parameters.copy()
        gpunet.fit(
            network,
            X * 100,
            y,
            epochs=1,
            batch_size=64,
            optimizer=gpunet.SGD(1.0),
            clip_norm=clip_norm,
            l2=0.1,
        )
        moved = np.linalg.norm(network.flat_parameters - before)
        if bound:
            assert moved == pytest.approx(clip_norm, rel=1e-9)
        else:
            assert moved > 1


def test_a_callback_can_stop_the_run():
    class Stop(gpunet.Callback):
        ended = False

        def on_epoch_end(self, run, record):
            run.stop = record.epoch == 2

        def on_fit_end(self, run):
            self.ended = True

    X, y = learnable(50)
    callback = Stop()
    assert len(gpunet.fit(small_network(), X, y, epochs=9, callbacks=[callback])) == 2
    assert callback.ended


def test_a_second_fit_goes_on_with_the_same_optimizer():
    X, y = learnable(64)
    whole, parts = small_network(), small_network()
    gpunet.fit(whole, X, y, epochs=6, batch_size=32, optimizer=gpunet.Adam(0.01))
    optimizer = gpunet.Adam(0.01)
    gpunet.fit(parts, X, y, epochs=2, batch_size=32, optimizer=optimizer)
    gpunet.fit(parts, X, y, epochs=4, batch_size=32, optimizer=optimizer)
    np.testing.assert_array_equal(whole.flat_parameters, parts.flat_parameters)
    assert optimizer.step == 12
    gpunet.fit(small_network(), X, y, epochs=1, batch_size=32, optimizer=optimizer)
    assert optimizer.step == 2


def test_regression():
    generator = np.random.default_rng(0)
    X = generator.standard_normal((400, 3))
    targets = np.sin(X[:, 0]) + X[:, 1] * X[:, 2]
    network = gpunet.Network([3, 64, 64, 1], activation="elu", loss="squared_error", device="cpu")
    history = gpunet.fit(network, X, targets, epochs=100, batch_size=64, optimizer=gpunet.Adam(0.01))
    assert history["loss"][-1] < 0.05 * history["loss"][0]
    assert gpunet.evaluate(network, X, targets).accuracy is None
    assert network.predict(X).shape == (400,)
    assert network.logits(X).shape == (400, 1)


def test_a_new_optimizer_does_not_repeat_the_order_of_the_examples():
    seen = []

    class Watch(gpunet.Callback):
        def on_step_end(self, run):
            seen.append(run.network.layers[0]._x[:, 0].copy())

    X = np.arange(40.0).reshape(-1, 1)
    network = gpunet.Network([1, 2], device="cpu", batch_norm=False, dtype="float64")
    for _ in range(2):
        optimizer = gpunet.SGD(0.0)
        gpunet.fit(network, X, np.arange(40) % 2, epochs=1, batch_size=40, optimizer=optimizer, callbacks=[Watch()])
    assert not np.array_equal(*seen)


@pytest.mark.parametrize("operation", ["batch_norm_activation_forward", "sgd_step"])
@pytest.mark.parametrize("failing_step", [1, 3])
def test_a_step_that_fails_is_counted_nowhere(operation, failing_step):
    class Failing(NumpyBackend):
        calls = 0

        def __getattribute__(self, name):
            if name == operation:
                Failing.calls += 1
                if Failing.calls == failing_step:
                    raise gpunet.OutOfDeviceMemoryError("no room")
            return super().__getattribute__(name)

    X, y = learnable(40)
    network = gpunet.Network([X.shape[1], 4, y.max() + 1], batch_norm=True, device=Failing())
    optimizer = gpunet.SGD(0.1)
    with pytest.raises(gpunet.OutOfDeviceMemoryError):
        gpunet.fit(network, X, y, epochs=1, batch_size=8, optimizer=optimizer)
    assert (network.steps, optimizer.step) == (failing_step - 1, failing_step - 1)


def test_accuracy_is_weighted_like_the_loss():
    X, y = learnable(50)
    network = small_network()
    right = network.predict(X) == y
    assert 0 < right.sum() < 50
    assert gpunet.evaluate(network, X, y, sample_weight=right.astype(float)).accuracy == 1
    assert gpunet.evaluate(network, X, y, sample_weight=(~right).astype(float)).accuracy == 0


def test_a_schedule_may_use_numpys_numbers_and_may_not_return_nonsense(tmp_path):
    X, y = learnable(40)
    rate = gpunet.StepRate(np.float32(0.125), 10)
    history = gpunet.fit(small_network(), X, y, epochs=1, optimizer=gpunet.SGD(rate), checkpoint=tmp_path / "run.npz")
    assert json.loads(history.save(tmp_path / "history.json").read_text())["epochs"][0]["learning_rate"] == 0.125

    class Odd(gpunet.Schedule):
        def __call__(self, step):
            return -1.0

    for schedule in (Odd(), gpunet.StepRate(1.0, every=1, factor=1e300)):
        with pytest.raises(gpunet.InvalidValueError, match="learning_rate"):
            gpunet.fit(small_network(), X, y, epochs=9, batch_size=10, optimizer=gpunet.SGD(schedule))
