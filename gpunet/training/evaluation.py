"""Loss and accuracy of a network on data, in inference mode."""

from __future__ import annotations

import math
from collections.abc import Iterator
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
    scores = Scores(network, data)
    scores.run()
    return scores.read(network.backend.to_numpy(scores.results))


class Scores:
    """Loss and right labels of a network on data, chunk by chunk; on the device until somebody reads them.

    Parameters
    ----------
    network : Network
    data : DeviceData
    results : array of float64, (Scores.size(network, data),), or None
        Where they are left; None allocates it.
    """

    def __init__(self, network: Network, data: DeviceData, results: Array | None = None) -> None:
        self.network = network
        self.data = data
        size = self.size(network, data)
        self.results = network.backend.zeros(size, np.float64) if results is None else results
        self._chunks = [slice(start, min(start + _ROWS, data.rows)) for start in range(0, data.rows, _ROWS)]

    @staticmethod
    def size(network: Network, data: DeviceData) -> int:
        """Return how many numbers the results are."""
        return -(-data.rows // _ROWS) * (loss_size(network) + 1)

    def run(self) -> None:
        """Evaluate the network as it is; a device may record this."""
        network, data = self.network, self.data
        for chunk, result in zip(self._chunks, self._by_chunk(self.results), strict=True):
            outputs = network.forward(data.features[chunk])
            targets, weights = data.targets[chunk], None if data.weights is None else data.weights[chunk]
            network.loss_layer(outputs, targets, weights)
            network.backend.copy(network.loss_layer.value, as_loss(network, result[:-1]))
            if network.has_probabilities:
                network.loss_layer.score(outputs, targets, weights, result[-1:])

    def read(self, results: Array) -> Evaluation:
        """Return what was found, from the results on the host."""
        network, data = self.network, self.data
        found = list(self._by_chunk(results))
        losses = [[float(number) for number in as_loss(network, result[:-1])] for result in found]
        total = math.fsum(weight for _, weight in losses)
        accuracy = None
        if network.has_probabilities:
            labels_per_row = data.targets.size // data.rows
            accuracy = math.fsum(float(result[-1]) for result in found) / (total * labels_per_row)
        return Evaluation(math.fsum(loss * weight for loss, weight in losses) / total, accuracy, data.rows)

    def _by_chunk(self, results: Array) -> Iterator[Array]:
        size = loss_size(self.network) + 1
        return (results[number * size : (number + 1) * size] for number in range(len(self._chunks)))


def loss_size(network: Network) -> int:
    """Return how many float64 hold the bytes of what a loss writes."""
    return network.loss_layer.value.nbytes // np.dtype(np.float64).itemsize


def as_loss(network: Network, numbers: Array) -> Array:
    """Return a view of ``loss_size`` float64 as what a loss writes, (2,)."""
    return numbers.view(network.loss_layer.value.dtype)
