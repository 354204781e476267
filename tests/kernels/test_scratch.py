"""Memory between the arrays: scratch buffers, counters, and rows that just fit the shared memory."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.activations import Identity, ReLU
from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.batch_norm import DeviceLimits, plan_backward
from gpunet.backends.cuda.softmax_cross_entropy import RESERVED_BYTES
from gpunet.verification import losses
from gpunet.verification.operation import compare
from gpunet.verification.storage import FLOAT16, FLOAT32, FLOAT64, Storage
from tests.emulation import EmulatedDevice
from tests.helpers.cuda import on_device, poisoned
from tests.helpers.verification import confirm_operations

REFERENCE = Backend()


class SmallDevice(EmulatedDevice):
    """A device without clusters whose blocks have so much shared memory."""

    def __init__(self, shared_memory: int, multiprocessors: int = 2) -> None:
        super().__init__(compute_capability=(8, 0), multiprocessor_count=multiprocessors)
        self.shared_memory_per_block = shared_memory


def batch_norm_backward(backend: CudaBackend, rows: int, columns: int, affine: bool) -> None:
    """Compare the gradients of one layer, with or without scale and shift, with the reference's."""
    rng = np.random.default_rng(rows)
    s, dy = (rng.standard_normal((rows, columns)).astype(np.float32) for _ in range(2))
    mean, inverse_std = s.mean(axis=0), 1 / s.std(axis=0)
    y = np.maximum((s - mean) * inverse_std, 0)
    ds = poisoned(backend, s.shape, s.dtype)
    sums = [poisoned(backend, (columns,), s.dtype) for _ in range(2)] if affine else [None, None]
    there = [on_device(backend, array) for array in (dy, s, y)]
    statistics = [on_device(backend, array) for array in (mean, inverse_std)]
    ones, zeros = np.ones(columns, np.float32), np.zeros(columns, np.float32)
    scale = [on_device(backend, array) for array in (ones, zeros)] if affine else [None, None]
    backend.batch_norm_activation_backward(*there, *scale, ReLU(), *statistics, ds, *sums)

    expected, dgamma, dbeta = np.empty(s.shape), np.empty(columns), np.empty(columns)
    exact = [array.astype(float) for array in (dy, s, y)]
    given = [array.astype(float) for array in (mean, inverse_std)]
    REFERENCE.batch_norm_activation_backward(*exact, None, None, ReLU(), *given, expected, dgamma, dbeta)
    np.testing.assert_allclose(backend.to_numpy(ds), expected, rtol=1e-5, atol=1e-5)
    for found, value in zip(sums, (dgamma, dbeta), strict=True):
        if found is not None:
            np.testing.assert_allclose(backend.to_numpy(found), value, rtol=1e-5, atol=1e-6 * rows)


def bias_gradient(backend: CudaBackend, rows: int, columns: int) -> None:
    dy = np.random.default_rng(rows).integers(-9, 9, (rows, columns)).astype(np.float32)
    gradient, dbias = on_device(backend, dy), poisoned(backend, (columns,), np.float32)
    backend.bias_activation_backward(gradient, gradient, Identity(), gradient, dbias)
    np.testing.assert_array_equal(backend.to_numpy(dbias), dy.sum(axis=0))


@pytest.mark.parametrize("affine", [True, False])
def test_sums_that_no_parameter_needs_have_memory_of_their_own(affine: bool) -> None:
    device = SmallDevice(4096)
    assert plan_backward(300, 33, 4, 1, DeviceLimits.of(device)).kernel == "batch_norm_backward_striped"
    batch_norm_backward(CudaBackend(device), 300, 33, affine)
    device.check_guards()


def test_counters_and_partial_sums_grow_with_the_matrix() -> None:
    """The first launch is small; the next has more tiles than the least number of counters, 64, has words for."""
    device = SmallDevice(4096, multiprocessors=16)
    backend = CudaBackend(device)
    for columns in (3, 2081, 5):
        bias_gradient(backend, 70, columns)
        device.check_guards()
    device = SmallDevice(4096)
    backend = CudaBackend(device)
    for columns in (3, 701, 5):
        batch_norm_backward(backend, 300, columns, True)
        device.check_guards()


def test_buffers_of_one_name_are_not_mixed_up_between_types() -> None:
    backend = CudaBackend(EmulatedDevice(multiprocessor_count=4))
    for dtype, storage in (("float32", FLOAT32), ("float64", FLOAT64), ("float32", FLOAT32)):
        softmax = losses.softmax_cross_entropy(storage, (130, 10), losses.GIVEN)
        assert all(found.error <= 1 for found in compare(backend, softmax))
        outputs, targets = (np.random.default_rng(1).standard_normal((300, 9)).astype(dtype) for _ in range(2))
        doutputs, loss = poisoned(backend, outputs.shape, dtype), poisoned(backend, (2,), dtype)
        backend.squared_error(on_device(backend, outputs), on_device(backend, targets), None, doutputs, loss)
        np.testing.assert_allclose(backend.to_numpy(loss)[0], ((outputs - targets) ** 2).sum() / 600, rtol=1e-5)


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("storage", [FLOAT32, FLOAT16], ids=str)
def test_a_row_of_softmax_as_long_as_the_shared_memory(more: int, storage: Storage) -> None:
    """With what the block needs besides, and without."""
    shared_memory = 2**14
    for size in (shared_memory - RESERVED_BYTES, shared_memory):
        softmax = losses.softmax_cross_entropy(storage, (3, size // 4 + more), losses.GIVEN)
        confirm_operations(SmallDevice(shared_memory), softmax)


@pytest.mark.parametrize("more", [-16, 0, 16])
def test_columns_of_batch_norm_as_long_as_the_shared_memory(more: int) -> None:
    unlimited = DeviceLimits.of(SmallDevice(EmulatedDevice.shared_memory_per_block))
    plan = plan_backward(513, 4, 4, 4, unlimited, "resident", 1)
    device = SmallDevice(plan.shared_bytes + more)
    if more >= 0:
        assert plan_backward(513, 4, 4, 4, DeviceLimits.of(device), "resident", 1) == plan
    batch_norm_backward(CudaBackend(device), 513, 4, True)
    device.check_guards()
