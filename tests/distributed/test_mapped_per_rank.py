"""Each rank reads its rows of files that are mapped into memory, converts no others, and evaluates a part of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet import fingerprint
from gpunet.backends import Backend
from gpunet.backends.cuda import CudaBackend
from gpunet.batches import batch_slices
from gpunet.distributed import Ranks
from gpunet.distributed.shards import Partition
from gpunet.random import Purpose, host_generator
from gpunet.serialization import read_tensors
from gpunet.training import distribution, evaluation
from gpunet.training.evaluation import DeviceData
from gpunet.training.step import TrainingSteps
from gpunet.validation import check_distributions, check_features, check_targets
from tests.emulation.device import EmulatedDevice
from tests.helpers.threaded_ranks import run_ranks

ROWS, COLUMNS, SHARDS, BATCH, SEED = 3001, 7, 12, 640, 4
PIECE = 100  # rows of a chunk that is evaluated, and of a block that is digested
X = np.random.default_rng(3).standard_normal((ROWS, COLUMNS))


def labels(rows: int) -> np.ndarray:
    return np.arange(rows) % 3


def emulated() -> Backend:
    return CudaBackend(EmulatedDevice(multiprocessor_count=3))


def train(ranks: Ranks | None, features: Any, held_out: Any, device: Any = "cpu:numpy", **arguments: Any) -> Any:
    network = gpunet.Network([features.shape[1], 4, 3], device=device, seed=SEED)
    history = gpunet.fit(
        network,
        features,
        labels(len(features)),
        epochs=1,
        validation=(held_out, labels(len(held_out))),
        distributed=ranks,
        **{"batch_size": BATCH} | arguments,
    )
    return network.backend.to_numpy(network.flat_parameters).tobytes(), history.records[-1].validation_loss


def own_rows(rank: int, size: int, shuffle: bool) -> np.ndarray:
    """Return which rows a rank may read in an epoch: those of its batches, and of its part of check and digests."""
    order = np.arange(ROWS)
    if shuffle:
        host_generator(SEED, Purpose.SHUFFLE, 0).shuffle(order)
    own = own_pieces(rank, size)
    for rows in batch_slices(ROWS, BATCH, 2):
        own[order[rows][Partition(SHARDS, rank, size).rows(rows.stop - rows.start)]] = True
    return own


def own_pieces(rank: int, size: int) -> np.ndarray:
    """Return a rank's part of the rows, which it checks, and of the pieces, which are about the same."""
    pieces = -(-ROWS // PIECE)
    own = np.zeros(ROWS, bool)
    own[rank * ROWS // size : (rank + 1) * ROWS // size] = True
    own[rank * pieces // size * PIECE : (rank + 1) * pieces // size * PIECE] = True
    return own


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("make", "sizes"), [(gpunet.backends.NumpyBackend, (2, 3, 4)), (emulated, (2,))], ids=["NumPy", "CUDA"]
)
def test_a_rank_reads_its_rows(
    tmp_path: Path,
    make: Callable[[], Backend],
    sizes: tuple[int, ...],
    dtype: str,
    shuffle: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has files of its own, in which all other rows are no numbers: the bits are those of whole files."""
    monkeypatch.setattr(evaluation, "_ROWS", PIECE)
    monkeypatch.setattr(fingerprint, "_BYTES_AT_A_TIME", PIECE * COLUMNS * 4)
    monkeypatch.setattr(distribution, "_sample", lambda data, name: "the rows that ranks compare")
    monkeypatch.setattr(CudaBackend, "upload", None)  # reads all rows

    def run(ranks: Ranks, *data: Any, **arguments: Any) -> Any:
        path = tmp_path / f"run-{ranks.size}.npz"
        found = train(ranks, *data, shuffle=shuffle, device=make(), checkpoint=path, **arguments)
        return *found, read_tensors(path)[1]["digests"]

    whole = X.astype(dtype)
    (expected,) = run_ranks(1, SHARDS, lambda ranks: run(ranks, whole, whole, data_on="host"))
    for size in sizes:

        def run_mapped(ranks: Ranks, size: int = size) -> Any:
            mapped = []
            for name, own in (("X", own_rows(ranks.rank, size, shuffle)), ("held_out", own_pieces(ranks.rank, size))):
                assert own.mean() <= min(0.8, 2 / size)
                path = tmp_path / f"{name}-{ranks.rank}-{size}.npy"
                np.save(path, np.where(own[:, None], X, np.nan).astype(dtype))
                mapped.append(np.load(path, mmap_mode="r"))
            return run(ranks, *mapped)

        assert run_ranks(size, SHARDS, run_mapped) == [expected] * size


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
@pytest.mark.parametrize("is_mapped", [False, True])
@pytest.mark.parametrize("make", [gpunet.backends.NumpyBackend, emulated], ids=["NumPy", "CUDA"])
def test_memory_falls_and_bits_stay(
    tmp_path: Path, make: Callable[[], Backend], dtype: str, is_mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = (100 * X).astype(dtype)
    if is_mapped:
        np.save(tmp_path / "X.npy", values)
        values = np.load(tmp_path / "X.npy", mmap_mode="r")
    held: dict[int, int] = {}
    allocate = TrainingSteps._allocate

    def allocating(steps: TrainingSteps, rows: int) -> None:
        allocate(steps, rows)
        data = steps.data
        own = 0 if data.fed or np.shares_memory(data.features, values) else data.features.nbytes
        held[size] = max(held.get(size, 0), own + steps._features.nbytes + steps._order.nbytes)

    monkeypatch.setattr(TrainingSteps, "_allocate", allocating)
    found = []
    for size in (1, 2, 4):
        found += run_ranks(size, SHARDS, lambda ranks: train(ranks, values, values[:500], make()))
    assert len(set(found)) == 1
    assert held[2] <= 0.6 * held[1]
    assert held[4] <= 0.6 * held[2]


@pytest.mark.parametrize(("rows", "parts"), [(1, 3), (7, 3), (100, 8), (3, 1)])
def test_each_row_is_looked_at_by_one(rows: int, parts: int) -> None:
    probabilities = np.full((rows, 2), 0.5, np.float32)
    wrong = probabilities.copy()
    for row in range(rows):
        for value in (np.nan, 1.5):
            wrong[row, 1] = value
            checks: list[Any] = [
                lambda part: check_distributions("y", wrong, rows, 2, np.float32, whole=False, part=part),
                lambda part: check_targets("y", wrong, rows, 2, np.float32, probabilities=True, whole=False, part=part),
            ]
            if np.isnan(value):
                checks.append(lambda part: check_features("X", wrong, 2, np.float32, whole=False, part=part))
            for check in checks:
                errors = []
                for number in range(parts):
                    try:
                        check((number, parts))
                    except gpunet.GpunetError as error:
                        errors.append(str(error))
                assert len(errors) == 1
                assert f"row {row}" in errors[0]
        wrong[row] = 0.5


@pytest.mark.parametrize("place", ["X", "validation X"])
@pytest.mark.parametrize("row", [0, 1700, 2999])
def test_what_one_rank_finds_stops_all(place: str, row: int) -> None:
    wrong = X.copy()
    wrong[row, 3] = np.inf
    features, held_out = (wrong, X) if place == "X" else (X, wrong)
    told: list[str] = []

    def run(ranks: Ranks) -> None:
        with pytest.raises(gpunet.GpunetError) as caught:
            train(ranks, features, held_out)
        told.append(str(caught.value))

    run_ranks(4, SHARDS, run)
    assert len(told) == 4
    assert all(f"{place}: inf in row {row}, column 3" in text for text in told)


def test_of_one_rank_a_file_is_looked_at_whole() -> None:
    wrong = np.zeros((9, 2), np.float32)
    wrong[8] = np.nan
    network = gpunet.Network([2, 2], device=gpunet.backends.NumpyBackend())
    with pytest.raises(gpunet.NonFiniteError):
        DeviceData(network, wrong, labels(9) % 2)
