"""Class weights: how much each class counts in the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.errors import InvalidTypeError, InvalidValueError, ShapeError, shown
from gpunet.network import Network
from gpunet.validation import check_no_underflow, check_normal, check_number, read_array

Array = npt.NDArray[Any]


def weigh_classes(
    network: Network, class_weight: Mapping[Any, float] | npt.ArrayLike | str | None, labels: Array | None
) -> Array | None:
    """Return a weight per class, (c,), of the network's dtype, on its device; None for equal weights.

    Parameters
    ----------
    network : Network
    class_weight : mapping, array_like (c,), "balanced" or None
        A mapping gives some labels their weight and the others 1. ``"balanced"`` gives n / (c' count of the label)
        with c' the number of labels that occur.
    labels : array or None
        int32, (n,), on the device; or the probabilities of the classes, (n, c), there or on the host. None where nobody
        knows them yet.

    Raises
    ------
    InvalidValueError, InvalidTypeError, ShapeError
    """
    if class_weight is None:
        return None
    if not network.is_classifier:
        raise InvalidValueError(f"class_weight: a network with loss={network.loss!r} has no classes. Expected None.")
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise InvalidValueError(f"class_weight: {class_weight!r} is not known. Expected 'balanced'.")
        if labels is None:
            raise InvalidValueError(
                "class_weight: 'balanced' counts all labels, and batches= bring them one by one. Expected a mapping or "
                "one weight per class."
            )
        weights = _balanced(network, labels)
    else:
        weights = _given(network, class_weight)
    return network.backend.asarray(weights.astype(network.dtype))


def _given(network: Network, class_weight: Mapping[Any, float] | npt.ArrayLike) -> Array:
    classes = network.layer_sizes[-1]
    weights = np.ones(classes, network.dtype)
    if isinstance(class_weight, Mapping):
        known = range(classes) if network.classes is None else network.classes.tolist()
        places = {label: place for place, label in enumerate(known)}
        for label, weight in class_weight.items():
            if label not in places:
                expected = f"0 to {classes - 1}" if network.classes is None else shown(known)
                raise InvalidValueError(f"class_weight: label {shown(label)} is not one of {expected}.")
            weights[places[label]] = _check_weight(label, weight, network.dtype)
        return weights
    values = read_array("class_weight", network.on_host("class_weight", class_weight))
    if values.dtype.kind not in "iuf":
        got = f"dtype {values.dtype}" if values.ndim else shown(class_weight)
        raise InvalidTypeError(f"class_weight: got {got}. Expected a mapping, numbers or 'balanced'.")
    if values.shape != (classes,):
        raise ShapeError(f"class_weight: got shape {values.shape}. Expected one weight per class, shape ({classes},).")
    for label, weight in enumerate(values):
        weights[label] = _check_weight(label, weight, network.dtype)
    return weights


def combine_weights(
    network: Network, per_class: Array | None, labels: Array, sample_weight: Array | None
) -> Array | None:
    """Return one weight per row: that of the row's class times the row's own; None where all are 1.

    Arrays are on the network's device. Rows of probabilities have their own alone: the classes count within the loss.
    """
    if per_class is None or labels.ndim > 1:
        return sample_weight
    with network.backend.array_module():
        per_row = weigh_rows(np.take(per_class, labels), sample_weight)
        if not per_row.any():
            raise InvalidValueError("class_weight: every row has weight 0. Expected at least one above 0.")
        return network.backend.asarray(per_row)


def weigh_rows(per_row: Array, sample_weight: Array | None, argument: str = "class_weight") -> Array:
    """Return factors for rows, as the weights of their classes, which change, multiplied by the rows' own, or raise."""
    positive = per_row > 0
    with np.errstate(over="ignore"):
        if sample_weight is not None:
            positive &= sample_weight > 0
            per_row *= sample_weight
        total = float(per_row.sum())
    if not np.isfinite(total):
        raise InvalidValueError(f"{argument}: the sum of the rows' weights is too large for {per_row.dtype}.")
    check_no_underflow(argument, per_row, positive)
    return per_row


def mean_exponent(weights: Array) -> int:
    """Return e such that weights / 2^e are about 1 in the mean, and none is subnormal: all keep their digits.

    The gradient of a batch in shards is of sum_i w_i l_i / rows until the weights of all shards are known: in half
    precision it overflows, or vanishes, where they are far from 1.

    Parameters
    ----------
    weights : ndarray, (n,)
        On the host, at least 0; where all are 0, e is 0.
    """
    positive = weights[weights > 0]
    if not positive.size:
        return 0
    mean, smallest = float(weights.mean(dtype=np.float64)), float(positive.min())
    limits = np.finfo(weights.dtype)
    return min(math.frexp(mean)[1], math.frexp(smallest)[1] - 1 - int(limits.minexp), int(limits.maxexp) - 2)


def _check_weight(label: Any, weight: Any, dtype: np.dtype[Any]) -> float:
    number = check_number(f"class_weight[{label}]", weight, maximum=float(np.finfo(dtype).max))
    if number > 0:
        check_normal(f"class_weight[{label}]", number, dtype)
    return number


def _balanced(network: Network, labels: Array) -> Array:
    with network.backend.array_module():
        if labels.ndim > 1:
            occurrences = network.backend.asarray(labels.sum(axis=0, dtype=np.float64))
        else:
            occurrences = network.backend.asarray(np.bincount(labels, minlength=network.layer_sizes[-1]))
    counts = network.backend.to_numpy(occurrences)
    present = counts > 0
    weights = np.ones(len(counts))
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights
