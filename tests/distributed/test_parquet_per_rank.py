"""Each rank reads its rows of Parquet files, and the batches do not depend on how many ranks there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.data import ParquetRows
from gpunet.distributed import Ranks
from gpunet.distributed.shards import ROW_MULTIPLE, Partition
from tests.helpers.mpiexec import needs_mpi, run_under_mpi
from tests.helpers.threaded_ranks import run_ranks

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

ROWS, SHARDS = 1043, 12
RANDOM = np.random.default_rng(8)
X = RANDOM.standard_normal((ROWS, 5)).astype(np.float32)
Y = RANDOM.integers(0, 3, ROWS)
WEIGHTS = RANDOM.uniform(0.5, 2, ROWS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files, of row groups of 31 and of 64 rows."""
    path = tmp_path_factory.mktemp("rows")
    for number, (rows, group) in enumerate([(slice(0, 400), 31), (slice(400, ROWS), 64)]):
        columns = {f"x{place}": X[rows, place] for place in range(X.shape[1])}
        table = pyarrow.table(columns | {"y": Y[rows], "text": Y[rows].astype("U"), "weight": WEIGHTS[rows]})
        parquet.write_table(table, path / f"{number}.parquet", row_group_size=group)
    return path


def rows_of(folder: Path, size: int = 100, window: int = 200, **arguments: Any) -> ParquetRows:
    columns = [f"x{place}" for place in range(X.shape[1])]
    return ParquetRows(folder, columns=columns, batch_size=size, window=window, **{"target": "y"} | arguments)


def of_rank(batches: Any, rank: int, size: int, shards: int = SHARDS) -> list[Any]:
    partition = Partition(shards, rank, size)
    return list(batches.in_shards(partition.starts, partition.own)(3))


@pytest.mark.parametrize("is_shuffled", [False, True])
@pytest.mark.parametrize(("batch", "window"), [(100, 200), (9, 9), (64, 10_000), (5000, 1), (521, 600)])
def test_batches_are_those_of_one_process(folder: Path, batch: int, window: int, is_shuffled: bool) -> None:
    rows = rows_of(folder, batch, window, sample_weight="weight")
    batches = rows.shuffled(4) if is_shuffled else rows
    whole = of_rank(batches, 0, 1)
    assert [count for count, _ in whole] == [len(labels) for _, labels, _ in rows]
    assert all(len(array) == count for count, arrays in whole for array in arrays)
    every = np.concatenate([np.column_stack([features, weights]) for _, (features, _, weights) in whole])
    expected = np.column_stack([X, WEIGHTS])
    np.testing.assert_array_equal(every[np.lexsort(every.T)], expected[np.lexsort(expected.T)])
    for size in (2, 3, 4, 12):
        for number, parts in enumerate(zip(*(of_rank(batches, rank, size) for rank in range(size)), strict=True)):
            assert {count for count, _ in parts} == {whole[number][0]}
            for place, array in enumerate(whole[number][1]):
                np.testing.assert_array_equal(np.concatenate([arrays[place] for _, arrays in parts]), array)
            for rank, (count, (features, *_)) in enumerate(parts):
                mine = Partition(SHARDS, rank, size).rows(count)
                assert len(features) == mine.stop - mine.start


def test_a_shard_reads_in_the_order_of_the_files(folder: Path) -> None:
    batches = of_rank(rows_of(folder), 0, 1, shards=2)
    starts = Partition(2, 0, 1).starts
    first = np.concatenate([features[: starts(count)[1]] for count, (features, _) in batches])
    second = np.concatenate([features[starts(count)[1] :] for count, (features, _) in batches])
    np.testing.assert_array_equal(np.concatenate([first, second]), X)


def test_one_shard_has_the_batches_of_an_epoch_without(folder: Path) -> None:
    rows = rows_of(folder)
    for plain, (_, dealt) in zip(rows.shuffled(2)(3), of_rank(rows.shuffled(2), 0, 1, 1), strict=True):
        np.testing.assert_array_equal(plain[0], dealt[0])
        np.testing.assert_array_equal(plain[1], dealt[1])


@pytest.mark.parametrize("size", [2, 3, 4])
def test_no_other_rows_are_decoded(folder: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files' row groups are small here, and a shard's first and last are alone not all its own."""
    opened: list[int] = []
    pieces = ParquetRows._pieces

    def counting(self: ParquetRows, parts: Any) -> Any:
        opened.extend(self._metadata[part.file].row_group(part.group).num_rows for part in parts)
        return pieces(self, parts)

    monkeypatch.setattr(ParquetRows, "_pieces", counting)
    rows = rows_of(folder, 128)
    for rank in range(size):
        for batches in (rows, rows.shuffled(1)):
            opened.clear()
            own = sum(len(labels) for _, (_, labels) in of_rank(batches, rank, size, shards=size))
            assert own <= sum(opened) <= own + 2 * 64
            assert own <= ROWS / size + ROW_MULTIPLE * len(rows)
        opened.clear()
        turn = sum(len(labels) for _, (_, labels) in rows.turn(rank, size))
        assert turn <= sum(opened) <= turn + 2 * 64


def test_turns_have_each_batch_once(folder: Path) -> None:
    rows = rows_of(folder, 9, 20)
    whole = list(rows)
    for size in (1, 2, 3, 7, 200):
        found = [pair for rank in range(size) for pair in rows.turn(rank, size)]
        assert [number for number, _ in found] == list(range(len(whole)))
        for (_, batch), expected in zip(found, whole, strict=True):
            np.testing.assert_array_equal(batch[0], expected[0])
            np.testing.assert_array_equal(batch[1], expected[1])


def test_what_is_held_falls_with_the_ranks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[int, int] = {}
    decoded = ParquetRows._decoded
    for size in (1, 2, 4):

        def measured(self: ParquetRows, *arguments: Any, size: int = size) -> Any:
            for arrays in decoded(self, *arguments):
                held[size] = max(held.get(size, 0), sum(array.nbytes for array in arrays))
                yield arrays

        monkeypatch.setattr(ParquetRows, "_decoded", measured)
        of_rank(rows_of(folder, 128, 512).shuffled(), 0, size)
    assert held[2] <= 0.55 * held[1]
    assert held[4] <= 0.55 * held[2]


# --- trained ----------------------------------------------------------------------------------------------------------


def train(ranks: Ranks | None, batches: Any, validation: Any, **arguments: Any) -> Any:
    network = gpunet.Network([5, 9, 3], device=gpunet.backends.NumpyBackend(), dropout=0.2, seed=4)
    if validation._targets == ["text"]:
        network.metadata["class_labels"] = ["0", "1", "2"]
    history = gpunet.fit(
        network,
        batches=batches,
        validation_batches=validation,
        optimizer=gpunet.SGD(0.05, momentum=0.9),
        distributed=ranks,
        **{"epochs": 2} | arguments,
    )
    numbers = [(one.loss, one.validation_loss, one.validation_accuracy) for one in history]
    return network.flat_parameters.tobytes() + network.flat_state.tobytes(), numbers


@pytest.mark.parametrize("size", [100, 9, 521])
@pytest.mark.parametrize("target", ["y", "text"])
def test_a_run_gives_the_same_bits_on_any_number_of_ranks(folder: Path, size: int, target: str) -> None:
    """Also where batches, or the last one, have rows for some shards alone."""
    rows = rows_of(folder, size, target=target, sample_weight="weight")
    found = [
        one
        for ranks in (1, 2, 3, 4)
        for one in run_ranks(ranks, SHARDS, lambda ranks: train(ranks, rows.shuffled(1), rows))
    ]
    assert all(one == found[0] for one in found)


def test_one_shard_is_plain_training(folder: Path) -> None:
    rows = rows_of(folder, 100)
    (one,) = run_ranks(1, 1, lambda ranks: train(ranks, rows.shuffled(1), rows))
    plain = train(None, rows.shuffled(1), rows)
    np.testing.assert_allclose(one[1], plain[1], rtol=1e-4)


def test_a_run_goes_on_on_another_number_of_ranks(folder: Path, tmp_path: Path) -> None:
    rows = rows_of(folder, 100)
    given = {"checkpoint": tmp_path / "c.safetensors", "resume": True}
    whole = run_ranks(1, SHARDS, lambda ranks: train(ranks, rows.shuffled(1), rows, epochs=3))[0]
    for epochs, ranks in enumerate((4, 1, 3), start=1):
        found = run_ranks(ranks, SHARDS, lambda one, n=epochs: train(one, rows.shuffled(1), rows, epochs=n, **given))
    assert found[0] == whole


UNDER_MPI = """
import sys
from pathlib import Path
from gpunet.distributed import mpi
from tests.distributed.test_parquet_per_rank import SHARDS, rows_of, train
ranks, rows = mpi(SHARDS), rows_of(Path(sys.argv[1]), 100, sample_weight="weight")
weights, numbers = train(ranks, rows.shuffled(1), rows)
assert ranks.share((weights, numbers)) == [(weights, numbers)] * ranks.size
if ranks.is_first:
    print(weights.hex(), numbers)
"""


@needs_mpi
def test_real_ranks_have_the_bits_of_one(folder: Path) -> None:
    found = [run_under_mpi(size, "-c", UNDER_MPI, str(folder)) for size in (1, 2, 3, 4)]
    assert all(status == 0 for status, *_ in found), found
    (output,) = {output for _, output, _ in found}
    (one,) = run_ranks(1, SHARDS, lambda ranks: train(ranks, *both(rows_of(folder, 100, sample_weight="weight"))))
    assert output.split()[0] == one[0].hex()


def both(rows: ParquetRows) -> tuple[Any, ParquetRows]:
    """Return batches to train on, and to validate on."""
    return rows.shuffled(1), rows
