"""A restricted Boltzmann machine on CUDA draws the bits, and learns the weights, that it does on the CPU (L13)."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.backends.cuda import CudaBackend
from gpunet.classic import Autoencoder, RestrictedBoltzmannMachine


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
