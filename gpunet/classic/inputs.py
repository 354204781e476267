"""What estimators are given, checked where it enters: names of columns, values of X, labels.

Names of columns follow scikit-learn's rule: those of ``fit``, in the same order. Some messages are scikit-learn's own,
word for word: its tools look for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend, select_backend
from gpunet.classic.scikit_learn import column_vector_warning
from gpunet.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError, counted, warn_user
from gpunet.frames import frame_numbers, table_columns
from gpunet.labels import check_one_per_row, read_labels
from gpunet.validation import check_features, is_on_cuda, read_array

Array = npt.NDArray[Any]

# Scores are sums of products of features and of weights that are sums of features: those have to be finite too.
_LARGEST_FEATURE = 1e140
_NAMES_SHOWN = 5
_LABELS_SHOWN = 6


def column_names(argument: str, values: object) -> Array | None:
    """Return the names of a data frame's columns, object (d,); None where it has none, or none that are text.

    Raises
    ------
    InvalidTypeError
        Some names are text and some are not.
    """
    names = table_columns(values)
    are_text = [isinstance(name, str) for name in names or ()]
    if names is None or not any(are_text):
        return None
    if not all(are_text):
        odd = names[are_text.index(False)]
        raise InvalidTypeError(
            f"{argument}: got {odd!r} for a column's name beside names that are text. Expected all of them to be text, "
            f"or none: {argument}.columns = {argument}.columns.astype(str) makes them."
        )
    return np.array(names, dtype=object)


def check_same_names(argument: str, names: Array | None, fitted: Array | None, estimator: str) -> None:
    """Compare the names of columns with those of ``fit``; warn (UserWarning) where only one of the two is known.

    Raises
    ------
    InvalidValueError
        They differ, or their order does; the message says in what.
    """
    if names is None and fitted is None:
        return
    if names is None or fitted is None:
        known, other = ("has", "without") if fitted is None else ("has no", "with")
        warn_user(
            f"{argument}: {known} names for its columns, but this {estimator} was fitted {other} such names: they "
            "go by their order."
        )
        return
    if np.array_equal(names, fitted):
        return
    unseen = [name for name in names if name not in set(fitted)]
    missing = [name for name in fitted if name not in set(names)]
    if unseen or missing:
        differences = [f"{what} {_shown(some)}" for what, some in (("unknown", unseen), ("missing", missing)) if some]
        raise InvalidValueError(f"{argument}: columns that differ from those of fit: {'; '.join(differences)}.")
    hint = f" Use {argument}[model.feature_names_in_]." if len(set(names)) == len(names) == len(fitted) else ""
    raise InvalidValueError(
        f"{argument}: got the columns {_shown(list(names))}. Expected those of fit in their order, "
        f"{_shown(list(fitted))}.{hint}"
    )


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(map(repr, names[:_NAMES_SHOWN])) + more


def read_numbers(argument: str, values: object) -> Array:
    """Return any array-like as an array; objects that are numbers, also in a table's columns, as float64.

    Raises
    ------
    InvalidTypeError
        Masked or sparse values, or objects that are no numbers; text in an array is left to the caller.
    NonFiniteError
        A table lacks a value.
    InvalidValueError
        Complex numbers.
    ShapeError
        Rows of different lengths.
    """
    array = read_array(argument, values)
    if array.dtype.kind == "c":  # for scikit-learn it is the value that is wrong, not the type
        raise InvalidValueError(f"{argument}: Complex data not supported, got dtype {array.dtype}.")
    if array.dtype == object and table_columns(values) and (found := frame_numbers(argument, values)) is not None:
        return found
    if array.dtype != object or array.ndim == 0 or any(isinstance(value, (str, bytes)) for value in array.flat):
        return array
    try:
        return array.astype(np.float64)
    except Exception as error:  # an object's own methods run here, and raise what they like
        raise InvalidTypeError(f"{argument}: got objects that are no numbers ({error}).") from None


def on_host(argument: str, values: npt.ArrayLike, device: str | Backend) -> npt.ArrayLike:
    """Return an array in CUDA memory as one of the host's, where the device is CUDA; others as they are."""
    if not is_on_cuda(values):
        return values
    backend = select_backend(device)
    return backend.to_numpy(backend.take(argument, values))


def read_features(argument: str, values: object, columns: int | None, dtype: npt.DTypeLike, estimator: str) -> Array:
    """Return ``values`` as a finite, C-contiguous (n, columns) array of ``dtype``.

    Parameters
    ----------
    columns : int or None
        What ``fit`` had; None takes any number.
    estimator : str
        Whose ``fit`` that was.

    Raises
    ------
    ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        See :func:`read_numbers` and :func:`gpunet.validation.check_features`.
    """
    array = read_numbers(argument, values)
    if columns is not None and array.ndim == 2 and array.shape[1] not in (0, columns):
        raise ShapeError(
            f"{argument} has {array.shape[1]} features, but {estimator} is expecting {columns} features as input."
        )
    return check_features(argument, array, None, dtype)


def check_moderate(argument: str, features: Array) -> None:
    """Raise InvalidValueError where a feature is so large that scores or squares of it would overflow."""
    row, column = np.unravel_index(np.abs(features).argmax(), features.shape)
    if abs(float(features[row, column])) > _LARGEST_FEATURE:
        raise InvalidValueError(
            f"{argument}: {features[row, column]} in row {row}, column {column} is too large to add up squares of such "
            f"numbers. Expected at most {_LARGEST_FEATURE:g}: scale {argument}."
        )


def check_given(argument: str, y: object) -> None:
    """Raise InvalidValueError where there are no targets."""
    if y is None:
        raise InvalidValueError(f"{argument}: this estimator requires y to be passed, but the target y is None.")


def check_label_vector(argument: str, y: npt.ArrayLike, rows: int, *, warns: bool = True) -> Array:
    """Return labels of any kind (numbers, text, booleans) as an array (rows,).

    One column of them, (rows, 1), will do: ``warns`` says whether it is warned of.

    Raises
    ------
    InvalidValueError
        None.
    ShapeError, NonFiniteError
        Not one label per row; NaN or infinity.
    InvalidTypeError
        Objects that are not all text, or all numbers of one kind; complex numbers, dates, masked labels.
    """
    check_given(argument, y)
    labels = read_labels(argument, y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
        if warns:
            warn_user(
                f"A column-vector {argument} was passed when a 1d array was expected: {argument}.ravel() makes it one.",
                column_vector_warning(),
            )
    check_one_per_row(argument, labels, rows)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        row = int(np.argmax(~np.isfinite(labels)))
        raise NonFiniteError(f"{argument}: {labels[row]} in row {row}. Expected finite labels.")
    return labels


def share_right(predicted: Array, y: npt.ArrayLike) -> float:
    """Return the fraction of the rows whose label is predicted, the score of every classifier."""
    return float(np.mean(predicted == check_label_vector("y", y, len(predicted), warns=False)))


def encode_classes(argument: str, y: npt.ArrayLike, rows: int) -> tuple[Array, Array]:
    """Return the labels that there are, sorted, and the number of each row's among them, (rows,).

    Raises
    ------
    InvalidValueError
        Fewer than two, or measurements: see :func:`_distinct`.
    ShapeError, InvalidTypeError, NonFiniteError
        See :func:`check_label_vector`.
    """
    classes, numbers = _distinct(argument, check_label_vector(argument, y, rows))
    if len(classes) < 2:
        raise InvalidValueError(f"{argument}: got {_classes_shown(classes)}. Expected at least two classes.")
    return classes, numbers


def _distinct(argument: str, labels: Array) -> tuple[Array, Array]:
    """Return :func:`encode_classes` of labels; raise where there are more than two with fractions: no labels."""
    classes, numbers = np.unique(labels, return_inverse=True)
    if classes.dtype.kind == "f" and len(classes) > 2 and (classes != np.trunc(classes)).any():
        raise InvalidValueError(
            f"{argument}: Unknown label type: continuous. Got {_classes_shown(classes)}. Expected labels; numbers with "
            "fractions are for a regressor."
        )
    return classes, numbers


def encode_two_classes(argument: str, y: npt.ArrayLike, rows: int, classes: Array | None = None) -> tuple[Array, Array]:
    """Return the two labels, sorted, and each row's label as -1.0 or +1.0, float64 (rows,).

    The label that sorts last becomes +1. ``classes`` are the two, where they are known and ``y`` may lack one of them.

    Raises
    ------
    InvalidValueError
        Not exactly two different labels, or one that is not known; the message names them.
    ShapeError, InvalidTypeError, NonFiniteError
        See :func:`check_label_vector`.
    """
    labels = check_label_vector(argument, y, rows)
    if classes is None:
        classes, _ = _distinct(argument, labels)
        if len(classes) > 2:
            raise InvalidValueError(
                f"{argument}: got {_classes_shown(classes)}. Only binary classification is supported. The type of the "
                "target is multiclass."
            )
        if len(classes) < 2:
            raise InvalidValueError(f"{argument}: got {_classes_shown(classes)}. Expected exactly two classes.")
    strange = (labels != classes[0]) & (labels != classes[1])
    if strange.any():
        row = int(np.argmax(strange))
        raise InvalidValueError(
            f"{argument}: label {labels.tolist()[row]!r} in row {row} is not known. Expected one of {classes.tolist()}."
        )
    return classes, np.where(labels == classes[1], 1.0, -1.0)


def _classes_shown(classes: Array) -> str:
    shown = ", ".join(repr(label) for label in classes[:_LABELS_SHOWN].tolist())
    more = ", ..." if len(classes) > _LABELS_SHOWN else ""
    return f"{counted(len(classes), 'class')} ({shown}{more})"
