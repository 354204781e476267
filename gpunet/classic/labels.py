"""Labels of any kind: one per row, two classes as -1 and +1."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from gpunet.validation import read_array

Array = npt.NDArray[Any]

_LABELS_SHOWN = 6


def check_label_vector(argument: str, y: npt.ArrayLike, rows: int) -> Array:
    """Return labels of any kind (numbers, text, booleans) as an array (rows,), or raise.

    Raises
    ------
    ShapeError
        Not one label per row.
    InvalidTypeError
        Objects that are not all text, or all numbers of one kind; complex numbers, dates, masked labels.
    NonFiniteError
        NaN or infinity.
    """
    labels = read_array(argument, y)
    if labels.dtype == object and labels.ndim == 1:  # text, or a data frame's column that once held other things
        kinds = set(map(type, labels))
        if len(kinds) == 1 and issubclass(kinds.pop(), (str, int, float)):
            labels = np.array(labels.tolist())
    if labels.ndim != 1:
        hint = f" Use {argument}.ravel()." if labels.ndim == 2 and labels.shape[1] == 1 else ""
        raise ShapeError(f"{argument}: got shape {labels.shape}. Expected one label per row, shape ({rows},).{hint}")
    if len(labels) != rows:
        raise ShapeError(f"{argument}: got {len(labels)} labels for {rows} rows. Expected one per row.")
    if labels.dtype.kind not in "iufbU":
        raise InvalidTypeError(f"{argument}: got dtype {labels.dtype}. Expected labels: numbers, text or booleans.")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        row = int(np.argmax(~np.isfinite(labels)))
        raise NonFiniteError(f"{argument}: {labels[row]} in row {row}. Expected finite labels.")
    return labels


def encode_two_classes(argument: str, y: npt.ArrayLike, rows: int, classes: Array | None = None) -> tuple[Array, Array]:
    """Return the two labels, sorted, and each row's label as -1.0 or +1.0, float64 (rows,).

    Labels -1 and +1 stand for themselves; of any other two, the one that sorts last becomes +1.

    Parameters
    ----------
    argument : str
    y : array_like, (rows,)
    rows : int
    classes : ndarray, (2,), or None
        The two labels, where they are known and ``y`` may lack one of them.

    Raises
    ------
    InvalidValueError
        Not exactly two different labels, or one that is not known; the message names them.
    ShapeError, InvalidTypeError, NonFiniteError
        See :func:`check_label_vector`.
    """
    labels = check_label_vector(argument, y, rows)
    if classes is None:
        classes = np.unique(labels)
        if len(classes) != 2:
            shown = ", ".join(repr(label) for label in classes[:_LABELS_SHOWN].tolist())
            more = ", ..." if len(classes) > _LABELS_SHOWN else ""
            count = f"{len(classes)} class{'es' if len(classes) != 1 else ''}"
            raise InvalidValueError(f"{argument}: got {count} ({shown}{more}). Expected exactly two classes.")
    strange = (labels != classes[0]) & (labels != classes[1])
    if strange.any():
        row = int(np.argmax(strange))
        raise InvalidValueError(
            f"{argument}: label {labels.tolist()[row]!r} in row {row} is not known. Expected one of {classes.tolist()}."
        )
    return classes, np.where(labels == classes[1], 1.0, -1.0)
