"""The auto-encoder (L13): pre-trained, unrolled, fine-tuned; codes and what is made of them."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet.classic import Autoencoder, pretrain_stack, unroll
from gpunet.data import load_for_training
from gpunet.errors import InvalidValueError, ShapeError


def curves(rows=300, seed=0):
    """Return 16 pixels that depend, not linearly, on two numbers."""
    generator = np.random.default_rng(seed)
    position, width = generator.uniform(0, 15, (rows, 1)), generator.uniform(1, 3, (rows, 1))
    return np.exp(-(((np.arange(16) - position) / width) ** 2))


def autoencoder(**arguments):
    settings = {"hidden_layer_sizes": (24, 2), "pretraining_epochs": 20, "epochs": 60, "batch_size": 20}
    return Autoencoder(**{**settings, "learning_rate": 0.03, "device": "cpu", **arguments})


def test_it_is_the_stack_unrolled_and_gpunet_fit():
    X = curves()
    model = autoencoder(epochs=3, seed=2, l2=1e-5).fit(X)
    machines = pretrain_stack(X, (24, 2), linear_code=True, epochs=20, batch_size=20, seed=2, device="cpu")
    network = unroll(machines, seed=2, device="cpu")
    optimizer = gpunet.SGD(0.03, momentum=0.9)
    gpunet.fit(network, X, X, epochs=3, batch_size=20, optimizer=optimizer, l2=1e-5)
    np.testing.assert_array_equal(model.reconstruct(X), network.predict_proba(X))


@pytest.mark.parametrize("linear_code", [False, True])
@pytest.mark.parametrize("sizes", [(3,), (24, 2), (24, 9, 2)])
def test_the_reconstruction_is_the_decoders_of_the_code(sizes, linear_code):
    X = curves(60)
    model = autoencoder(
        hidden_layer_sizes=sizes, linear_code=linear_code, pretraining_epochs=1, epochs=1, dtype="float64"
    ).fit(X)
    codes = model.transform(X)
    assert codes.shape == (60, sizes[-1])
    assert (codes.min() < 0) == linear_code
    np.testing.assert_allclose(model.inverse_transform(codes), model.reconstruct(X), rtol=1e-12)
    expected = np.square(model.reconstruct(X) - X).mean(axis=1)
    np.testing.assert_allclose(model.reconstruction_error(X), expected, rtol=1e-12)
    assert np.isclose(model.score(X), -expected.mean(), rtol=1e-12)


def test_two_numbers_say_more_than_the_two_principal_components():
    X, X_new = curves(), curves(200, seed=1)
    mean = X.mean(axis=0)
    components = np.linalg.svd(X - mean, full_matrices=False)[2][:2]
    of_pca = np.square((X_new - mean) - (X_new - mean) @ components.T @ components).mean()
    assert autoencoder().fit(X).reconstruction_error(X_new).mean() < 0.5 * of_pca


def test_the_defaults_compress_digits():
    digits = load_for_training("digits")
    X = np.random.default_rng(0).permutation(digits.features / digits.raw.largest)
    X, X_test = X[:1400], X[1400:]
    of_the_mean = np.square(X_test - X.mean(axis=0)).mean()
    assert Autoencoder(device="cpu").fit(X).reconstruction_error(X_test).mean() < 0.4 * of_the_mean


def test_without_pre_training_it_begins_at_random():
    X = curves(40)
    model = autoencoder(pretraining_epochs=0, epochs=1, learning_rate=0.0, initializer="normal(0.3)").fit(X)
    assert model.machines_ == []
    assert abs(model.network_.get_parameters()["W1"].std() - 0.3) < 0.05
    np.testing.assert_array_equal(model.network_.get_parameters()["b4"], np.zeros(16))


def test_the_same_seed_gives_the_same_codes():
    X = curves(60)
    arguments = {"pretraining_epochs": 2, "epochs": 2}
    codes = [autoencoder(**arguments, seed=seed).fit_transform(X) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(codes[0], codes[1])
    assert not np.array_equal(codes[0], codes[2])


def test_bad_data_are_refused():
    X = curves(20)
    with pytest.raises(InvalidValueError, match=r"X: .* is out of range. Expected numbers from 0 to 1"):
        autoencoder(scale_inputs=False).fit(X + 0.5)
    model = autoencoder(pretraining_epochs=1, epochs=1).fit(X)
    with pytest.raises(ShapeError, match=r"X has 15 features, but Autoencoder is expecting 16"):
        model.transform(X[:, 1:])
    for method in (model.transform, model.reconstruct, model.reconstruction_error, model.score):
        with pytest.raises(InvalidValueError, match=r"X: .* is out of range. Expected numbers from 0 to 1"):
            method(255 * X)
    with pytest.raises(ShapeError, match=r"codes: got 3 columns. Expected 2"):
        model.inverse_transform(np.zeros((1, 3)))
