"""Parquet files read in batches, in bounded memory: for ``gpunet.fit(batches=...)`` and ``gpunet.evaluate``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from gpunet.batches import batch_slices
from gpunet.errors import (
    FileFormatError,
    InvalidTypeError,
    InvalidValueError,
    MissingFileError,
    NonFiniteError,
    counted,
    optional_package,
    shown,
    unknown_name,
)
from gpunet.files import as_path, replacing
from gpunet.random import Purpose, host_generator
from gpunet.validation import check_dtype, check_integer

Array = npt.NDArray[Any]

# Where each shard of a batch of so many rows begins, and where the last one ends.
Starts: TypeAlias = Callable[[int], Sequence[int]]
# A batch of which this process has some rows: how many all have, and its own.
Dealt: TypeAlias = tuple[int, tuple[Array, ...]]

# Of the features of a window: of one whose rows are shuffled, and where their order is the file's.
_WINDOW_BYTES = 1 << 25
_IN_ORDER_BYTES = 1 << 21
# Decoded at a time: the numbers of a few hundred columns stay in a processor's cache meanwhile.
_PIECE_ROWS = 2048
# A remainder of one row joins the batch before it, which batch norm needs.
_FEWEST = 2


class _Part(NamedTuple):
    """Rows ``start`` to ``stop - 1`` of a row group."""

    file: int
    group: int
    start: int
    stop: int


class ParquetRows:
    """The rows of Parquet files, as batches for ``fit(batches=...)`` and ``evaluate(batches=...)``.

    Iterating goes through the rows in the order of the files; :meth:`shuffled` gives each epoch an order of its own.
    Windows of rows are decoded one after the other, the next by a thread while the batches of one are used: two windows
    and what Arrow decodes at a time are all that is held. With ``fit(distributed=)`` each rank reads the rows of its
    shards (:meth:`in_shards`), and validates its part of the batches (:meth:`turn`).

    Parameters
    ----------
    paths : path, or sequence of paths
        Files of the same columns, or folders, of which all files that end in ``.parquet`` are read, in the order of
        their names.
    target : str or sequence of str
        The column of the labels or numbers, y (n,), or the columns of numbers, y (n, c). Text and booleans are labels.
    columns : sequence of str, or None
        The features, in this order: integers, floats and booleans. None takes all other columns.
    sample_weight : str or None
        The column of the rows' weights.
    batch_size : int
        At least 2. A single row that is left over joins the batch before it.
    dtype : dtype
        ``"float32"`` or ``"float64"``, of features and numbers: the network's needs no conversion later.
    window : int or None
        Rows of a window; more where the batch size does not divide it. None takes 32 MiB of features.

    Attributes
    ----------
    rows : int
    columns : tuple of str
    fingerprint : str
        A digest of what the files say of themselves (rows, columns, sizes and statistics of their parts) and of these
        arguments; checkpoints compare it.

    Raises
    ------
    MissingFileError, FileFormatError, OSError, MissingDependencyError
    InvalidValueError, InvalidTypeError
        A column that is not there, or of no numbers; while iterating, with file and row: a value that is missing.
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        target: str | Sequence[str],
        columns: Sequence[str] | None = None,
        sample_weight: str | None = None,
        batch_size: int = 128,
        dtype: npt.DTypeLike = "float32",
        window: int | None = None,
    ) -> None:
        with optional_package("pyarrow", extra="parquet", purpose="reading a .parquet file"):
            import pyarrow.parquet
        self._dtype = check_dtype(dtype)
        self.batch_size = check_integer("batch_size", batch_size, _FEWEST)
        self._paths = _files(paths)
        self._metadata = []
        for path in self._paths:
            with reading_parquet(path):
                self._metadata.append(pyarrow.parquet.read_metadata(path))
        self._targets = [target] if isinstance(target, str) else list(target)
        self._has_columns_of_targets = not isinstance(target, str)
        self._sample_weight = sample_weight
        others = [*self._targets, *([] if sample_weight is None else [sample_weight])]
        first = self._metadata[0].schema.to_arrow_schema()
        self.columns = tuple(columns) if columns is not None else tuple(n for n in first.names if n not in others)
        self._check_columns(others)
        self._parts = [
            _Part(file, group, 0, metadata.row_group(group).num_rows)
            for file, metadata in enumerate(self._metadata)
            for group in range(metadata.num_row_groups)
        ]
        self.rows = sum(part.stop for part in self._parts)
        if self.rows < _FEWEST:
            raise FileFormatError(
                f"{self._paths[0]}: got {counted(self.rows, 'row')} in all. Expected at least {_FEWEST}."
            )
        if window is None:
            window = max(1, self._rows_of(_WINDOW_BYTES))
        window = check_integer("window", window, 1)
        self._windows = self._cut(window)
        self._in_order = min(window, self._rows_of(_IN_ORDER_BYTES))
        self.fingerprint = self._digest(self._windows[0].stop)

    def __len__(self) -> int:
        """Number of batches."""
        return len(batch_slices(self.rows, self.batch_size, _FEWEST))

    def __iter__(self) -> Iterator[tuple[Array, ...]]:
        return (batch for _, batch in self._dealt(_whole, range(1)))

    def in_shards(self, starts: Starts, own: range) -> Callable[[int], Iterator[Dealt]]:
        """Return batches of which the rows of some shards alone are read: how ranks share the work.

        The rows are cut into as many stretches as there are shards, and a batch has the next rows of each: as many as
        ``starts`` deals to it. So batches have the sizes that they have without shards, and which rows they have
        depends on the number of shards alone, not on who reads which of them.

        Parameters
        ----------
        starts : callable
            Gets the rows of a batch, and returns where each shard begins and where the last one ends.
        own : range
            The shards whose rows are wanted.

        Returns
        -------
        callable
            Gets the number of an epoch, and returns an iterator of pairs: how many rows a batch has, and its arrays
            with those of ``own``, shard after shard.
        """
        return lambda epoch: self._dealt(starts, own)

    def turn(self, rank: int, size: int) -> Iterator[tuple[int, tuple[Array, ...]]]:
        """Yield the batches of one of ``size`` readers, and the number of each, from 0; no other rows are read."""
        batches = batch_slices(self.rows, self.batch_size, _FEWEST)
        own = range(rank * len(batches) // size, (rank + 1) * len(batches) // size)
        if not own:
            return
        start, stop = batches[own[0]].start, batches[own[-1]].stop
        windows = self._cut(self._in_order, stop - start)
        parts = _between(self._parts, start, stop)
        for number, (_, batch) in zip(own, self._dealt(_whole, range(1), parts=parts, windows=windows), strict=True):
            yield number, batch

    def shuffled(self, seed: int = 0) -> ShuffledRows:
        """Return batches whose order is drawn anew for each epoch; every row comes once per epoch.

        Parameters
        ----------
        seed : int
            0 to 2**64 - 1. The order is a function of it, the epoch's number, the files and the window.
        """
        return ShuffledRows(self, check_integer("seed", seed, 0, 2**64 - 1))

    def in_order_of(
        self, generator: np.random.Generator, starts: Starts | None = None, own: range = range(1)
    ) -> Iterator[Dealt]:
        """Yield batches of the files' row groups in a random order, and of each window's rows in a random order.

        Parameters
        ----------
        generator : numpy.random.Generator
        starts, own
            As of :meth:`in_shards`, and so are the pairs; None stands for whole batches.
        """
        parts = [self._parts[place] for place in generator.permutation(len(self._parts))]
        return self._dealt(starts or _whole, own, parts=parts, windows=self._windows, generator=generator)

    def to_npy(self, folder: str | os.PathLike[str]) -> tuple[Array, ...]:
        """Write the rows as ``X.npy``, ``y.npy`` and perhaps ``sample_weight.npy``, and return them as arrays.

        ``fit(network, X, y)`` reads the features where they are then, as fast as from memory, with no decoding in each
        epoch and in an order drawn from all rows. Each file appears whole or not at
        all. No more than two windows, and one number per row, are held.

        Parameters
        ----------
        folder : path
            Created where it is missing. ``numpy.load("X.npy", mmap_mode="r")`` gives the features again.

        Returns
        -------
        X : ndarray, (n, d)
            A mapped file.
        y : ndarray, (n,) or (n, c)
        sample_weight : ndarray, (n,)
            Only where there are weights.

        Raises
        ------
        FileFormatError, NonFiniteError
            As while iterating; a value that is missing.
        OSError
            The files cannot be written; older ones are still there.
        """
        place = as_path(folder, "folder")
        others = []
        with replacing(place / "X.npy") as file:
            header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.rows, len(self.columns))}
            np.lib.format.write_array_header_1_0(file, header)
            windows = [[rows.stop - rows.start] for rows in self._cut(self._in_order)]
            for features, *rest in self._decoded([self._parts], windows):
                file.write(features.data)
                others.append(rest)
        arrays = [np.concatenate(part) for part in zip(*others, strict=True)]
        for name, array in zip(("y", "sample_weight"), arrays, strict=False):
            with replacing(place / f"{name}.npy") as file:
                np.save(file, array)
        return np.load(place / "X.npy", mmap_mode="r"), *arrays

    def _rows_of(self, size: int) -> int:
        """Return the rows whose features take so many bytes."""
        return size // (self._dtype.itemsize * len(self.columns))

    def _cut(self, window: int, rows: int | None = None) -> list[slice]:
        """Cut the rows, or so many, into windows of so many, and as many more as the batch size wants."""
        whole = max(1, -(-window // self.batch_size)) * self.batch_size
        return batch_slices(self.rows if rows is None else rows, whole, _FEWEST)

    def _dealt(
        self,
        starts: Starts,
        own: range,
        *,
        parts: Sequence[_Part] | None = None,
        windows: Sequence[slice] | None = None,
        generator: np.random.Generator | None = None,
    ) -> Iterator[Dealt]:
        """Yield what some shards have of each batch; with a generator, each shard's rows of a window are shuffled."""
        parts = self._parts if parts is None else parts
        windows = self._cut(self._in_order) if windows is None else windows
        counts = np.array([self._shares(window, starts).sum(axis=0) for window in windows])
        ends = list(accumulate(counts.sum(axis=0).tolist(), initial=0))
        sources = [_between(parts, ends[shard], ends[shard + 1]) for shard in own]
        decoded = self._decoded(sources, counts[:, own.start : own.stop].tolist())
        for window, arrays in zip(windows, decoded, strict=True):
            shares = self._shares(window, starts)
            order = None
            if generator is not None or len(own) > 1:
                order = _batch_by_batch(shares, own, generator)
            stops = shares[:, own.start : own.stop].sum(axis=1).cumsum().tolist()
            for whole, start, stop in zip(shares.sum(axis=1).tolist(), [0, *stops], stops, strict=False):
                rows: Any = slice(start, stop) if order is None else order[start:stop]
                yield whole, tuple(array[rows] if order is None else array.take(rows, axis=0) for array in arrays)

    def _shares(self, window: slice, starts: Starts) -> Array:
        """Return how many rows of each batch of a window each shard has, (batches, shards)."""
        batches = batch_slices(window.stop - window.start, self.batch_size, _FEWEST)
        return np.diff([starts(rows.stop - rows.start) for rows in batches], axis=1)

    # --- files --------------------------------------------------------------------------------------------------------

    def _check_columns(self, others: list[str]) -> None:
        """Raise unless every file has the columns, and numbers in those of the features."""
        from pyarrow import types

        if not self.columns:
            raise InvalidValueError(f"columns: {self._paths[0]} has none besides {', '.join(others)}.")
        for path, metadata in zip(self._paths, self._metadata, strict=True):
            schema = metadata.schema.to_arrow_schema()
            for name in (*self.columns, *others):
                if name not in schema.names:
                    raise InvalidValueError(f"{path}: {unknown_name('column', name, schema.names)}")
            numbers = [*self.columns, *(others if self._has_columns_of_targets else others[1:])]
            for name in numbers:
                kind = schema.field(name).type
                if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
                    raise InvalidTypeError(
                        f"{path}, column {name!r}: holds {kind}. Expected numbers; columns= names the features."
                    )

    def _digest(self, window: int) -> str:
        digest = sha256(repr((self.columns, self._targets, self._sample_weight, self._dtype.str)).encode())
        digest.update(repr((self.batch_size, window)).encode())
        for metadata in self._metadata:
            content = metadata.to_dict()
            digest.update(repr(content["row_groups"]).encode())
        return digest.hexdigest()

    # --- reading ------------------------------------------------------------------------------------------------------

    def _decoded(
        self, sources: Sequence[Sequence[_Part]], windows: Sequence[Sequence[int]]
    ) -> Iterator[tuple[Array, ...]]:
        """Yield the windows: features, targets and perhaps weights. Each is decoded while the one before is used.

        A window has so many of the next rows of each source, one source after the other.
        """
        decoded = self._read(sources, windows)
        with ThreadPoolExecutor(1, "gpunet-parquet") as thread:
            coming = thread.submit(next, decoded, None)
            while (window := coming.result()) is not None:
                coming = thread.submit(next, decoded, None)
                yield window

    def _read(
        self, sources: Sequence[Sequence[_Part]], windows: Sequence[Sequence[int]]
    ) -> Iterator[tuple[Array, ...]]:
        cursors = [_Cursor(self._pieces(source)) for source in sources]
        for counts in windows:
            features = np.empty((sum(counts), len(self.columns)), self._dtype)
            filled: list[tuple[Array, ...]] = []
            done = 0
            for cursor, count in zip(cursors, counts, strict=True):
                for piece in cursor.next(count):
                    here = len(piece[0])
                    features[done : done + here] = piece[0]
                    filled.append(piece[1:])
                    done += here
            others = [np.concatenate(part) for part in zip(*filled, strict=True)]
            yield features, *(others or self._nothing())

    def _nothing(self) -> tuple[Array, ...]:
        """Return targets and perhaps weights of no rows."""
        shape = (0, len(self._targets)) if self._has_columns_of_targets else (0,)
        return np.empty(shape, self._dtype), *([] if self._sample_weight is None else [np.empty(0, self._dtype)])

    def _pieces(self, parts: Sequence[_Part]) -> Iterator[tuple[Array, ...]]:
        """Yield rows of row groups piece by piece: features, targets and perhaps weights."""
        from pyarrow.parquet import ParquetFile

        names = [*self.columns, *self._targets, *([] if self._sample_weight is None else [self._sample_weight])]
        for file, group, start, stop in parts:
            path, done = self._paths[file], 0
            with reading_parquet(path), ParquetFile(path, metadata=self._metadata[file], memory_map=True) as opened:
                for batch in opened.iter_batches(
                    _PIECE_ROWS, row_groups=[group], columns=list(dict.fromkeys(names)), use_threads=False
                ):
                    first, last = max(0, start - done), min(len(batch), stop - done)
                    if first < last:
                        yield self._arrays(file, group, batch.slice(first, last - first))
                    done += len(batch)
                    if done >= stop:
                        break

    def _arrays(self, file: int, group: int, batch: Any) -> tuple[Array, ...]:
        features = self._matrix(file, group, batch, self.columns)
        if self._has_columns_of_targets:
            targets = self._matrix(file, group, batch, self._targets)
        else:
            targets = self._vector(file, group, batch, self._targets[0])
        if self._sample_weight is None:
            return features, targets
        return features, targets, self._vector(file, group, batch, self._sample_weight)

    def _matrix(self, file: int, group: int, batch: Any, names: Sequence[str]) -> Array:
        """Return columns of numbers as an array (n, columns), of the files' dtype where they share one."""
        import pyarrow

        chosen = batch.select(list(names))
        kinds = set(chosen.schema.types)
        if len(kinds) > 1 or pyarrow.bool_() in kinds:
            fields = [pyarrow.field(name, pyarrow.float64()) for name in names]
            chosen = chosen.cast(pyarrow.schema(fields), safe=False)
        try:
            matrix: Array = chosen.to_tensor().to_numpy()
        except (TypeError, pyarrow.ArrowException):
            self._refuse_missing(file, group, names)
        with np.errstate(over="ignore"):  # told where the batch is checked
            return matrix.astype(self._dtype, copy=False)

    def _vector(self, file: int, group: int, batch: Any, name: str) -> Array:
        column = batch.column(name)
        if column.null_count:
            self._refuse_missing(file, group, [name])
        values = column.to_numpy(zero_copy_only=False)
        return values.astype(np.str_) if values.dtype == object else values

    def _refuse_missing(self, file: int, group: int, names: Sequence[str]) -> NoReturn:
        """Raise for the first value that is missing in these columns of a row group."""
        from pyarrow.parquet import ParquetFile

        path = self._paths[file]
        before = sum(part.stop for part in self._parts if part.file == file and part.group < group)
        with ParquetFile(path) as opened:
            table = opened.read_row_group(group, columns=list(names))
        for name in names:
            missing = table[name].is_null().to_numpy()
            if missing.any():
                row = before + int(missing.argmax())
                raise NonFiniteError(f"{path}, row {row}, column {name!r}: the value is missing. Expected a number.")
        raise InvalidTypeError(f"{path}: its columns cannot be read as one array of numbers.")


@dataclass(frozen=True)
class ShuffledRows:
    """Batches of :class:`ParquetRows` in an order of its own for each epoch; a function of the epoch's number."""

    source: ParquetRows
    seed: int

    def __call__(self, epoch: int) -> Iterator[tuple[Array, ...]]:
        return (batch for _, batch in self.source.in_order_of(self._generator(epoch)))

    def in_shards(self, starts: Starts, own: range) -> Callable[[int], Iterator[Dealt]]:
        """Return batches of which the rows of some shards alone are read; see :meth:`ParquetRows.in_shards`.

        The stretches are of the row groups in the order of the epoch, and so is what a shard's windows hold.
        """
        return lambda epoch: self.source.in_order_of(self._generator(epoch), starts, own)

    def _generator(self, epoch: int) -> np.random.Generator:
        return host_generator(self.seed, Purpose.SHUFFLE, epoch)

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return len(self.source)

    @property
    def fingerprint(self) -> str:
        """That of the rows, and of the seed."""
        return f"{self.source.fingerprint}-{self.seed}"


class _Cursor:
    """Pieces of rows, of which any number may be taken at a time."""

    def __init__(self, pieces: Iterator[tuple[Array, ...]]) -> None:
        self._pieces = pieces
        self._left: tuple[Array, ...] = ()

    def next(self, count: int) -> Iterator[tuple[Array, ...]]:
        """Yield the next so many rows, in pieces."""
        while count:
            piece = self._left or next(self._pieces)
            here = min(len(piece[0]), count)
            self._left = tuple(part[here:] for part in piece) if here < len(piece[0]) else ()
            count -= here
            yield tuple(part[:here] for part in piece)


def _whole(rows: int) -> tuple[int, int]:
    """Return where the only shard of a batch begins and ends."""
    return 0, rows


def _between(parts: Sequence[_Part], start: int, stop: int) -> list[_Part]:
    """Return the rows ``start`` to ``stop - 1`` of these parts, counted from the first one's first."""
    found, done = [], 0
    for part in parts:
        first, last = max(part.start, part.start + start - done), min(part.stop, part.start + stop - done)
        if first < last:
            found.append(part._replace(start=first, stop=last))
        done += part.stop - part.start
    return found


def _batch_by_batch(shares: Array, own: range, generator: np.random.Generator | None) -> Array:
    """Return where the rows of a window's batches are, of which each shard's lie together.

    Parameters
    ----------
    shares : ndarray of int, (batches, shards)
        The rows of each.
    own : range
        The shards whose rows there are.
    generator : numpy.random.Generator or None
        Shuffles the rows of each shard; also of the others, so that every process draws the same.
    """
    counts = shares.sum(axis=0).tolist()
    orders = [np.arange(count) if generator is None else generator.permutation(count) for count in counts]
    of_own = shares[:, own.start : own.stop]
    starts = (of_own.cumsum() - of_own.ravel()).reshape(of_own.shape)  # in the order of the batches
    before = of_own.cumsum(axis=0) - of_own  # in that of the shard
    found = np.empty(int(of_own.sum()), np.int64)
    first = 0
    for number, shard in enumerate(own):
        moved = np.repeat(starts[:, number] - before[:, number], of_own[:, number])
        found[np.arange(counts[shard]) + moved] = first + orders[shard]
        first += counts[shard]
    return found


def _files(paths: Any) -> list[Path]:
    """Return the files that were named, those of folders in the order of their names."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    if not isinstance(given, (list, tuple)) or not given:
        raise InvalidTypeError(f"paths: got {shown(paths)}. Expected a path or a list of paths.")
    files = []
    for path in map(Path, given):
        found = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not found or not found[0].exists():
            what = "no .parquet file in the folder" if path.is_dir() else "no file"
            raise MissingFileError(f"paths: there is {what} {str(path)!r}.")
        files += found
    return files


@contextmanager
def reading_parquet(path: Path) -> Iterator[None]:
    """Name the file where Arrow cannot read it."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the file system; Arrow's own have no number
            raise
        raise FileFormatError(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())}).") from None
