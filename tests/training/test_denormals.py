"""Weights and moments that shrink for ever: they become 0 before processors compute slowly with them."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet.backends.cpu.backend import CpuBackend
from gpunet.backends.cpu.machine_code import FLUSHES_DENORMALS
from tests.helpers.networks import learnable

ROWS, BATCH = 128, 8
STEPS = ROWS // BATCH


def train(device: str, dtype: str, optimizer: gpunet.Optimizer) -> gpunet.Network:
    """Train with a first input that is always zero, of which some weights and moments are denormal from the start."""
    X, y = learnable(ROWS)
    X[:, 0] = 0
    network = gpunet.Network([6, 5, 3], device=device, dtype=dtype)
    weights = network.parameters["W1"]
    weights[:, 0] = 3 * np.finfo(dtype).smallest_subnormal
    optimizer.attach(network.backend, network.flat_parameters)
    for moment in optimizer.moments.values():
        moment[: weights.size : 6] = 3 * np.finfo(dtype).smallest_subnormal
    gpunet.fit(network, X.astype(dtype), y, epochs=1, batch_size=BATCH, optimizer=optimizer, l2=0.0)
    return network


@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu:numpy", "float32"), ("cpu:numpy", "float64"), ("cpu:compiled", "float32")]
)
@pytest.mark.parametrize("make", [lambda: gpunet.SGD(0.1), lambda: gpunet.SGD(0.1, momentum=0.9), gpunet.Adam])
def test_nothing_is_denormal_after_sixteen_steps(device, dtype, make):
    assert STEPS == 16
    optimizer = make()
    network = train(device, dtype, optimizer)
    least = np.finfo(dtype).tiny
    for values in (network.flat_parameters, *optimizer.moments.values()):
        sizes = np.abs(values)
        assert not ((sizes > 0) & (sizes < least)).any()
        assert (sizes >= least).any()


@pytest.mark.skipif(not FLUSHES_DENORMALS, reason="only x86 computes slowly with denormal numbers")
def test_compiled_kernels_take_denormals_for_zero_and_their_callers_do_not():
    denormal, backend = np.full((3, 4), 1e-40, np.float32), CpuBackend()
    out = np.ones((3, 3), np.float32)
    backend.gemm(denormal, np.full((3, 4), 1e10, np.float32), out, transpose_b=True)
    assert not out.any()
    assert (denormal * np.float32(2) > 0).all()
