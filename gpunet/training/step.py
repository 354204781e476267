"""One training step on fixed buffers: gather, forward, loss, backward, clip, update (lecture row L5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation
from gpunet.network import Network
from gpunet.optimizers import Optimizer
from gpunet.recorded_step import RecordedStep
from gpunet.training.evaluation import DeviceData

Array = npt.NDArray[Any]


class TrainingStep:
    """The step for batches of one size.

    The first call runs operation by operation; a device may record the next and repeat that as one launch
    (:class:`~gpunet.recorded_step.RecordedStep`). All that changes from step to step (rows, learning rate, step count)
    is copied into arrays beforehand; what callbacks change in network and optimiser in between counts from the next
    step on.

    Parameters
    ----------
    network : Network
    optimizer : Optimizer
        Attached to the network's parameters.
    data : DeviceData
    rows : int
        The batch size.
    l2 : float
    clip_norm : float or None
        The largest norm that the gradient of J may have.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        data: DeviceData,
        rows: int,
        *,
        l2: float,
        clip_norm: float | None,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.data = data
        self._l2 = l2
        self._clip_norm = clip_norm
        backend = network.backend
        self._index = backend.zeros(rows, np.int32)
        self._features = backend.zeros((rows, *data.features.shape[1:]), data.features.dtype)
        self._targets = backend.zeros((rows, *data.targets.shape[1:]), data.targets.dtype)
        self._weights = None if data.weights is None else backend.zeros(rows, data.weights.dtype)
        self._clip = None if clip_norm is None else backend.zeros(1, network.dtype)
        self._do = RecordedStep(backend)

    def __call__(self, index: Array) -> float:
        """Train on the rows ``index`` (int32, on the host) and return the learning rate used.

        The loss is in ``network.loss_layer.value``, on the device.
        """
        self.network.backend.copy(index, self._index)
        rate = self.optimizer.advance()
        try:
            self._do(self._run, self._read)
        except BaseException:  # the update comes last: it was not made, as of memory that ran out
            self.optimizer.step -= 1
            raise
        self.network.set_step(self.network.steps + 1)
        return rate

    def loss_after_update(self) -> float:
        """Return the loss, in inference mode, that the updated weights give for the last batch."""
        network = self.network
        network.loss_layer(network.forward(self._features), self._targets, self._weights)
        return float(network.backend.to_numpy(network.loss_layer.value)[0])

    def _run(self) -> None:
        network, backend = self.network, self.network.backend
        backend.gather_rows(self.data.features, self._index, self._features)
        backend.gather_rows(self.data.targets, self._index, self._targets)
        if self._weights is not None and self.data.weights is not None:
            backend.gather_rows(self.data.weights, self._index, self._weights)

        outputs = network.forward(self._features, training=True)
        network.backward(network.loss_layer(outputs, self._targets, self._weights))

        weight_count = network.layout.weight_count
        if self._clip is not None and self._clip_norm is not None:
            backend.clip_factor(
                network.flat_parameters, network.flat_gradients, weight_count, self._l2, self._clip_norm, self._clip
            )
        self.optimizer.update(
            network.flat_parameters,
            network.flat_gradients,
            weight_count,
            self._l2,
            self._clip,
            network.loss_layer.value,
        )

    def _read(self) -> Iterator[object]:
        """Yield the objects whose attributes :meth:`_run` reads, but for the network, whose own stay.

        This one is not among them: it would keep itself alive.
        """
        network = self.network
        yield from (self.data, self.optimizer, network.backend, network.workspace, network.layout)
        for part in (*network.layers, network.loss_layer):
            yield part
            yield from (value for value in vars(part).values() if isinstance(value, Activation))
