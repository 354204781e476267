"""Class weights: how much each class counts in the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.errors import InvalidTypeError, InvalidValueError, ShapeError, shown
from gpunet.network import Network
from gpunet.validation import check_no_underflow, check_normal, check_number, read_array

Array = npt.NDArray[Any]


def weigh_classes(
    network: Network, class_weight: Mapping[int, float] | npt.ArrayLike | str | None, labels: Array
) -> Array | None:
    """Return a weight per class, (c,), of the network's dtype; None for equal weights.

    Parameters
    ----------
    network : Network
    class_weight : mapping, array_like (c,), "balanced" or None
        A mapping gives some labels their weight and the others 1. ``"balanced"`` gives n / (c' count of the label)
        with c' the number of labels that occur.
    labels : ndarray of int32, (n,)

    Raises
    ------
    InvalidValueError, InvalidTypeError, ShapeError
    """
    if class_weight is None:
        return None
    if not network.is_classifier:
        raise InvalidValueError(f"class_weight: a network with loss={network.loss!r} has no classes. Expected None.")
    classes = network.layer_sizes[-1]
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise InvalidValueError(f"class_weight: {class_weight!r} is not known. Expected 'balanced'.")
        return _balanced(labels, classes).astype(network.dtype)
    weights = np.ones(classes, network.dtype)
    if isinstance(class_weight, Mapping):
        for label, weight in class_weight.items():
            if not isinstance(label, (int, np.integer)) or not 0 <= label < classes:
                raise InvalidValueError(f"class_weight: label {shown(label)} is not one of 0 to {classes - 1}.")
            weights[label] = _check_weight(label, weight, network.dtype)
        return weights
    values = read_array("class_weight", class_weight)
    if values.dtype.kind not in "iuf":
        got = f"dtype {values.dtype}" if values.ndim else shown(class_weight)
        raise InvalidTypeError(f"class_weight: got {got}. Expected a mapping, numbers or 'balanced'.")
    if values.shape != (classes,):
        raise ShapeError(f"class_weight: got shape {values.shape}. Expected one weight per class, shape ({classes},).")
    for label, weight in enumerate(values):
        weights[label] = _check_weight(label, weight, network.dtype)
    return weights


def combine_weights(per_class: Array | None, labels: Array, sample_weight: Array | None) -> Array | None:
    """Return one weight per row: that of the row's class times the row's own; None where all are 1."""
    if per_class is None:
        return sample_weight
    per_row: Array = per_class[labels]
    positive = per_row > 0
    with np.errstate(over="ignore"):
        if sample_weight is not None:
            positive &= sample_weight > 0
            per_row *= sample_weight
        total = per_row.sum()
    if not np.isfinite(total):
        raise InvalidValueError(f"class_weight: the sum of the rows' weights is too large for {per_row.dtype}.")
    if not positive.any():
        raise InvalidValueError("class_weight: every row has weight 0. Expected at least one above 0.")
    check_no_underflow("class_weight", per_row, positive)
    return per_row


def _check_weight(label: Any, weight: Any, dtype: np.dtype[Any]) -> float:
    number = check_number(f"class_weight[{label}]", weight, maximum=float(np.finfo(dtype).max))
    if number > 0:
        check_normal(f"class_weight[{label}]", number, dtype)
    return number


def _balanced(labels: Array, classes: int) -> Array:
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    weights = np.ones(classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights
