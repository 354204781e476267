"""Tables: text files, read by pandas, Parquet files, read by Arrow, and DataFrames of any library."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.data.choice import Wanted, clean_names
from gpunet.data.datasets import RawData
from gpunet.data.numerals import MISSING, is_number, with_point
from gpunet.data.parquet import reading_parquet
from gpunet.data.source import Source
from gpunet.data.text_files import DAMAGED_GZIP, WHITESPACE, TextFile
from gpunet.data.values import Categories, FeatureReader, leaving_out
from gpunet.errors import FileFormatError, InvalidTypeError, InvalidValueError, ShapeError, optional_package
from gpunet.frames import Values, column_values, known_frame, object_values

Array = npt.NDArray[Any]

TAB = "\t"
# What separates the values in a text file of that ending, unless the user says otherwise.
SEPARATORS = {".csv": ",", ".tsv": TAB, ".tab": TAB, ".txt": ",", ".data": ","}
PARQUET = (".parquet", ".pq")
_OTHER_SEPARATORS = (";", TAB, "|", ",")
_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def table_suffix(path: Path) -> str:
    """Return the ending that says what a file holds: ``.csv`` of ``table.CSV.gz``."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == ".gz" else suffix


def read_text(path: Path, wanted: Wanted) -> RawData:
    """Read a table in a text file.

    Parameters
    ----------
    path : Path
        A ``.csv`` or ``.tsv`` file, ``.gz`` or not.
    wanted : Wanted

    Raises
    ------
    OSError, MissingDependencyError
    FileFormatError
        Empty, of another encoding, ragged, separated by something else, damaged, or two columns have the same name.
    InvalidValueError, InvalidTypeError, NonFiniteError
        A column that is missing or not expected; a value that is missing or not a finite number.
    """
    options = wanted.options
    separator = options.sep or SEPARATORS[table_suffix(path)]
    if options.decimal == separator:
        raise InvalidValueError(
            f"decimal: {separator!r} separates the values of {path} too. Expected sep to be another character, as ';'."
        )
    text = TextFile(path, separator, options.encoding, not options.no_header)
    first = _read_first(text)
    source = Source(str(path), len(first), text)
    names = wanted.names_without_header(source, len(first)) if options.no_header else clean_names(source, first)
    _check_separator(source, text, names, [wanted.target, *(wanted.expected or ())])
    features = wanted.features(source, names)

    frame = _read_frame(source, text, names, features, wanted)
    reader = FeatureReader(source, wanted)
    read = _read_features(features, len(frame), lambda name: reader.read(name, _text_values(frame[name])))
    targets = None
    if wanted.need_target:
        targets = _target_column(source, str(wanted.target), _text_values(frame[wanted.target]), options.decimal)
    return _raw_data(read, targets, features, names, wanted, source, _name(path), path)


def read_parquet(path: Path, wanted: Wanted) -> RawData:
    """Read a Parquet file; only the columns that are needed leave it.

    Raises
    ------
    OSError, MissingDependencyError, FileFormatError, InvalidValueError, InvalidTypeError, NonFiniteError
        See :func:`read_text`.
    """
    with optional_package("pyarrow", extra="parquet", purpose="reading a .parquet file"):
        from pyarrow import parquet
    with reading_parquet(path), parquet.ParquetFile(path) as file:
        source = Source(str(path), len(file.schema_arrow.names))
        names = clean_names(source, file.schema_arrow.names)
        needed = wanted.features(source, names)
        if wanted.need_target:
            needed = [*needed, str(wanted.target)]
        written = dict(zip(names, file.schema_arrow.names, strict=True))
        table = file.read([written[name] for name in needed], use_pandas_metadata=False)
    return _read_table(table, source, written, wanted, _name(path), path)


def read_rows(rows: Any, wanted: Wanted, argument: str = "data") -> RawData:
    """Read a DataFrame of pandas, polars, Arrow or another library that narwhals knows, or rows of Python's objects.

    Parameters
    ----------
    rows : DataFrame or array_like
        Without names of columns, they are the features that a model wants, in its order.
    wanted : Wanted
    argument : str
        What messages call it.

    Raises
    ------
    MissingDependencyError, ShapeError, FileFormatError, InvalidValueError, InvalidTypeError, NonFiniteError
        See :func:`read_text`.
    """
    # The class is asked, because polars computes the columns of a LazyFrame.
    if hasattr(type(rows), "columns") and (frame := known_frame(argument, rows)) is not None:
        source = Source(argument, len(frame.columns))
        written = dict(zip(clean_names(source, list(map(str, frame.columns))), frame.columns, strict=True))
        return _read_table(rows, source, written, wanted, argument, None)
    array = np.asarray(rows, dtype=object)
    if wanted.expected is None:
        raise InvalidTypeError(f"{argument}: got {type(rows).__name__}. Expected a file's name or a DataFrame.")
    if array.ndim != 2 or 0 in array.shape or array.shape[1] != len(wanted.expected):
        raise ShapeError(f"{argument}: got shape {array.shape}. Expected (rows, {len(wanted.expected)}).")
    columns = dict(zip(wanted.expected, array.T, strict=True))
    source = Source(argument, array.shape[1])
    reader = FeatureReader(source, wanted)
    read = _read_features(
        list(columns),
        len(array),
        lambda name: reader.read(name, object_values(argument, name, columns[name], name in wanted.categorical)),
    )
    return _raw_data(read, None, list(columns), list(columns), wanted, source, argument, None)


def _read_table(
    table: Any, source: Source, written: Mapping[str, Any], wanted: Wanted, called: str, path: Path | None
) -> RawData:
    """Read the columns of a table in memory; ``written`` has what it calls each."""
    wanted.options.refuse_of_text(source.label)
    frame, names = known_frame(source.label, table), list(written)
    features = wanted.features(source, names)
    if len(frame) == 0:
        raise FileFormatError(f"{source.label}: has columns but no rows. Expected at least one.")
    reader = FeatureReader(source, wanted)

    def values(name: str, as_text: bool) -> Values:
        hint = "" if wanted.expected is not None or name == wanted.target else f"; {leaving_out(name)}"
        return column_values(source.label, name, frame.get_column(written[name]), as_text, hint)

    read = _read_features(
        features, len(frame), lambda name: reader.read(name, values(name, name in wanted.categorical))
    )
    targets = None
    if wanted.need_target:
        target = str(wanted.target)
        targets = _target_column(source, target, values(target, as_text=True), ".")
    return _raw_data(read, targets, features, names, wanted, source, called, path)


def _raw_data(
    read: tuple[Array, dict[str, Categories]],
    targets: Array | None,
    features: list[str],
    names: list[str],
    wanted: Wanted,
    source: Source,
    called: str,
    path: Path | None,
) -> RawData:
    return RawData(
        read[0],
        targets,
        features,
        called,
        "table",
        path,
        wanted.target,
        categories=read[1],
        column_names=names,
        source=source,
    )


def _read_features(
    features: Sequence[str], rows: int, read: Callable[[str], tuple[Array, Categories | None]]
) -> tuple[Array, dict[str, Categories]]:
    numbers, categories = np.empty((rows, len(features))), {}
    for place, name in enumerate(features):
        numbers[:, place], found = read(name)
        if found is not None:
            categories[name] = found
    return numbers, categories


def _name(path: Path) -> str:
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def _read_first(text: TextFile) -> list[str]:
    try:
        record = next(text.records(), None)
    except (UnicodeError, csv.Error, *DAMAGED_GZIP) as error:
        raise _unreadable(text, error) from None
    if record is None:
        raise FileFormatError(f"{text.path}: is empty. Expected a line of column names and rows of numbers.")
    return record.fields


def _unreadable(text: TextFile, error: Exception) -> FileFormatError:
    reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
    if isinstance(error, DAMAGED_GZIP):
        return FileFormatError(f"{text.path}: is no whole gzip file ({reason}).")
    hint = ""
    if isinstance(error, UnicodeError):
        with text.path.open("rb") as file:
            start = file.read(2)
        hint = f' encoding="{"utf-16" if start in _BYTE_ORDER_MARKS else "cp1252"}" may be what it was written in.'
        if start == _GZIP:
            hint = " It is compressed: its name needs the ending .gz."
    encoding = text.encoding.removesuffix("-sig")
    return FileFormatError(f"{text.path}: cannot be read as a table in {encoding} ({reason}).{hint}")


def _check_separator(source: Source, text: TextFile, names: Sequence[str], known: Sequence[str | None]) -> None:
    """Raise if another separator would give the header the names that are looked for, or more than one name."""
    wanted = {name for name in known if name is not None}
    if wanted & set(names) or (len(names) > 1 and not wanted):
        return
    for likely in _OTHER_SEPARATORS:
        found = [name.strip() for name in _read_first(replace(text, separator=likely))]
        if wanted & set(found) or len(names) == 1 < len(found):
            alone = "one column only; " if len(names) == 1 else ""
            raise FileFormatError(
                f"{source.header}: {alone}the separator looks like {likely!r}, expected {text.separator!r}. "
                f'sep="{"tab" if likely == TAB else likely}" reads such.'
            )


def _read_frame(source: Source, text: TextFile, names: list[str], features: Sequence[str], wanted: Wanted) -> Any:
    with optional_package("pandas", extra="data", purpose="reading a text table"):
        import pandas
    # What is no feature stays text: its numbers are nobody's, and "01" is another class than "1".
    texts = {name for name in names if name not in features or name in wanted.categorical}
    # Before 3.1 pandas rounds every third number otherwise than Python does; from then on it warns of the argument.
    is_exact = tuple(map(int, pandas.__version__.split(".")[:2])) >= (3, 1)
    try:
        with warnings.catch_warnings(), text.open() as file:
            # With index_col=False pandas only warns of rows that are longer than the header, and drops their ends.
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            frame = pandas.read_csv(
                file,
                sep=r"\s+" if text.separator == WHITESPACE else text.separator,
                decimal=wanted.options.decimal,
                header=0 if text.has_header else None,
                names=names,
                index_col=False,
                skipinitialspace=True,
                keep_default_na=False,
                na_values={name: list(MISSING) for name in features},
                dtype=dict.fromkeys(texts, str),
                low_memory=False,
                **({} if is_exact else {"float_precision": "round_trip"}),
            )
    except (UnicodeError, pandas.errors.ParserError, pandas.errors.ParserWarning, *DAMAGED_GZIP) as error:
        source.refuse_ragged()
        raise _unreadable(text, error) from None
    if len(frame) == 0:
        raise FileFormatError(f"{text.path}: has column names but no rows. Expected at least one.")
    # pandas takes the end of a row that is too short for missing values.
    last = frame[names[-1]]
    if (names[-1] in features or names[-1] != wanted.target) and (last.isna() | (last == "")).any():
        source.refuse_ragged()
    return frame


def _text_values(column: Any) -> Values:
    if column.dtype.kind in "iufb":
        return column.to_numpy(dtype=np.float64)
    values, missing = column.to_numpy(dtype=object), column.isna().to_numpy()
    return [None if lacks else str(value) for value, lacks in zip(values, missing, strict=True)]


def _target_column(source: Source, name: str, values: Values, decimal: str) -> Array:
    """Return a column as text, without blanks around it; objects, because one long text would make all of them long."""
    texts = ["" if value is None else str(value).strip() for value in values]
    if "" in texts:
        source.refuse(name, texts.index(""), "the target is missing", InvalidValueError)
    if decimal != ".":
        plain = [with_point(text, decimal) for text in texts]
        texts = [text if one is None or not is_number(one) else one for text, one in zip(texts, plain, strict=True)]
    return np.array(texts, dtype=object)
