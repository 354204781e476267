"""What a data set is, before and after its targets are turned into labels or numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.data.source import Source
from gpunet.fingerprint import fingerprint

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RawData:
    """Features and targets as they were read.

    Attributes
    ----------
    features : ndarray of float64, (n, d)
        Finite, but for NaN where a value is missing; of text, its place among the column's categories.
    targets : ndarray of integers, floats, booleans or text, (n,), or None
        Those of a table are text, as it is written, without blanks around it.
    feature_names : list of str
        d of them, all different.
    name : str
        What the data set is called: ``"digits"``, the file name without its ending.
    kind : str
        ``"images"``, ``"table"`` (text, Parquet or a DataFrame) or ``"arrays"`` (NPZ).
    path : Path or None
        The file.
    target_name : str or None
        The column of a table that holds the targets.
    largest : float or None
        What the features of images are divided by.
    categories : mapping of str to sequence of str
        The different values of each column of text, sorted.
    column_names : list of str, or None
        All columns of a table, in its order.
    source : Source or None
        How messages name the places of a table.
    """

    features: Array
    targets: Array | None
    feature_names: list[str]
    name: str
    kind: str
    path: Path | None = None
    target_name: str | None = None
    largest: float | None = None
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    column_names: list[str] | None = None
    source: Source | None = None

    @property
    def target_place(self) -> str:
        """Where the targets come from, for error messages."""
        if self.source is not None:
            return f"{self.source.label}, column {self.target_name!r}"
        return self.name if self.path is None else f"{self.path}, array 'y'"

    def feature_place(self, column: int) -> str:
        """Where the features of a column come from, for error messages."""
        if self.source is not None:
            return f"{self.source.label}, column {self.feature_names[column]!r}"
        return f"{self.path or self.name}, column {column}"

    def row_place(self, row: int) -> str:
        """Return where a row is found: the line of a text file, the row of anything else."""
        return f"row {row}" if self.source is None else self.source.row(row)


@dataclass(frozen=True)
class DataSet:
    """Features and targets that a network can learn from.

    Attributes
    ----------
    features : ndarray of float64, (n, d)
        Not scaled; what ``RawData`` says of them.
    targets : ndarray or None
        Labels, int64 (n,), for classification; float64 (n,), not scaled, for regression.
    feature_names : list of str
    class_names : list of str, or None
        ``class_names[label]``; None for regression.
    raw : RawData
        Where it came from.
    missing : str or None
        How missing values are to be filled in, see ``gpunet.data.imputation.Imputation``; None: there are none.
    """

    features: Array
    targets: Array | None
    feature_names: list[str]
    class_names: list[str] | None
    raw: RawData
    missing: str | None = None

    @property
    def name(self) -> str:
        """What the data set is called."""
        return self.raw.name

    @property
    def kind(self) -> str:
        """``"images"``, ``"table"`` or ``"arrays"``."""
        return self.raw.kind

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.features.shape[0])

    def fingerprint(self, rows: Array | None = None) -> str:
        """Return a digest of features and targets, of all rows or of some in that order.

        Parameters
        ----------
        rows : ndarray of int, or None
        """
        arrays = [array for array in (self.features, self.targets) if array is not None]
        names = [np.array([name, *categories]) for name, categories in sorted(self.raw.categories.items())]
        return fingerprint(*(array if rows is None else array[rows] for array in arrays), *names)
