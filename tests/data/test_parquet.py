"""Parquet files in batches: every row once, in an order that the seed and the epoch decide, in bounded memory."""

from __future__ import annotations

import itertools
import re
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.batches import batch_slices
from gpunet.data import ParquetRows
from gpunet.data import parquet as module

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

RANDOM = np.random.default_rng(5)
ROWS = 101
X = RANDOM.standard_normal((ROWS, 4)).astype(np.float32)
Y = RANDOM.integers(0, 3, ROWS)
NAMES = ["a", "b", "c", "d"]


def write(path: Path, rows: slice = slice(0, ROWS), group: int = 7, **columns: Any) -> Path:
    """Write rows of X and Y, and further columns, in row groups of so many rows."""
    arrays = {name: X[rows, place] for place, name in enumerate(NAMES)} | {"y": Y[rows]} | columns
    parquet.write_table(pyarrow.table(arrays), path, row_group_size=group)
    return path


def joined(batches: Any) -> list[np.ndarray]:
    return [np.concatenate(part) for part in zip(*batches, strict=True)]


def where(features: np.ndarray) -> np.ndarray:
    """Return the rows of X that these are."""
    places = {row.tobytes(): place for place, row in enumerate(X)}
    return np.array([places[row.tobytes()] for row in features])


@pytest.mark.parametrize(
    ("size", "window", "group"), [(16, 32, 7), (16, 1, 200), (7, 50, 13), (50, 40, 3), (200, 1, 101)]
)
def test_batches_in_the_order_of_the_file(tmp_path: Path, size: int, window: int, group: int) -> None:
    """They are those that fit takes of arrays with shuffle=False, whatever the windows and the row groups."""
    rows = ParquetRows(write(tmp_path / "X.parquet", group=group), target="y", batch_size=size, window=window)
    expected = batch_slices(ROWS, size, 2)
    for _ in range(2):
        batches = list(rows)
        assert len(batches) == len(rows) == len(expected)
        for (features, labels), here in zip(batches, expected, strict=True):
            np.testing.assert_array_equal(features, X[here])
            np.testing.assert_array_equal(labels, Y[here])
            assert features.dtype == np.float32
            assert features.flags.c_contiguous


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_a_shuffled_epoch_has_every_row_once(tmp_path: Path, seed: int) -> None:
    source = ParquetRows(write(tmp_path / "X.parquet"), target="y", batch_size=16, window=32)
    shuffled = source.shuffled(seed)
    orders = []
    for epoch in (1, 2, 1):
        batches = list(shuffled(epoch))
        assert [len(labels) for _, labels in batches] == [rows.stop - rows.start for rows in batch_slices(ROWS, 16, 2)]
        features, labels = joined(batches)
        orders.append(where(features))
        np.testing.assert_array_equal(labels, Y[orders[-1]])
        assert sorted(orders[-1]) == list(range(ROWS))
    np.testing.assert_array_equal(orders[0], orders[2])  # an epoch of its number, whatever came before
    assert (orders[0] != orders[1]).mean() > 0.8
    assert len(shuffled) == len(source) == 7


def test_windows_hold_whole_row_groups_in_a_random_order(tmp_path: Path) -> None:
    """Four groups of 8 rows fill a window of 32, but for the last group, of 5."""
    shuffled = ParquetRows(write(tmp_path / "X.parquet", group=8), target="y", batch_size=16, window=32).shuffled(5)
    order = where(joined(shuffled(1))[0])
    groups = [set(order[start : start + 32] // 8) for start in range(0, 96, 32)]
    assert all(len(found) == 4 or 12 in found for found in groups)
    assert not any(found == set(range(min(found), min(found) + 4)) for found in groups)


def test_a_window_of_all_rows_gives_every_order_the_same_chance(tmp_path: Path) -> None:
    """Each of the 24 orders of four rows as often as any other, within five standard deviations of the count."""
    source = ParquetRows(write(tmp_path / "X.parquet", slice(0, 4), group=2), target="y", batch_size=4, window=4)
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    epochs = 1200
    generator = np.random.default_rng(0)
    for _ in range(epochs):
        counts[tuple(where(joined(batch for _, batch in source.in_order_of(generator))[0]))] += 1
    deviation = np.sqrt(epochs / 24 * 23 / 24)
    assert all(abs(count - epochs / 24) < 5 * deviation for count in counts.values())


def test_several_files_and_folders(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet", slice(0, 40))
    write(tmp_path / "2.parquet", slice(40, ROWS))
    for paths in (tmp_path, [tmp_path / "1.parquet", str(tmp_path / "2.parquet")]):
        rows = ParquetRows(paths, target="y", batch_size=16)
        np.testing.assert_array_equal(joined(rows)[0], X)
        assert rows.rows == ROWS
    assert sorted(where(joined(rows.shuffled()(1))[0])) == list(range(ROWS))


def test_columns_targets_weights_and_dtypes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "X.parquet", flag=Y > 0, count=Y.astype(np.int16), name=np.array(["r", "g", "b"])[Y], w=Y + 1.0
    )
    rows = ParquetRows(path, target="y", columns=["d", "flag", "count", "a"], sample_weight="w", dtype="float64")
    features, _, weights = joined(rows)
    np.testing.assert_array_equal(features, np.stack([X[:, 3], Y > 0, Y, X[:, 0]], axis=1))
    assert features.dtype == np.float64
    np.testing.assert_array_equal(weights, Y + 1)
    features, names = joined(ParquetRows(path, target="name", columns=NAMES))
    np.testing.assert_array_equal(features, X)
    assert names.tolist() == np.array(["r", "g", "b"])[Y].tolist()
    _, numbers = joined(ParquetRows(path, target=["b", "w"], columns=["a"]))
    np.testing.assert_array_equal(numbers, np.stack([X[:, 1], Y + 1], axis=1))
    assert ParquetRows(path, target="y", columns=["a"]).columns == ("a",)
    assert ParquetRows(write(tmp_path / "plain.parquet"), target="y").columns == tuple(NAMES)


def network(**arguments: Any) -> gpunet.Network:
    return gpunet.Network([4, 9, 3], device="cpu:numpy", seed=1, **arguments)


def test_a_run_gives_the_bits_of_one_from_memory(tmp_path: Path) -> None:
    source = ParquetRows(write(tmp_path / "X.parquet"), target="y", batch_size=16, window=32)
    found, expected = network(), network()
    history = gpunet.fit(found, batches=source, validation_batches=source, epochs=2)
    gpunet.fit(expected, X, Y, batch_size=16, shuffle=False, epochs=2)
    for name, value in expected.get_parameters().items():
        np.testing.assert_array_equal(found.get_parameters()[name], value)
    evaluation = gpunet.evaluate(found, X, Y)
    assert gpunet.evaluate(found, batches=source).loss == pytest.approx(evaluation.loss, rel=1e-6)
    assert history["validation_accuracy"][-1] == pytest.approx(evaluation.accuracy)


def test_a_shuffled_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    path = write(tmp_path / "X.parquet")

    def train(epochs: int, seed: int = 4, **arguments: Any) -> gpunet.Network:
        trained = network()
        batches = ParquetRows(path, target="y", batch_size=16, window=32).shuffled(seed)
        gpunet.fit(trained, batches=batches, epochs=epochs, **arguments)
        return trained

    stored: dict[str, Any] = {"checkpoint": tmp_path / "run.npz", "resume": True}
    train(2, **stored)
    found, expected = train(5, **stored), train(5)
    for name, value in expected.get_parameters().items():
        np.testing.assert_array_equal(found.get_parameters()[name], value)
    with pytest.raises(gpunet.InvalidValueError, match="of a run with another X"):
        train(6, seed=5, **stored)
    write(path, a=X[:, 0] + 1)
    with pytest.raises(gpunet.InvalidValueError, match="of a run with another X"):
        train(6, **stored)


def test_npy_files_of_the_rows(tmp_path: Path) -> None:
    """An epoch from them decodes nothing, and has an order drawn from all rows: that of arrays in memory."""
    path = write(tmp_path / "X.parquet", w=Y + 1.0)
    X_file, y, weights = ParquetRows(path, target="y", sample_weight="w", batch_size=16, window=32).to_npy(
        tmp_path / "n"
    )
    assert isinstance(X_file, np.memmap)
    for name, array, expected in (("X", X_file, X), ("y", y, Y), ("sample_weight", weights, Y + 1)):
        np.testing.assert_array_equal(array, expected)
        np.testing.assert_array_equal(np.load(tmp_path / "n" / f"{name}.npy"), expected)
    found, expected_network = network(), network()
    gpunet.fit(found, X_file, y, sample_weight=weights, epochs=2)
    gpunet.fit(expected_network, X, Y, sample_weight=Y + 1.0, epochs=2)
    for name, value in expected_network.get_parameters().items():
        np.testing.assert_array_equal(found.get_parameters()[name], value)
    write(path, w=np.where(np.arange(ROWS) == 90, None, 1.0))
    with pytest.raises(gpunet.NonFiniteError, match="row 90, column 'w'"):
        ParquetRows(path, target="y", sample_weight="w").to_npy(tmp_path / "n")
    np.testing.assert_array_equal(np.load(tmp_path / "n" / "X.npy"), X)
    assert {file.name for file in (tmp_path / "n").iterdir()} == {"X.npy", "y.npy", "sample_weight.npy"}


def test_no_more_than_two_windows_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE_ROWS", 64)
    rows, columns = 20_000, 20
    arrays = {f"x{place}": np.arange(rows, dtype=np.float32) for place in range(columns)} | {"y": np.arange(rows) % 3}
    parquet.write_table(pyarrow.table(arrays), tmp_path / "X.parquet", row_group_size=1000)
    source = ParquetRows(tmp_path / "X.parquet", target="y", batch_size=100, window=500)
    sum(len(labels) for _, labels in source)
    allocated = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    most = 0
    for _ in source.shuffled()(1):
        most = max(most, pyarrow.total_allocated_bytes() - allocated)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = rows * columns * 4
    assert peak < whole / 5
    assert most < whole / 2


def test_an_epoch_that_is_left_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    iterator = iter(ParquetRows(write(tmp_path / "X.parquet"), target="y", batch_size=16, window=16))
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


# --- what is refused --------------------------------------------------------------------------------------------------

MISSING = np.where(np.arange(ROWS) == 43, None, Y)
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = {
    "no such target": ({}, {"target": "z"}, gpunet.InvalidValueError, r"X\.parquet: .*column.*'z'"),
    "no such column": ({}, {"columns": ["a", "e"]}, gpunet.InvalidValueError, r"X\.parquet: .*column.*'e'"),
    "text": (
        {"t": np.full(ROWS, "t")},
        {},
        gpunet.InvalidTypeError,
        r"X\.parquet, column 't': holds string\. Expected numbers; columns= names",
    ),
    "text as numbers": (
        {"t": np.full(ROWS, "t")},
        {"columns": NAMES, "target": ["a", "t"]},
        gpunet.InvalidTypeError,
        "'t'",
    ),
    "no columns": ({}, {"columns": []}, gpunet.InvalidValueError, "columns: .* has none besides y"),
    "batch size": ({}, {"batch_size": 1}, gpunet.InvalidValueError, "batch_size: 1 is out of range"),
    "dtype": ({}, {"dtype": "int8"}, gpunet.InvalidValueError, "dtype: got 'int8'"),
    "window": ({}, {"window": 0}, gpunet.InvalidValueError, "window: 0 is out of range"),
    "a missing label": ({"m": MISSING}, {"target": "m", "columns": NAMES}, gpunet.NonFiniteError, "row 43, column 'm'"),
    "a missing feature": (
        {"m": MISSING},
        {},
        gpunet.NonFiniteError,
        r"X\.parquet, row 43, column 'm': the value is missing",
    ),
    "a missing weight": ({"m": MISSING}, {"sample_weight": "m"}, gpunet.NonFiniteError, "row 43, column 'm'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tmp_path: Path, case: str) -> None:
    columns, arguments, error, message = REFUSED[case]
    path = write(tmp_path / "X.parquet", **columns)
    with pytest.raises(error, match=message):
        list(ParquetRows(path, **({"target": "y"} | arguments)))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(gpunet.MissingFileError, match="there is no file"):
        ParquetRows(tmp_path / "none.parquet", target="y")
    with pytest.raises(gpunet.MissingFileError, match=r"no \.parquet file in the folder"):
        ParquetRows(tmp_path, target="y")
    with pytest.raises(gpunet.InvalidTypeError, match="paths: got 3"):
        ParquetRows(3, target="y")  # type: ignore[arg-type]
    (tmp_path / "text.parquet").write_text("a,b\n1,2\n")
    with pytest.raises(gpunet.FileFormatError, match=r"text\.parquet: cannot be read as Parquet"):
        ParquetRows(tmp_path / "text.parquet", target="y")
    path = write(tmp_path / "X.parquet", slice(0, 1))
    with pytest.raises(gpunet.FileFormatError, match="got 1 row in all"):
        ParquetRows(path, target="y")


def test_a_damaged_file_raises_while_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "X.parquet")
    source = ParquetRows(path, target="y", batch_size=16)
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    with pytest.raises(gpunet.FileFormatError, match=r"X\.parquet: cannot be read as Parquet"):
        list(source)


def test_a_window_takes_32_mib_of_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "X.parquet")
    monkeypatch.setattr(module, "_WINDOW_BYTES", 4 * 4 * 40)
    for dtype, batches in (("float32", 48), ("float64", 32)):
        shuffled = ParquetRows(path, target="y", batch_size=16, dtype=dtype)
        assert shuffled._windows[0].stop == batches


def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/arrays.md, whose files are made here."""
    page = (Path(__file__).parents[2] / "docs" / "arrays.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("flights").mkdir()
    for path in (Path("flights/1.parquet"), Path("later.parquet")):
        arrays = {name: X[:, place] for place, name in enumerate(NAMES)} | {"delayed": Y % 2}
        parquet.write_table(pyarrow.table(arrays), path, row_group_size=20)
    for _ in range(2):
        found: dict[str, Any] = {}
        exec(example.replace("128, 128", "9"), found)
        assert found["network"].steps == 10
