"""What tests start under mpiexec: exchanges, and training runs, whose results rank 0 writes as JSON."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from typing import Any

import numpy as np

import gpunet
from gpunet.backends import NumpyBackend
from gpunet.distributed import Ranks, mpi
from gpunet.distributed.message_passing import StagedExchange


class Elsewhere(NumpyBackend):
    """A backend whose arrays count as on a device."""

    def to_numpy(self, array: Any) -> Any:
        return array.copy()


def exchanges(ranks: Ranks) -> dict[str, bool]:
    """Compare each operation with NumPy, for odd and for large sizes, and several at once."""
    communicator: Any = ranks.communicator
    ways = {
        "host": communicator.exchange(NumpyBackend()),
        "staged": StagedExchange(communicator._mpi, communicator._world, Elsewhere()),
    }
    results = {}
    for (way, exchange), length, dtype in itertools.product(
        ways.items(), (1, 7, 300_001), ("float32", "float64", "uint16")
    ):
        everything = np.arange(ranks.size * ranks.size * length).reshape(ranks.size, ranks.size, length) % 251
        parts = everything[ranks.rank].astype(dtype)
        gathered, received = np.empty((ranks.size, length), dtype), np.empty((ranks.size, length), dtype)
        summed = parts[0].copy()
        waits = [exchange.all_gather(parts[0], gathered), exchange.all_to_all(parts, received)]
        if dtype != "uint16":
            waits.append(exchange.all_reduce(summed))
        for wait in waits:
            wait()
        right = np.array_equal(gathered, everything[:, 0]) and np.array_equal(received, everything[:, ranks.rank])
        if dtype != "uint16":
            right = right and np.array_equal(summed, everything[:, 0].sum(axis=0))
        results[f"{way} {length} {dtype}"] = all(ranks.share(bool(right)))
    backend = NumpyBackend()
    results["one for each backend"] = communicator.exchange(backend) is communicator.exchange(backend)
    return results


def train(ranks: Ranks, device: str, precision: str, **network: Any) -> str:
    """Return a digest of the weights, equal on all ranks."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((417, 20))
    y = (X[:, 0] > 0).astype(int) + 2 * (X[:, 2] > 0)
    made = gpunet.Network([20, 33, 17, 4], device=device, dtype=precision, dropout=0.2, seed=3, **network)
    gpunet.fit(
        made,
        X[:350],
        y[:350],
        epochs=2,
        batch_size=100,
        optimizer=gpunet.Adam(1e-3),
        validation=(X[350:], y[350:]),
        distributed=ranks,
    )
    digest = hashlib.sha256(made.flat_parameters.tobytes() + made.flat_state.tobytes()).hexdigest()
    assert set(ranks.share(digest)) == {digest}
    return digest


def main() -> None:
    """Run what the arguments name, and print it on rank 0."""
    ranks = mpi(shards=12)
    if sys.argv[1] == "exchanges":
        found: Any = exchanges(ranks)
    else:
        found = {
            f"{device} {precision} {network}": train(ranks, device, precision, **network)
            for device in ("cpu:numpy", "cpu:compiled")
            for precision in ("float32", "float64")
            for network in ({}, {"batch_norm": False})
        }
    if ranks.is_first:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
