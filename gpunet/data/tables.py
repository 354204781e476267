"""CSV files, read by pandas, and NPZ files; whatever is wrong is refused with file, column and line."""

from __future__ import annotations

import contextlib
import csv
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from gpunet.columns import numbered_names
from gpunet.data.datasets import RawData
from gpunet.data.line_numbers import Record, find_record, first_longer_record, line_number, read_records
from gpunet.data.numerals import MISSING, is_missing, is_number
from gpunet.errors import (
    FileFormatError,
    GpunetError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    optional_package,
    unknown_name,
)
from gpunet.npz import Kind, open_npz

Array = npt.NDArray[Any]

_MOST_NAMES = 12
# What the features of a compressed file may take in float64, however small it is, and beyond that per byte of the file.
_UNQUESTIONED_BYTES = 2**30
_MOST_BYTES_PER_BYTE = 128
_OTHER_SEPARATORS = (";", "\t", "|")


def read_csv(path: Path, target: str | None, expected: Sequence[str] | None, need_target: bool) -> RawData:
    """Read a table.

    Parameters
    ----------
    path : Path
        Comma-separated, UTF-8, names in the first line.
    target : str or None
        Name of the target column.
    expected : sequence of str, or None
        The feature columns that a model wants, in its order; None takes every column but the target.
    need_target : bool
        Whether the target column must be there; where not, it is not read.

    Raises
    ------
    OSError, MissingDependencyError
    FileFormatError
        Empty, not UTF-8, ragged, separated by something else than commas, or columns without a name or with the same
        name.
    InvalidValueError, InvalidTypeError, NonFiniteError
        A column that is missing or not expected; a value that is missing or not a finite number.
    """
    names = _read_header(path)
    _check_separator(path, names, [target, *(expected or ())])
    if target is None and need_target:
        raise InvalidValueError(f"target: {path} needs the name of its target column. It has {_listing(names)}.")
    if target is not None and need_target and target not in names:
        raise InvalidValueError(f"{path}, line 1: {unknown_name('target column', target, names)}")
    features = [name for name in names if name != target]
    if not features:
        raise FileFormatError(f"{path}: has no column besides the target {target!r}. Expected features.")
    if expected is not None:
        _check_columns(path, features, expected)
        features = list(expected)

    frame = _read_frame(path, names, target)
    numbers = np.empty((len(frame), len(features)))
    for place, name in enumerate(features):
        numbers[:, place] = _feature_column(path, name, frame[name])
    targets = _target_column(path, str(target), frame[target]) if need_target else None
    return RawData(numbers, targets, features, path.stem, "table", path, target)


def _read_header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            _, names = next(read_records(file), (0, None))
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError(f"{path}: cannot be read as a UTF-8 text table ({error}).") from None
    if names is None:
        raise FileFormatError(f"{path}: is empty. Expected a line of column names and rows of numbers.")
    seen = set()
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise FileFormatError(f"{path}, line 1: column {number} has no name. Expected one (or no such column).")
        if name in seen:
            raise FileFormatError(f"{path}, line 1: the column name {name!r} occurs twice. Expected different names.")
        seen.add(name)
    return names


def _check_separator(path: Path, names: list[str], known: Sequence[str | None]) -> None:
    if len(names) > 1 or names[0] in known:
        return
    likely = max(_OTHER_SEPARATORS, key=names[0].count)
    if likely in names[0]:
        raise FileFormatError(f"{path}, line 1: one column only; the separator looks like {likely!r}, expected ','.")


def _read_frame(path: Path, names: list[str], target: str | None) -> Any:
    with optional_package("pandas", extra="data", purpose="reading a .csv file"):
        import pandas
    try:
        with warnings.catch_warnings():
            # With index_col=False pandas only warns of rows that are longer than the header, and drops their ends.
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            frame = pandas.read_csv(
                path,
                header=0,
                names=names,
                index_col=False,
                skipinitialspace=True,
                encoding="utf-8-sig",
                keep_default_na=False,
                na_values={name: list(MISSING) for name in names if name != target},
                dtype={target: str} if target in names else None,
                low_memory=False,
            )
    except (UnicodeDecodeError, pandas.errors.ParserError, pandas.errors.ParserWarning) as error:
        _refuse_longer_record(path, len(names))
        reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        raise FileFormatError(f"{path}: cannot be read as a table ({reason}).") from None
    if len(frame) == 0:
        raise FileFormatError(f"{path}: has column names but no rows. Expected at least one.")
    return frame


def _feature_column(path: Path, name: str, column: Any) -> Array:
    """Return a column of finite numbers or refuse its first bad value."""
    missing = column.isna().to_numpy()
    if missing.any():
        _refuse_missing(path, name, int(np.argmax(missing)))
    if column.dtype.kind not in "iufb":
        return _text_column(path, name, [str(value) for value in column])
    return _finite_column(path, name, column.to_numpy(dtype=np.float64))


def _text_column(path: Path, name: str, values: list[str]) -> Array:
    """Return a column that pandas left as text, because of one value or more, as numbers, or refuse the first bad."""
    texts = [value.strip() for value in values]
    for row, text in enumerate(texts):
        if is_missing(text):
            _refuse_missing(path, name, row)
        if not is_number(text):
            _refuse(path, name, row, f"{values[row]!r} is not a number. Features must be numbers", InvalidTypeError)
    return _finite_column(path, name, np.array(list(map(float, texts))))


def _finite_column(path: Path, name: str, numbers: Array) -> Array:
    finite = np.isfinite(numbers)
    if not finite.all():
        row = int(np.argmin(finite))
        _refuse(path, name, row, f"{numbers[row]} is not a finite number", NonFiniteError)
    return numbers


def _target_column(path: Path, name: str, column: Any) -> Array:
    """Return a column as text, without blanks around it; objects, because one long text would make all of them long."""
    # Rows that end before the target column are missing values, whatever the column's type.
    values = ["" if missing else str(value).strip() for value, missing in zip(column, column.isna(), strict=True)]
    if "" in values:
        _refuse(path, name, values.index(""), "the target is missing", InvalidValueError)
    return np.array(values, dtype=object)


def _refuse_missing(path: Path, column: str, row: int) -> NoReturn:
    _refuse(path, column, row, "the value is missing. Expected a number", InvalidValueError)


def _refuse(path: Path, column: str, row: int, problem: str, kind: type[GpunetError]) -> NoReturn:
    header, record = find_record(path, -1), find_record(path, row)
    # A comma too few moves values into other columns, and the last column is then missing: no fault of that column.
    if header is not None and record is not None and record.values != header.values:
        raise _ragged(path, record, header.values)
    raise kind(f"{path}, line {line_number(path, row)}, column {column!r}: {problem}.")


def _refuse_longer_record(path: Path, columns: int) -> None:
    with contextlib.suppress(UnicodeDecodeError):  # pandas says where
        record = first_longer_record(path, columns)
        if record is not None:
            raise _ragged(path, record, columns) from None


def _ragged(path: Path, record: Record, columns: int) -> FileFormatError:
    values = "1 value" if record.values == 1 else f"{record.values} values"
    return FileFormatError(f"{path}: line {record.line} has {values}, expected {columns}.")


def _check_columns(path: Path, names: Sequence[str], expected: Sequence[str]) -> None:
    for name in expected:
        if name not in names:
            raise InvalidValueError(f"{path}, line 1: the column {name!r}, which the model needs, is not there.")
    for name in names:
        if name not in expected:
            raise InvalidValueError(f"{path}, line 1: {unknown_name('column', name, expected)} The model has no such.")


def _listing(names: Sequence[str]) -> str:
    return ", ".join([*names[:_MOST_NAMES], "..."] if len(names) > _MOST_NAMES else names)


def read_npz(path: Path, need_target: bool) -> RawData:
    """Read the arrays X, (n, d), and y, (n,), of an NPZ file; y only where it is needed, and nothing else.

    Raises
    ------
    OSError
    FileFormatError
        Not an NPZ file, damaged, without X or y, with objects in them, or a small file of very large arrays.
    ShapeError, InvalidTypeError, NonFiniteError
    """
    keys = ("X", "y") if need_target else ("X",)
    with open_npz(path, called=f"{path}:") as archive:
        for key in keys:
            if key not in archive.names:
                held = _listing(sorted(archive.names)) or "nothing"
                raise FileFormatError(f"{path}: has no array {key!r}. Expected X and y; it holds {held}.")
        features, targets = archive.kind("X"), archive.kind("y") if need_target else None
        _check_features(path, features)
        if targets is not None:
            _check_targets(path, targets, features.shape[0])
        arrays = {key: archive.read(key) for key in keys}
    names = numbered_names(features.shape[1])
    return RawData(_finite_features(path, arrays["X"]), arrays.get("y"), names, path.stem, "arrays", path)


def _check_features(path: Path, kind: Kind) -> None:
    if len(kind.shape) != 2 or 0 in kind.shape:
        raise ShapeError(f"{path}: X has the shape {kind.shape}. Expected (rows, columns), at least one of each.")
    if kind.dtype.kind not in "iufb":
        raise InvalidTypeError(f"{path}: X has the dtype {kind.dtype}. Expected numbers.")
    needed, size = math.prod(kind.shape) * np.dtype(np.float64).itemsize, path.stat().st_size
    if needed > max(_UNQUESTIONED_BYTES, _MOST_BYTES_PER_BYTE * size):
        raise FileFormatError(
            f"{path}: X takes {needed:,} bytes in float64, of a file of {size:,} bytes. Expected at most "
            f"{_MOST_BYTES_PER_BYTE} times as many; numpy.savez, which does not compress, writes such arrays."
        )


def _check_targets(path: Path, kind: Kind, rows: int) -> None:
    if kind.shape != (rows,):
        raise ShapeError(f"{path}: y has the shape {kind.shape}. Expected one target per row of X, ({rows},).")
    if kind.dtype.kind not in "biufU":
        raise InvalidTypeError(f"{path}: y has the dtype {kind.dtype}. Expected integers, numbers or text.")


def _finite_features(path: Path, array: Array) -> Array:
    with np.errstate(over="ignore"):  # numbers of more than 64 bits
        features = array.astype(np.float64, copy=False)
    finite = np.isfinite(features)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise NonFiniteError(f"{path}: X has {features[row, column]} in row {row}, column {column}. Expected numbers.")
    return features
