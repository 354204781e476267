"""The network as a whole: shapes, names, flat buffers, prediction, saving, copying."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunet
from gpunet.parameters import ALIGNMENT
from tests.helpers.networks import ACTIVATIONS, random_problem, randomise


@settings(max_examples=60, deadline=None)
@given(
    widths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    classes=st.integers(2, 12),
    rows=st.integers(2, 70),
    batch_norm=st.booleans(),
    activation=st.sampled_from(ACTIVATIONS),
    dtype=st.sampled_from(("float32", "float64")),
)
def test_shapes_and_dtypes(widths, classes, rows, batch_norm, activation, dtype):
    network = gpunet.Network(
        [*widths, classes], activation=activation, batch_norm=batch_norm, dtype=dtype, device="cpu"
    )
    X, y = random_problem(rows, widths[0], classes)
    assert network.logits(X).shape == (rows, classes)
    assert network.logits(X).dtype == dtype
    probabilities = network.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(network.predict(X), probabilities.argmax(axis=1))
    cost, gradients = network.loss_and_gradients(X, y, l2=0.1, input_gradient=True)
    assert np.isfinite(cost)
    assert gradients.pop("X").shape == X.shape
    assert gradients.keys() == network.parameters.keys()
    for name, gradient in gradients.items():
        assert gradient.shape == network.parameters[name].shape
        assert gradient.dtype == dtype
        assert np.isfinite(gradient).all()


def test_names_follow_the_lecture():
    names = {
        (True, True): ["W1", "gamma1", "beta1", "W2", "gamma2", "beta2", "W3", "b3"],
        (True, False): ["W1", "W2", "W3", "b3"],
        (False, True): ["W1", "b1", "W2", "b2", "W3", "b3"],
    }
    for (batch_norm, scale_shift), expected in names.items():
        network = gpunet.Network([4, 5, 6, 3], batch_norm=batch_norm, scale_shift=scale_shift, device="cpu")
        assert list(network.parameters) == expected
        assert network.parameters["W2"].shape == (6, 5)
        assert network.parameter_count == sum(view.size for view in network.parameters.values())
        state = ["running_mean1", "running_variance1", "running_mean2", "running_variance2"]
        assert list(network.state) == (state if batch_norm else [])


def test_parameters_are_views_of_one_vector_with_the_weights_first():
    network = gpunet.Network([3, 5, 4, 2], device="cpu")
    flat = network.flat_parameters
    covered = np.zeros(flat.size, int)
    for name, view in network.parameters.items():
        assert np.shares_memory(view, flat)
        start = (view.ctypes.data - flat.ctypes.data) // flat.itemsize
        assert start % ALIGNMENT == 0
        assert (start < network.layout.weight_count) == name.startswith("W")
        covered[start : start + view.size] += 1
    assert covered.max() == 1
    X, y = random_problem(20, 3, 2)
    gpunet.fit(network, X, y, epochs=3, optimizer=gpunet.AdamW(0.1), l2=0.1)
    assert not flat[covered == 0].any()  # what lies between the views stays zero
    network.parameters["W1"][...] = 7
    assert (flat == 7).sum() == 15


def test_prediction_in_blocks_is_prediction_of_all():
    network = gpunet.Network([3, 8, 4], device="cpu", dtype="float64")
    X, _ = random_problem(10_001, 3, 4)
    np.testing.assert_allclose(
        network.logits(X), np.vstack([network.logits(X[:17]), network.logits(X[17:])]), rtol=1e-12, atol=1e-14
    )


def test_a_prediction_is_not_overwritten_by_the_next():
    network = gpunet.Network([3, 8, 4], device="cpu")
    X, _ = random_problem(5, 3, 4)
    first = network.logits(X)
    kept = first.copy()
    network.logits(2 * X)
    np.testing.assert_array_equal(first, kept)


def test_inputs_are_not_changed():
    network = gpunet.Network([3, 8, 4], device="cpu", dtype="float64")
    X, y = random_problem(50, 3, 4)
    before = X.copy(), y.copy()
    network.loss_and_gradients(X, y, input_gradient=True)
    gpunet.fit(network, X, y, epochs=1, sample_weight=np.ones(50), class_weight="balanced")
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])


def test_looking_at_gradients_changes_nothing():
    network = gpunet.Network([3, 8, 4], device="cpu", dropout=0.5)
    X, y = random_problem(50, 3, 4)
    before = network.get_parameters() | network.get_state()
    first = network.loss_and_gradients(X, y, l2=0.1)
    second = network.loss_and_gradients(X, y, l2=0.1)
    assert first[0] == second[0]
    for name, value in (network.get_parameters() | network.get_state()).items():
        np.testing.assert_array_equal(value, before[name])
    assert network.steps == 0


def trained(**arguments):
    network = gpunet.Network(
        [4, 9, 7, 3],
        activation=["leaky_relu(0.2)", "elu(0.5)"],
        batch_norm=[True, False],
        dropout=[0.1, 0.0],
        device="cpu",
        **arguments,
    )
    X, y = random_problem(60, 4, 3)
    gpunet.fit(network, X, y, epochs=2, batch_size=16)
    network.metadata = {"classes": ["a", "b", "c"], "scale": [1.5, 2.0]}
    return network, X, y


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saving_and_loading(tmp_path, suffix, dtype):
    network, X, y = trained(dtype=dtype)
    path = network.save(tmp_path / "new folder" / f"model{suffix}")
    loaded = gpunet.load(path, device="cpu")
    np.testing.assert_array_equal(loaded.logits(X), network.logits(X))
    assert loaded.metadata == network.metadata
    assert loaded.steps == network.steps
    assert loaded.configuration == network.configuration
    results = []
    for model in (network, loaded):  # it also trains on as the original would
        gpunet.fit(model, X, y, epochs=1, batch_size=16)
        results.append(model.flat_parameters)
    np.testing.assert_array_equal(*results)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def trained_autoencoder():
    network = gpunet.Network(
        [4, 9, 4], activation="tanh", output_activation="leaky_relu(0.2)", loss="squared_error", device="cpu"
    )
    X, _ = random_problem(60, 4, 3)
    gpunet.fit(network, X, X, epochs=2, batch_size=16)
    return network, X


def test_predictions_are_the_activated_outputs():
    network, X = trained_autoencoder()
    last = gpunet.Network([4, 9, 4], activation="tanh", loss="squared_error", device="cpu")
    last.set_parameters(network.get_parameters() | network.get_state())
    s = last.predict(X)
    assert (s < 0).any()
    np.testing.assert_array_equal(network.predict(X), np.where(s > 0, s, np.float32(0.2) * s))
    np.testing.assert_array_equal(network.logits(X), network.predict(X))
    assert "output_activation='leaky_relu(0.2)'" in repr(network)
    loss = gpunet.evaluate(network, X, X).loss
    assert loss == pytest.approx(0.5 * ((network.predict(X) - X) ** 2).sum() / 60, rel=1e-5)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_an_output_activation_is_saved_and_copied(tmp_path, suffix):
    network, X = trained_autoencoder()
    loaded = gpunet.load(network.save(tmp_path / f"model{suffix}"), device="cpu")
    for twin in (loaded, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert twin.configuration == network.configuration
        np.testing.assert_array_equal(twin.predict(X), network.predict(X))


def test_a_file_from_before_output_activations(tmp_path):
    from gpunet.serialization import read_tensors, write_tensors

    network, X, _ = trained()
    path = network.save(tmp_path / "model.npz")
    tensors, header = read_tensors(path)
    assert header["version"] == 1
    del header["network"]["output_activation"]
    write_tensors(path, tensors, header)
    loaded = gpunet.load(path, device="cpu")
    assert loaded.configuration == network.configuration
    np.testing.assert_array_equal(loaded.logits(X), network.logits(X))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_are_whole_and_independent(duplicate):
    network, X, y = trained()
    twin = duplicate(network)
    np.testing.assert_array_equal(twin.logits(X), network.logits(X))
    kept = network.flat_parameters.copy()
    gpunet.fit(twin, X, y, epochs=1)
    np.testing.assert_array_equal(network.flat_parameters, kept)
    assert np.shares_memory(twin.parameters["W1"], twin.flat_parameters)
    assert not np.array_equal(twin.flat_parameters, kept)


def test_a_custom_initializer_survives_saving(tmp_path):
    network = gpunet.Network([4, 3], initializer=lambda shape, generator: np.ones(shape), device="cpu")
    loaded = gpunet.load(network.save(tmp_path / "model.npz"), device="cpu")
    np.testing.assert_array_equal(loaded.parameters["W1"], 1)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("none.npz", None, gpunet.MissingFileError, "there is no file"),
        ("none.safetensors", None, gpunet.MissingFileError, "there is no file"),
        ("model.pkl", b"", gpunet.InvalidValueError, "Expected .safetensors or .npz"),
        ("empty.npz", b"", gpunet.FileFormatError, "cannot be read as npz"),
        ("text.npz", b"hello", gpunet.FileFormatError, "cannot be read as npz"),
        ("text.safetensors", b"hello, this is no model at all", gpunet.FileFormatError, "cannot be read"),
    ],
)
def test_unreadable_files(tmp_path, name, content, error, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        gpunet.load(path)
    assert "\n" not in str(caught.value)


def test_the_device_of_a_file_is_the_callers_affair(tmp_path):
    path = gpunet.Network([2, 3], device="cpu").save(tmp_path / "model.npz")
    with pytest.raises(gpunet.InvalidValueError, match=r"^device: 'gpu' is not known.*: auto, cpu, .*cuda"):
        gpunet.load(path, device="gpu")
    with pytest.raises(gpunet.InvalidTypeError, match=r"^device: got int"):
        gpunet.load(path, device=0)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_damaged_and_foreign_files(tmp_path, suffix):
    network, _, _ = trained()
    path = network.save(tmp_path / f"model{suffix}")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-10]):
        path.write_bytes(damaged)
        with pytest.raises(gpunet.FileFormatError):
            gpunet.load(path)
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(gpunet.FileFormatError, match="not written by gpunet"):
        gpunet.load(tmp_path / "other.npz")
    np.save(tmp_path / "array.npy", np.ones(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(gpunet.FileFormatError, match="not a zip archive"):
        gpunet.load(tmp_path / "array.npz")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    network, _, _ = trained()
    path = network.save(tmp_path / "model.npz")
    before = path.read_bytes()
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        network.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_lectures_big_network_in_one_line():
    network = gpunet.Network([500] * 11, activation="tanh", batch_norm=False, device="cpu")
    assert network.parameter_count == 10 * (500 * 500 + 500)
    assert len([name for name in network.parameters if name.startswith("W")]) == 10


def test_reset_draws_the_same_weights_again():
    network, X, _ = trained()
    fresh = copy.deepcopy(network)
    fresh.reset_parameters()
    other = gpunet.Network(**network.configuration, device="cpu")
    np.testing.assert_array_equal(fresh.flat_parameters, other.flat_parameters)
    np.testing.assert_array_equal(fresh.logits(X), other.logits(X))
    assert fresh.steps == 0


def test_randomised_parameters_change_every_gradient():
    """Every parameter matters: a gradient that is zero throughout would hide a missing connection."""
    network = gpunet.Network([4, 9, 7, 3], activation="tanh", dtype="float64", device="cpu")
    randomise(network)
    _, gradients = network.loss_and_gradients(*random_problem(30, 4, 3))
    for name, gradient in gradients.items():
        assert (gradient != 0).all(), name


def test_setting_parameters_from_views_of_each_other():
    network = gpunet.Network([4, 4, 4], batch_norm=False, device="cpu")
    first, second = (network.parameters[name].copy() for name in ("W1", "W2"))
    network.set_parameters({"W1": network.parameters["W2"], "W2": network.parameters["W1"]})
    np.testing.assert_array_equal(network.parameters["W1"], second)
    np.testing.assert_array_equal(network.parameters["W2"], first)


def test_copies_keep_an_activation_of_the_users_own():
    softsign = gpunet.Activation(
        "softsign", forward=lambda s: s / (1 + np.abs(s)), derivative=lambda y: (1 - np.abs(y)) ** 2
    )
    network = gpunet.Network(
        [4, 9, 2],
        activation=softsign,
        output_activation=softsign,
        loss="squared_error",
        dtype="float64",
        device="cpu",
    )
    X, _ = random_problem(30, 4, 3)
    np.testing.assert_array_equal(copy.deepcopy(network).predict(X), network.predict(X))
    assert 0 < np.abs(network.predict(X)).max() < 1


def test_copies_keep_the_initializer_and_may_hold_nan():
    network = gpunet.Network([4, 3], initializer=lambda shape, generator: np.full(shape, 2.0), device="cpu")
    network.parameters["W1"][0, 0] = np.nan
    network.metadata = {"nested": {"list": [1]}}
    twin = copy.deepcopy(network)
    assert np.isnan(twin.parameters["W1"][0, 0])
    twin.metadata["nested"]["list"].append(2)
    assert network.metadata == {"nested": {"list": [1]}}
    twin.reset_parameters()
    np.testing.assert_array_equal(twin.parameters["W1"], 2)


def test_looking_at_gradients_restores_the_running_averages_also_after_an_error(monkeypatch):
    network = gpunet.Network([4, 9, 3], device="cpu")
    before = network.get_state()
    monkeypatch.setattr(network, "differentiate", lambda *_: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        network.loss_and_gradients(*random_problem(10, 4, 3))
    for name, value in network.get_state().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_save_that_fails_at_the_last_moment_leaves_the_old_file(tmp_path, monkeypatch):
    from pathlib import Path

    network, _, _ = trained()
    path = network.save(tmp_path / "model.npz")
    before = path.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("device is gone")))
    network.parameters["W1"][...] = 1
    with pytest.raises(OSError, match="device is gone"):
        network.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("header", [{"steps": "x"}, {"steps": -1}, {"metadata": "text"}, {"network": {"seed": 1}}])
def test_a_model_file_with_an_odd_header(tmp_path, header):
    from gpunet.serialization import read_tensors, write_tensors

    network, _, _ = trained()
    path = network.save(tmp_path / "model.npz")
    tensors, good = read_tensors(path)
    write_tensors(path, tensors, good | header)
    with pytest.raises(gpunet.FileFormatError):
        gpunet.load(path)


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        (None, gpunet.InvalidTypeError, "metadata: got NoneType. Expected a dictionary, {} for none"),
        ([1], gpunet.InvalidTypeError, "metadata: got list"),
        ({"a": {1, 2}}, gpunet.InvalidValueError, "metadata: cannot be written as JSON"),
        ({"a": float("nan")}, gpunet.InvalidValueError, "metadata: cannot be written as JSON"),
        ({1: "a", "1": "b"}, gpunet.InvalidValueError, "two keys of a dictionary are both .1. as text"),
        ({"a": np.zeros(2)}, gpunet.InvalidValueError, "metadata: cannot be written as JSON"),
    ],
)
def test_metadata_that_no_file_can_hold(tmp_path, metadata, error, message):
    network, X, y = trained()
    path = network.save(tmp_path / "model.npz")
    before = path.read_bytes()
    network.metadata = metadata
    with pytest.raises(error, match=message):
        network.save(path)
    assert path.read_bytes() == before
    steps = network.steps
    with pytest.raises(error, match=message):
        gpunet.fit(network, X, y, checkpoint=tmp_path / "run.npz")
    assert network.steps == steps
