"""What a data set is, before and after its targets are turned into labels or numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from gpunet.data.line_numbers import line_number
from gpunet.fingerprint import fingerprint

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RawData:
    """Features and targets as they were read.

    Attributes
    ----------
    features : ndarray of float64, (n, d)
        Finite.
    targets : ndarray of integers, floats, booleans or text, (n,), or None
        Those of a table are text, as it is written, without blanks around it.
    feature_names : list of str
        d of them, all different.
    name : str
        What the data set is called: ``"digits"``, the file name without its ending.
    kind : str
        ``"images"``, ``"table"`` (CSV) or ``"arrays"`` (NPZ).
    path : Path or None
        The file.
    target_name : str or None
        The column of a table that holds the targets.
    largest : float or None
        What the features of images are divided by.
    """

    features: Array
    targets: Array | None
    feature_names: list[str]
    name: str
    kind: str
    path: Path | None = None
    target_name: str | None = None
    largest: float | None = None

    @property
    def target_place(self) -> str:
        """Where the targets come from, for error messages."""
        if self.kind == "table":
            return f"{self.path}, column {self.target_name!r}"
        return self.name if self.path is None else f"{self.path}, array 'y'"

    def feature_place(self, column: int) -> str:
        """Where the features of a column come from, for error messages."""
        if self.kind == "table":
            return f"{self.path}, column {self.feature_names[column]!r}"
        return f"{self.path or self.name}, column {column}"

    def row_place(self, row: int) -> str:
        """Return where a row is found: the line of a table, the row of an array."""
        if self.kind == "table" and self.path is not None:
            return f"line {line_number(self.path, row)}"
        return f"row {row}"


@dataclass(frozen=True)
class DataSet:
    """Features and targets that a network can learn from.

    Attributes
    ----------
    features : ndarray of float64, (n, d)
        Not scaled.
    targets : ndarray or None
        Labels, int64 (n,), for classification; float64 (n,), not scaled, for regression.
    feature_names : list of str
    class_names : list of str, or None
        ``class_names[label]``; None for regression.
    raw : RawData
        Where it came from.
    """

    features: Array
    targets: Array | None
    feature_names: list[str]
    class_names: list[str] | None
    raw: RawData

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
        return fingerprint(*(array if rows is None else array[rows] for array in arrays))
