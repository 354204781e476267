"""A restricted Boltzmann machine on CUDA draws the bits, and learns the weights, that it does on the CPU (L13)."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.backends.cuda import CudaBackend
from gpunet.classic import Autoencoder, PretrainedClassifier, RestrictedBoltzmannMachine


@pytest.mark.parametrize(
    "arguments",
    [
        {"gibbs_steps": 2},
        {"persistent": True, "momentum": 0.5},
        {"sample_visible": False, "l2": 1e-3},
        {"hidden_units": "gaussian", "learning_rate": 0.01},
    ],
    ids=["CD-2", "persistent", "means", "gaussian"],
)
def test_it_draws_the_same_bits_and_learns_the_same(device, arguments):
    X = np.random.default_rng(0).random((50, 13))
    arguments = {"n_components": 7, "epochs": 3, "batch_size": 16, "dtype": "float64", "seed": 2, **arguments}
    on_device = RestrictedBoltzmannMachine(**arguments, device=CudaBackend(device)).fit(X)
    on_host = RestrictedBoltzmannMachine(**arguments, device="cpu").fit(X)
    close = {"rtol": 0, "atol": 1e-12}  # a bit that differs would move the weights by a thousandth
    np.testing.assert_allclose(on_device.components_, on_host.components_, **close)
    np.testing.assert_allclose(on_device.intercept_hidden_, on_host.intercept_hidden_, **close)
    np.testing.assert_allclose(on_device.intercept_visible_, on_host.intercept_visible_, **close)
    np.testing.assert_allclose(on_device.reconstruction_errors_, on_host.reconstruction_errors_, **close)
    np.testing.assert_allclose(on_device.transform(X), on_host.transform(X), **close)
    np.testing.assert_allclose(on_device.free_energy(X), on_host.free_energy(X), **close)
    np.testing.assert_allclose(on_device.pseudo_log_likelihood(X), on_host.pseudo_log_likelihood(X), **close)
    np.testing.assert_array_equal(on_device.gibbs(X, 3), on_host.gibbs(X, 3))


def test_pre_training_and_fine_tuning_give_the_same_auto_encoder(device):
    X = np.random.default_rng(1).random((40, 9))
    arguments = {
        "hidden_layer_sizes": (6, 2),
        "pretraining_epochs": 2,
        "epochs": 2,
        "batch_size": 16,
        "dtype": "float64",
    }
    on_device = Autoencoder(**arguments, device=CudaBackend(device)).fit(X)
    on_host = Autoencoder(**arguments, device="cpu").fit(X)
    np.testing.assert_allclose(on_device.transform(X), on_host.transform(X), rtol=0, atol=1e-12)
    np.testing.assert_allclose(on_device.reconstruct(X), on_host.reconstruct(X), rtol=0, atol=1e-12)


@pytest.mark.parametrize("hidden_units", ["bernoulli", "gaussian"])
def test_float32_goes_on_learning_from_call_to_call(device, hidden_units):
    X = np.random.default_rng(2).random((32, 13))
    arguments = {
        "n_components": 7,
        "learning_rate": 0.01,
        "batch_size": 16,
        "momentum": 0.5,
        "hidden_units": hidden_units,
    }
    on_device = RestrictedBoltzmannMachine(**arguments, device=CudaBackend(device))
    on_host = RestrictedBoltzmannMachine(**arguments, device="cpu")
    for _ in range(3):
        on_device.partial_fit(X)
        on_host.partial_fit(X)
        # Between two calls, what was learnt is asked for, on the same machine.
        np.testing.assert_allclose(on_device.transform(X), on_host.transform(X), rtol=0, atol=1e-5)
        np.testing.assert_array_equal(on_device.gibbs(X[:5], 2), on_host.gibbs(X[:5], 2))
    np.testing.assert_allclose(on_device.components_, on_host.components_, rtol=0, atol=1e-6)


def test_a_pre_trained_classifier_predicts_the_same(device):
    generator = np.random.default_rng(3)
    X, y = generator.random((40, 9)), generator.choice(["cat", "dog"], 40)
    arguments = {"hidden_layer_sizes": (6, 4), "pretraining_epochs": 2, "epochs": 2, "batch_size": 16}
    on_device = PretrainedClassifier(**arguments, dtype="float64", device=CudaBackend(device)).fit(X, y)
    on_host = PretrainedClassifier(**arguments, dtype="float64", device="cpu").fit(X, y)
    np.testing.assert_allclose(on_device.predict_proba(X), on_host.predict_proba(X), rtol=0, atol=1e-12)
    assert set(on_device.predict(X)) <= {"cat", "dog"}
