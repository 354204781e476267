"""From what the user names, a data set or a file, to a :class:`DataSet`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpunet.data.datasets import DataSet, RawData
from gpunet.data.named import NAMED_SETS
from gpunet.data.preparation import Preparation
from gpunet.data.tables import read_csv, read_npz
from gpunet.data.targets import known_labels, learn_targets, read_numbers
from gpunet.errors import InvalidValueError, MissingFileError, ShapeError, unknown_name

SUFFIXES = (".csv", ".npz")


def load_for_training(source: str, *, target: str | None = None, task: str | None = None) -> DataSet:
    """Load a data set to learn from: its targets decide which classes there are.

    Parameters
    ----------
    source : str
        ``"digits"``, ``"mnist5k"``, or a ``.csv`` or ``.npz`` file.
    target : str or None
        The target column; a ``.csv`` file needs it, nothing else takes it.
    task : str or None
        ``"classification"``, ``"regression"``, or None: classification, unless the targets are numbers with a
        decimal point, which are refused.

    Raises
    ------
    GpunetError, OSError
        See :func:`gpunet.data.tables.read_csv` and :func:`gpunet.data.targets.learn_targets`.
    """
    if target is not None and Path(source).suffix.lower() != ".csv":
        raise InvalidValueError(f"target: only a .csv file has columns to choose from, and {source!r} is none.")
    raw = _read(source, target, None, need_target=True)
    targets, class_names = learn_targets(raw, task)
    return DataSet(raw.features, targets, raw.feature_names, class_names, raw)


def load_for_model(source: str, preparation: Preparation, *, need_target: bool) -> DataSet:
    """Load data for a trained model: columns, classes and task are the model's.

    Parameters
    ----------
    source : str
        ``"digits"``, ``"mnist5k"``, or a ``.csv`` or ``.npz`` file.
    preparation : Preparation
        The model's.
    need_target : bool
        Whether targets must be there. Where they need not be, they are not read.

    Raises
    ------
    GpunetError, OSError
        Columns or classes that the model does not have, and all that :func:`load_for_training` raises.
    """
    raw = _read(source, preparation.target_name, preparation.feature_names, need_target=need_target)
    expected = len(preparation.feature_names)
    if raw.features.shape[1] != expected:
        raise ShapeError(
            f"{raw.path or raw.name}: has {raw.features.shape[1]} features. The model expects {expected}, "
            f"like {preparation.data_set!r}."
        )
    names = preparation.class_names
    targets = None
    if need_target:
        targets = read_numbers(raw) if names is None else known_labels(raw, names)
    return DataSet(raw.features, targets, preparation.feature_names, names, raw)


def _read(source: str, target: str | None, expected: Sequence[str] | None, need_target: bool) -> RawData:
    if source in NAMED_SETS:
        return NAMED_SETS[source]()
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        if path.exists():
            raise InvalidValueError(f"data: {source!r} ends in {path.suffix!r}. Expected a .csv or .npz file.")
        raise InvalidValueError(f"{unknown_name('data', source, NAMED_SETS)} A file needs the ending .csv or .npz.")
    if not path.exists():
        raise MissingFileError(f"data: there is no file {source!r}.")
    if suffix == ".npz":
        return read_npz(path, need_target)
    if need_target and target is None and expected is not None:
        raise InvalidValueError(f"{path}: the model was not trained on a table, so it knows no target column for it.")
    return read_csv(path, target, expected, need_target)
