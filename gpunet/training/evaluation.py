"""Loss and accuracy of a network on data, in inference mode."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.network import Network, on_network

Array = npt.NDArray[Any]

_ROWS = 4096


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found.

    Attributes
    ----------
    loss : float
        The data term, without L2.
    accuracy : float or None
        Weighted share of labels that :meth:`gpunet.Network.predict` gets right; None for squared error. With sigmoid
        cross-entropy a row has c labels, all of them counted (1 - Hamming loss), and a target above 1/2 stands for 1.
    rows : int
    """

    loss: float
    accuracy: float | None
    rows: int


class DeviceData:
    """Features, targets and weights where the network runs, checked once.

    What is there already, of the network's dtype and C-contiguous, is not copied: it must not change meanwhile.

    Parameters
    ----------
    network : Network
    X, y : array_like
        See :meth:`gpunet.Network.check_inputs` and :meth:`gpunet.Network.check_targets`.
    sample_weight : array_like or None
    prefix : str
        Goes before the argument names in error messages: ``"validation "``.

    Attributes
    ----------
    features, targets : array
        On the device.
    weights : array, (rows,), or None
        On the device.
    rows : int
    """

    def __init__(
        self,
        network: Network,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        prefix: str = "",
    ) -> None:
        features = network.check_inputs(X, f"{prefix}X")
        self.rows = features.shape[0]
        targets = network.check_targets(y, self.rows, f"{prefix}y")
        weights = None
        if sample_weight is not None:
            weights = network.check_weights(sample_weight, self.rows, f"{prefix}sample_weight")
        to_device = network.backend.asarray
        self.features = to_device(features)
        self.targets = to_device(targets)
        self.weights = None if weights is None else to_device(weights)


@on_network
def evaluate(
    network: Network, X: npt.ArrayLike, y: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None
) -> Evaluation:
    """Return loss and accuracy of a network on data.

    Parameters
    ----------
    network : Network
    X : array_like, (n, d)
    y : array_like
        Labels (n,), or numbers (n, c) for squared error, from 0 to 1 for sigmoid cross-entropy.
    sample_weight : array_like, (n,), or None
        At least 0, not all 0; loss and accuracy are weighted means.

    Returns
    -------
    Evaluation

    Raises
    ------
    ShapeError, InvalidTypeError, InvalidValueError
        The data do not fit the network.
    NonFiniteError
        The data are not finite; or an output is NaN or infinite, as in :meth:`gpunet.Network.predict`. A loss of finite
        outputs that is too large for the network's dtype is infinity.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # told with its row instead
        found = evaluate_on_device(network, DeviceData(network, X, y, sample_weight))
    if not math.isfinite(found.loss):
        network.finite_logits(X)
    return found


def evaluate_on_device(network: Network, data: DeviceData) -> Evaluation:
    """Return loss and accuracy of a network on data that are on its device already."""
    losses, weights, right = [], [], []
    for start in range(0, data.rows, _ROWS):
        rows = slice(start, min(start + _ROWS, data.rows))
        outputs = network.forward(data.features[rows])
        targets, row_weights = data.targets[rows], None if data.weights is None else data.weights[rows]
        network.loss_layer(outputs, targets, row_weights)
        value = network.backend.to_numpy(network.loss_layer.value)
        losses.append(float(value[0]) * float(value[1]))
        weights.append(float(value[1]))
        if network.has_probabilities:
            with network.backend.array_module():
                counts = network.loss_layer.count_right(outputs, targets)
                right.append(float((counts if row_weights is None else counts * row_weights).sum()))
    total = math.fsum(weights)
    labels_per_row = data.targets.size // data.rows
    accuracy = math.fsum(right) / (total * labels_per_row) if network.has_probabilities else None
    return Evaluation(math.fsum(losses) / total, accuracy, data.rows)
