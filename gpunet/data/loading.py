"""From what the user names, a data set, a file or a DataFrame, to a :class:`DataSet`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpunet.data.archives import read_npz
from gpunet.data.choice import Wanted
from gpunet.data.datasets import DataSet, RawData
from gpunet.data.named import NAMED_SETS
from gpunet.data.options import TableOptions, check_missing, check_names
from gpunet.data.preparation import Preparation
from gpunet.data.tables import PARQUET, SEPARATORS, read_parquet, read_rows, read_text, table_suffix
from gpunet.data.targets import known_labels, learn_targets, read_numbers
from gpunet.errors import InvalidValueError, MissingFileError, ShapeError, counted, unknown_name, wrong_ending

SUFFIXES = (*SEPARATORS, *PARQUET, ".npz")


def load_for_training(
    source: Any,
    *,
    target: str | None = None,
    task: str | None = None,
    options: TableOptions | None = None,
    categorical: Sequence[str] = (),
    missing: str | None = None,
) -> DataSet:
    """Load a data set to learn from: its targets decide which classes there are.

    Parameters
    ----------
    source : str or DataFrame
        ``"digits"``, ``"mnist5k"``, a table (``.csv``, ``.tsv``, ``.txt`` or ``.data``, ``.gz`` or not, or
        ``.parquet``), an ``.npz`` file of arrays, or a DataFrame of pandas, polars or Arrow.
    target : str or None
        The target column; a table needs it, nothing else takes it.
    task : str or None
        ``"classification"``, ``"regression"``, or None: classification, unless the targets are numbers with a
        decimal point, which are refused.
    options : TableOptions or None
        How a table is read, and which columns are features.
    categorical : sequence of str
        The columns of a table whose values are categories, to be encoded one-hot; ``"auto"`` among them stands for
        those that hold text, of at most 100 categories.
    missing : str or None
        ``"mean"``, ``"median"`` or ``"most_frequent"`` number of the training rows, to be filled in for missing ones;
        None refuses such.

    Raises
    ------
    GpunetError, OSError
        See ``gpunet.data.tables.read_text`` and ``gpunet.data.targets.learn_targets``.
    """
    check_names("categorical", categorical)
    check_missing(missing)
    wanted = Wanted(
        target,
        categorical=categorical,
        accept_missing=missing is not None,
        options=TableOptions() if options is None else options,
    )
    raw = _read(source, wanted)
    targets, class_names = learn_targets(raw, task)
    return DataSet(raw.features, targets, raw.feature_names, class_names, raw, missing)


def load_for_model(
    source: Any, preparation: Preparation, *, need_target: bool, options: TableOptions | None = None
) -> DataSet:
    """Load data for a trained model: columns, classes, task and what becomes of text are the model's.

    Parameters
    ----------
    source : str or DataFrame
        As :func:`load_for_training`.
    preparation : Preparation
        The model's.
    need_target : bool
        Whether targets must be there. Where they need not be, they are not read.
    options : TableOptions or None
        How a table is read, and which columns are left out beside those that were left out in training.

    Raises
    ------
    GpunetError, OSError
        Columns or classes that the model does not have, and all that :func:`load_for_training` raises.

    Warns
    -----
    UnknownCategoryWarning
        A text that no training row had.
    """
    raw = _read(source, wanted_by(preparation, need_target=need_target, options=options))
    if preparation.one_hot is not None and raw.source is None:
        raise InvalidValueError(f"data: {source!r} is no table. The model was trained on {preparation.data_set!r}.")
    expected = len(preparation.feature_names)
    if raw.features.shape[1] != expected:
        raise ShapeError(
            f"{raw.path or raw.name}: has {counted(raw.features.shape[1], 'feature')}. The model expects {expected}, "
            f"like {preparation.data_set!r}."
        )
    names = preparation.class_names
    targets = None
    if need_target:
        targets = read_numbers(raw) if names is None else known_labels(raw, names)
    if preparation.one_hot is not None:
        preparation.one_hot.warn_of_unknown(raw)
    return DataSet(raw.features, targets, preparation.feature_names, names, raw)


def wanted_by(preparation: Preparation, *, need_target: bool, options: TableOptions | None = None) -> Wanted:
    """Return what a model asks of a table."""
    return Wanted(
        preparation.target_name,
        need_target,
        preparation.feature_names,
        preparation.column_names,
        () if preparation.one_hot is None else list(preparation.one_hot.categories),
        preparation.imputation is not None,
        TableOptions() if options is None else options,
    )


def _read(source: Any, wanted: Wanted) -> RawData:
    if not isinstance(source, (str, Path)):
        return read_rows(source, wanted)
    source = str(source)
    path = Path(source)
    suffix = table_suffix(path)
    is_table = source not in NAMED_SETS and suffix in SUFFIXES and suffix != ".npz"
    if is_table and path.exists():
        if wanted.need_target and wanted.target is None and wanted.expected is not None:
            raise InvalidValueError(
                f"{path}: the model was not trained on a table, so it knows no target column for it."
            )
        return read_parquet(path, wanted) if suffix in PARQUET else read_text(path, wanted)
    if source not in NAMED_SETS and suffix not in SUFFIXES:
        if path.exists():
            raise wrong_ending("data", path, SUFFIXES)
        endings = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise InvalidValueError(f"{unknown_name('data', source, NAMED_SETS)} A file needs the ending {endings}.")
    if source not in NAMED_SETS and not path.exists():
        raise MissingFileError(f"data: there is no file {source!r}.")
    _refuse_choices(source, wanted)
    if source in NAMED_SETS:
        return NAMED_SETS[source]()
    return read_npz(path, wanted.need_target, wanted.accept_missing)


def _refuse_choices(source: str, wanted: Wanted) -> None:
    """Raise if something was chosen of the columns of what has none."""
    given, usual = asdict(wanted.options), asdict(TableOptions())
    chosen = [name for name, value in given.items() if value != usual[name]]
    if wanted.expected is None:
        chosen = ["target"] * (wanted.target is not None) + ["categorical"] * bool(wanted.categorical) + chosen
    if chosen:
        raise InvalidValueError(f"{chosen[0]}: only a table has columns to choose from, and {source!r} is none.")
