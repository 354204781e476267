"""Batch norm in parts on the emulated device: as specified, and the same bits wherever the rows of a shard lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpunet.activations import ReLU, SiLU
from gpunet.backends.cuda import CudaBackend
from gpunet.verification import batch_norm_shards
from gpunet.verification.batch_norm import EPSILON
from gpunet.verification.operation import Operation, Placed
from gpunet.verification.storage import FLOAT16, FLOAT32, STORAGES, Storage
from tests.emulation import EmulatedDevice
from tests.helpers.cuda import on_device, poisoned
from tests.helpers.verification import confirm

MATRICES = ("s", "dy", "y", "out", "ds")


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_as_specified(device: Any, storage: Storage) -> None:
    confirm(device, batch_norm_shards, storage.name)


MAKERS: tuple[Callable[..., Operation], ...] = (
    lambda storage, shape: batch_norm_shards.statistics(storage, shape),
    lambda storage, shape: batch_norm_shards.apply(storage, shape, SiLU()),
    lambda storage, shape: batch_norm_shards.sums(storage, shape, SiLU()),
    lambda storage, shape: batch_norm_shards.input_gradient(storage, shape, SiLU()),
)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("storage", [FLOAT32, FLOAT16], ids=str)
@pytest.mark.parametrize("columns", [3, 10, 36, 40])
def test_bits_do_not_depend_on_where_the_rows_begin(
    make: Callable[..., Operation], storage: Storage, columns: int
) -> None:
    """At 8, 16 and 40 rows of a buffer; on other devices than this one, as long as they are alike."""
    operation = make(storage, (300, columns))
    results = []
    for rows in (0, 8, 16, 40):
        backend = CudaBackend(EmulatedDevice(multiprocessor_count=4, seed=rows))
        offsets = dict.fromkeys(MATRICES, rows * columns)
        results.append(Placed(backend, operation, offsets).results())
    for found in results[1:]:
        for name, values in found.items():
            assert values.tobytes() == results[0][name].tobytes(), name


@pytest.mark.parametrize("counts", [(64,), (40, 40, 20), (33, 1, 7, 0)])
def test_shards_together_are_the_whole_batch(counts: tuple[int, ...]) -> None:
    """What one call does with all rows, forward and backward, is what the parts give."""
    rows, columns = sum(counts), 20
    backend = CudaBackend(EmulatedDevice(multiprocessor_count=4))
    rng = np.random.default_rng(rows)
    s, dy = (rng.standard_normal((rows, columns)).astype(np.float32) for _ in range(2))
    gamma, beta = (on_device(backend, rng.uniform(0.5, 2, columns).astype(np.float32)) for _ in range(2))
    s_there, dy_there, activation = on_device(backend, s + 5), on_device(backend, dy), ReLU()

    def vectors(count: int = 1) -> list[Any]:
        return [poisoned(backend, (columns,), np.float32) for _ in range(count)]

    def running() -> list[Any]:
        return [on_device(backend, np.ones(columns, np.float32)) for _ in range(2)]

    whole_y, y, whole_ds, ds = (poisoned(backend, s.shape, np.float32) for _ in range(4))
    whole, found = [*vectors(2), *running()], [*vectors(2), *running()]
    backend.batch_norm_activation_forward(s_there, gamma, beta, activation, whole_y, *whole, 0.1, EPSILON)

    statistics = poisoned(backend, (len(counts), 2, columns), np.float32)
    ends = np.cumsum(counts)
    shards = [(k, slice(end - n, end)) for k, (n, end) in enumerate(zip(counts, ends, strict=True)) if n]
    for k, part in shards:
        backend.batch_norm_statistics(s_there[part], statistics[k])
    backend.batch_norm_merge(statistics, on_device(backend, np.array(counts, np.int32)), *found, 0.1, EPSILON)
    for part_found, part_whole in zip(found, whole, strict=True):
        np.testing.assert_allclose(backend.to_numpy(part_found), backend.to_numpy(part_whole), rtol=3e-6)
    mean, inverse_std = whole[:2]
    for _, part in shards:
        backend.batch_norm_activation_apply(s_there[part], gamma, beta, activation, y[part], mean, inverse_std)
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(whole_y))

    dgamma, dbeta = vectors(2)
    known = (gamma, beta, activation, mean, inverse_std)
    backend.batch_norm_activation_backward(dy_there, s_there, whole_y, *known, whole_ds, dgamma, dbeta)
    sums = [0, 0]
    for _, part in shards:
        of_shard = vectors(2)
        backend.batch_norm_activation_sums(dy_there[part], s_there[part], y[part], *known, *of_shard)
        sums = [total + backend.to_numpy(one) for total, one in zip(sums, of_shard, strict=True)]
    for total, expected in zip(sums, (dgamma, dbeta), strict=True):
        np.testing.assert_allclose(total, backend.to_numpy(expected), rtol=1e-5, atol=1e-5)
    for _, part in shards:
        matrices = dy_there[part], s_there[part], y[part]
        backend.batch_norm_activation_input_gradient(*matrices, *known, dgamma, dbeta, ds[part], rows=rows)
    np.testing.assert_allclose(backend.to_numpy(ds), backend.to_numpy(whole_ds), rtol=0, atol=3e-6)
