"""Sums over shards on the emulated device: as specified, and in the tree's order to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from gpunet.verification import shards
from tests.emulation import EmulatedDevice
from tests.helpers.cuda import on_device, poisoned
from tests.helpers.verification import confirm


@pytest.mark.parametrize("storage", ["float32", "float64", "float16", "bfloat16"])
def test_as_specified(device, storage):
    confirm(device, shards, storage)


# As deep as no tree makes the stack: then the top two are added, and the sum is right to rounding.
TOO_DEEP = (*range(40), *range(40))


@pytest.mark.parametrize("size", [1, 64, 67])
@pytest.mark.parametrize("levels", shards.LEVELS, ids=lambda levels: f"{len(levels)} vectors")
def test_the_order_of_additions_is_the_trees(levels: tuple[int, ...], size: int) -> None:
    parts = np.random.default_rng(size).standard_normal((len(levels), size)).astype(np.float32)
    numbers, expected = np.array(levels, np.int32), np.empty(size, np.float32)
    Backend().sum_shards(parts, numbers, expected)
    backend = CudaBackend(EmulatedDevice(multiprocessor_count=2))
    there, out = on_device(backend, parts), poisoned(backend, (size,), np.float32)
    backend.sum_shards(there, on_device(backend, numbers), out)
    np.testing.assert_array_equal(backend.to_numpy(out), expected)
    backend.sum_shards(there, on_device(backend, numbers), there[0])  # in place
    np.testing.assert_array_equal(backend.to_numpy(there[0]), expected)


def test_a_stack_beyond_all_trees() -> None:
    backend = CudaBackend(EmulatedDevice(multiprocessor_count=2))
    parts = np.random.default_rng(0).standard_normal((len(TOO_DEEP), 67))
    out = poisoned(backend, (67,), np.float64)
    backend.sum_shards(on_device(backend, parts), on_device(backend, np.array(TOO_DEEP, np.int32)), out)
    np.testing.assert_allclose(backend.to_numpy(out), parts.sum(axis=0), rtol=0, atol=1e-13)


def test_what_is_weighed_by_rows_alone_stays_as_it_is() -> None:
    """To the bit, infinities and NaN included."""
    backend = CudaBackend(EmulatedDevice(multiprocessor_count=2))
    gradients = np.random.default_rng(0).standard_normal(67).astype(np.float32)
    gradients[:3] = np.nan, np.inf, -0.0
    there, loss = on_device(backend, gradients), poisoned(backend, (2,), np.float32)
    backend.divide_sums(there, on_device(backend, np.array([3, 20], np.float32)), loss, rows=20)
    assert backend.to_numpy(there).tobytes() == gradients.tobytes()
    np.testing.assert_array_equal(backend.to_numpy(loss), np.array([3 / 20, 20], np.float32))
