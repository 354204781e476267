"""Checkpoints: a resumed run is the run that was never interrupted, and nothing else is resumed."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet.serialization import read_tensors, write_tensors
from tests.helpers.networks import learnable, small_network


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("interrupted_after", [1, 3])
def test_resuming_is_exact(tmp_path, suffix, interrupted_after):
    X, y = learnable(100)
    path = tmp_path / f"run{suffix}"

    def run(network, epochs, **arguments):
        rule = gpunet.EarlyStopping(patience=3)
        return gpunet.fit(
            network,
            X,
            y,
            epochs=epochs,
            batch_size=32,
            optimizer=gpunet.Adam(gpunet.CosineRate(0.02, 28)),
            validation=(X[::-1], (y + 1) % 3),
            early_stopping=rule,
            **arguments,
        )

    def trained_before():  # by another optimiser: the network's steps are not this one's
        network = small_network(dropout=0.3)
        gpunet.fit(network, X, y, epochs=1)
        return network

    whole = trained_before()
    expected = run(whole, 7)
    run(trained_before(), interrupted_after, checkpoint=path)
    resumed = small_network(dropout=0.3)
    history = run(resumed, 7, checkpoint=path, resume=True)
    np.testing.assert_array_equal(resumed.flat_parameters, whole.flat_parameters)
    np.testing.assert_array_equal(resumed.flat_state, whole.flat_state)
    for quantity in ("epoch", "step", "loss", "validation_loss", "learning_rate"):
        assert history[quantity] == expected[quantity]
    assert (history.best_epoch, resumed.steps) == (expected.best_epoch, whole.steps)


class FromTheSecondEpoch(gpunet.Callback):
    """Sets a momentum, and a learning rate, before the second epoch."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def on_step_end(self, run):
        if run.epoch == 1 and run.step_in_epoch == run.steps_per_epoch:
            self.optimizer.momentum, self.optimizer.learning_rate = 0.9, 0.02


def test_a_checkpoint_knows_what_a_callback_has_set(tmp_path):
    X, y = learnable(100)
    path = tmp_path / "run.npz"

    def run(epochs, optimizer, network, **arguments):
        callbacks = [FromTheSecondEpoch(optimizer)]
        gpunet.fit(network, X, y, epochs=epochs, batch_size=32, optimizer=optimizer, callbacks=callbacks, **arguments)
        return network.get_parameters()

    expected = run(4, gpunet.SGD(0.1), small_network())
    run(2, gpunet.SGD(0.1), small_network(), checkpoint=path)
    with pytest.raises(gpunet.InvalidValueError, match=r"optimizer with momentum=0\.9"):
        run(4, gpunet.SGD(0.1), small_network(), checkpoint=path, resume=True)
    found = run(4, gpunet.SGD(0.02, momentum=0.9), small_network(), checkpoint=path, resume=True)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


class Spoiling(gpunet.Callback):
    """Leaves weights that give no finite loss before the first step."""

    def on_fit_start(self, run):
        run.network.set_parameters({name: np.full_like(W, 1e30) for name, W in run.network.get_parameters().items()})


def test_a_resumed_run_that_diverges_at_once_goes_back_to_the_checkpoint(tmp_path):
    X, y = learnable(100)
    path, first, resumed = tmp_path / "run.npz", small_network(), small_network()
    gpunet.fit(first, X, y, epochs=2, checkpoint=path)
    with pytest.raises(gpunet.TrainingDivergedError):
        gpunet.fit(resumed, X, y, epochs=3, checkpoint=path, resume=True, callbacks=[Spoiling()])
    np.testing.assert_array_equal(resumed.flat_parameters, first.flat_parameters)
    np.testing.assert_array_equal(resumed.flat_state, first.flat_state)
    assert resumed.steps == first.steps


def test_resuming_refuses_another_run(tmp_path):
    X, y = learnable(40)
    path = tmp_path / "run.npz"
    gpunet.fit(small_network(), X, y, epochs=1, checkpoint=path)
    other = small_network(activation="tanh")
    before = other.get_parameters()
    with pytest.raises(gpunet.InvalidValueError, match="activation"):
        gpunet.fit(other, X, y, epochs=2, checkpoint=path, resume=True)
    with pytest.raises(gpunet.InvalidValueError, match="sgd"):
        gpunet.fit(small_network(), X, y, epochs=2, checkpoint=path, resume=True, optimizer=gpunet.Adam())
    for name, value in other.get_parameters().items():
        np.testing.assert_array_equal(value, before[name])
    for change in ({"batch_size": 10}, {"l2": 0.5}, {"clip_norm": 1.0}, {"shuffle": False}):
        with pytest.raises(gpunet.InvalidValueError, match=f"checkpoint: .*{next(iter(change))}="):
            gpunet.fit(small_network(), X, y, epochs=2, checkpoint=path, resume=True, **change)
    with pytest.raises(gpunet.InvalidValueError, match=r"checkpoint: .*rows="):
        gpunet.fit(small_network(), X[:30], y[:30], epochs=2, checkpoint=path, resume=True)
    small_network().save(tmp_path / "model.npz")
    with pytest.raises(gpunet.FileFormatError, match=r"gpunet\.network"):
        gpunet.fit(small_network(), X, y, epochs=2, checkpoint=tmp_path / "model.npz", resume=True)


def test_resuming_refuses_another_output_activation_and_takes_old_files_for_the_identity(tmp_path):
    X, _ = learnable(40)
    path = tmp_path / "run.npz"

    def run(output_activation, **arguments):
        network = small_network(loss="squared_error", output_activation=output_activation)
        return gpunet.fit(network, X, X[:, :3], checkpoint=path, **arguments)

    run("identity", epochs=1)
    with pytest.raises(gpunet.InvalidValueError, match=r"output_activation='identity'\. Expected 'sigmoid'"):
        run("sigmoid", epochs=2, resume=True)
    tensors, header = read_tensors(path)
    del header["network"]["output_activation"]
    write_tensors(path, tensors, header)
    with pytest.raises(gpunet.InvalidValueError, match=r"output_activation='identity'\. Expected 'sigmoid'"):
        run("sigmoid", epochs=2, resume=True)
    assert len(run("identity", epochs=2, resume=True)) == 2


def test_a_refused_run_leaves_the_optimizer_alone(tmp_path):
    X, y = learnable(40)
    first, optimizer = small_network(), gpunet.SGD(0.1, momentum=0.9)
    gpunet.fit(first, X, y, epochs=1, optimizer=optimizer)
    gpunet.fit(small_network(activation="tanh"), X, y, epochs=1, checkpoint=tmp_path / "other.npz")
    for arguments in (
        {"checkpoint": tmp_path / "other.npz", "resume": True},
        {"callbacks": None},
        {"callbacks": [print]},
        {"shuffle": np.ones(3)},
        {"checkpoint": tmp_path},
        {"checkpoint": tmp_path / "other.npz" / "deeper.npz"},
        {"checkpoint": 5},
    ):
        with pytest.raises(gpunet.GpunetError):
            gpunet.fit(small_network(), X, y, optimizer=optimizer, **arguments)
        assert optimizer.step == 1
        assert optimizer.moments["velocity"].any()


def damage(path, change):
    """Rewrite a checkpoint with a changed header or changed tensors."""
    from gpunet.serialization import read_tensors, write_tensors

    tensors, header = read_tensors(path)
    tensors, header = change(tensors, header)
    write_tensors(path, tensors, header)


def with_record(header, **values):
    """Return the header's history with another first record."""
    first, *rest = header["history"]["epochs"]
    return header["history"] | {"epochs": [first | values, *rest]}


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, header: (tensors, header | {"steps": "x"}),
        lambda tensors, header: (tensors, header | {"steps": -1}),
        lambda tensors, header: (tensors, header | {"steps": 2**70}),
        lambda tensors, header: (tensors, {k: v for k, v in header.items() if k != "optimizer_step"}),
        lambda tensors, header: (tensors, header | {"history": {"epochs": [{"epoch": 1}]}}),
        lambda tensors, header: (tensors, header | {"history": 3}),
        lambda tensors, header: (tensors, header | {"network": 3}),
        lambda tensors, header: (tensors, {k: v for k, v in header.items() if k != "settings"}),
        lambda tensors, header: (tensors, header | {"best": {"monitor": "validation_loss"}}),
        lambda tensors, header: (tensors, header | {"best": 3}),
        lambda tensors, header: (tensors, header | {"best": header["best"] | {"value": None}}),
        lambda tensors, header: (tensors, header | {"best": header["best"] | {"value": "0.5"}}),
        lambda tensors, header: (tensors, header | {"best": header["best"] | {"epoch": 2}}),
        lambda tensors, header: (tensors, header | {"best": header["best"] | {"waited": 1}}),
        lambda tensors, header: (tensors, header | {"best": header["best"] | {"steps": 10**9}}),
        lambda tensors, header: (tensors, header | {"steps": header["steps"] + 1}),
        lambda tensors, header: (tensors, header | {"history": with_record(header, epoch=2)}),
        lambda tensors, header: (tensors, header | {"history": with_record(header, step=True)}),
        lambda tensors, header: (tensors, header | {"history": with_record(header, loss="0.5")}),
        lambda tensors, header: (tensors, header | {"history": with_record(header, seconds=[1])}),
        lambda tensors, header: (tensors, header | {"history": header["history"] | {"epochs": []}}),
        lambda tensors, header: (tensors, header | {"history": header["history"] | {"best_epoch": "1"}}),
        lambda tensors, header: (tensors, header | {"history": header["history"] | {"stopped_early": 1}}),
        lambda tensors, header: (tensors, header | {"digests": 3}),
        lambda tensors, header: (tensors, header | {"digests": {}}),
        lambda tensors, header: (tensors, header | {"hyperparameters": {}}),
        lambda tensors, header: (tensors, header | {"hyperparameters": None}),
        lambda tensors, header: (tensors, header | {"environment": 3}),
        lambda tensors, header: (tensors, header | {"settings": {}}),
        lambda tensors, header: (tensors, header | {"network": {}}),
        lambda tensors, header: (tensors | {"velocity.W1": np.ones(1, np.float32)}, header),
        lambda tensors, header: (tensors | {"best.W1": np.full((16, 6), np.nan, np.float32)}, header),
        lambda tensors, header: (tensors | {"W1": np.full((16, 6), np.inf, np.float32)}, header),
        lambda tensors, header: ({k: v for k, v in tensors.items() if k != "b2"}, header),
    ],
)
def test_a_damaged_checkpoint_changes_nothing(tmp_path, change):
    X, y = learnable(40)
    path = tmp_path / "run.npz"
    arguments = {"validation": (X, y), "early_stopping": gpunet.EarlyStopping(9), "checkpoint": path}
    gpunet.fit(small_network(), X, y, epochs=1, **arguments)
    damage(path, change)
    network = small_network()
    before = network.flat_parameters.copy()
    with pytest.raises(gpunet.FileFormatError, match="checkpoint"):
        gpunet.fit(network, X, y, epochs=2, resume=True, **arguments)
    np.testing.assert_array_equal(network.flat_parameters, before)
    assert network.steps == 0


def test_resuming_with_another_rule_for_early_stopping(tmp_path):
    X, y = learnable(60)
    noise = np.random.default_rng(0).integers(0, 3, 60)
    path = tmp_path / "run.npz"
    arguments = {"validation": (X, noise), "checkpoint": path}
    short = gpunet.fit(small_network(), X, y, epochs=40, early_stopping=gpunet.EarlyStopping(2), **arguments)
    assert short.stopped_early
    other = gpunet.EarlyStopping(2, monitor="validation_accuracy")
    with pytest.raises(gpunet.InvalidValueError, match="monitor="):
        gpunet.fit(small_network(), X, y, epochs=40, early_stopping=other, resume=True, **arguments)
    longer = gpunet.fit(
        small_network(), X, y, epochs=40, early_stopping=gpunet.EarlyStopping(5), resume=True, **arguments
    )
    assert len(longer) > len(short)
    rest = gpunet.fit(small_network(), X, y, epochs=len(longer) + 2, resume=True, **arguments)
    assert len(rest) == len(longer) + 2
    assert not rest.stopped_early
