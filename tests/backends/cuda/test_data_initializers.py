"""The data-dependent initialisers through the CUDA backend give the weights that they give on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend
from gpunet.data_initializers import data_dependent, lsuv


@pytest.mark.parametrize("initialize", [lsuv, data_dependent])
@pytest.mark.parametrize("batch_norm", [False, [True, False]], ids=["plain", "batch_norm"])
def test_weights_agree(device, initialize, batch_norm):
    X = np.random.default_rng(0).standard_normal((70, 9)) * 3 + 1
    networks = [
        gpunet.Network([9, 17, 12, 4], batch_norm=batch_norm, dropout=0.1, initializer="random_walk", device=place)
        for place in (CudaBackend(device), "cpu")
    ]
    found = [initialize(network, X) for network in networks]
    np.testing.assert_allclose(*found, rtol=1e-4)
    ours, expected = (network.get_parameters() | network.get_state() for network in networks)
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, atol=1e-4 * max(1, np.abs(value).max()), err_msg=name)
