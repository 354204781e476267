"""One training step on fixed buffers: gather, forward, loss, backward, clip, update (lecture row L5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.network import Network
from gpunet.optimizers import Optimizer
from gpunet.training.evaluation import DeviceData

Array = npt.NDArray[Any]


class TrainingStep:
    """The step for batches of one size.

    The first call runs operation by operation; the later ones repeat it through :meth:`Backend.capture`, which a
    device may turn into one launch. All that changes from step to step (rows, learning rate, step count) is copied
    into arrays beforehand.

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
        self.l2 = l2
        self.clip_norm = clip_norm
        backend = network.backend
        self._index = backend.zeros(rows, np.int32)
        self._features = backend.zeros((rows, *data.features.shape[1:]), data.features.dtype)
        self._targets = backend.zeros((rows, *data.targets.shape[1:]), data.targets.dtype)
        self._weights = None if data.weights is None else backend.zeros(rows, data.weights.dtype)
        self._clip = None if clip_norm is None else backend.zeros(1, network.dtype)
        self._replay: Callable[[], None] | None = None
        self._generation = -1

    def __call__(self, index: Array) -> float:
        """Train on the rows ``index`` (int32, on the host) and return the learning rate used.

        The loss is in ``network.loss_layer.value``, on the device.
        """
        self.network.backend.copy(index, self._index)
        rate = self.optimizer.advance()
        if self._replay is None or self._generation != self.network.workspace.generation:
            self._run()
            self._generation = self.network.workspace.generation
            self._replay = self.network.backend.capture(self._run)
        else:
            self._replay()
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
        if self._clip is not None and self.clip_norm is not None:
            backend.clip_factor(
                network.flat_parameters, network.flat_gradients, weight_count, self.l2, self.clip_norm, self._clip
            )
        self.optimizer.update(
            network.flat_parameters,
            network.flat_gradients,
            weight_count,
            self.l2,
            self._clip,
            network.loss_layer.value,
        )
