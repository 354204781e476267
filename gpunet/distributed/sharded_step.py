"""The gradient of a batch whose rows are on several ranks, or in several shards on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gpunet.backends.arrays import Array
from gpunet.backends.reference.training import Tally
from gpunet.distributed.communicator import Communicator, OneRank, RecordedExchange
from gpunet.distributed.sharded_backend import ShardedBackend
from gpunet.distributed.shards import Partition
from gpunet.layer_stack import LayerStack
from gpunet.layers import BatchNorm, Loss


class ShardedStep:
    """Lets the layers of a network compute on this rank's rows of each batch, and their gradient be that of the batch.

    Parameters
    ----------
    network : LayerStack
        Allocated, of the same weights on every rank.
    communicator : Communicator
    partition : Partition
    is_ordered : bool
        See :class:`ShardedBackend`.
    """

    def __init__(
        self, network: LayerStack, communicator: Communicator, partition: Partition, *, is_ordered: bool = True
    ) -> None:
        self.partition = partition
        self._network = network
        inner = network.backend
        self._sums = inner.zeros(2, network.dtype)
        # In the order in which the backward pass writes them; batch norm's are known to every rank as it goes on.
        gradients = [self._sums]
        for layer in reversed(network.layers):
            if not isinstance(layer, BatchNorm):
                gradients += [layer.gradients[spec.name] for spec in layer.parameter_specs()]
        # With one rank alone, copies on the device, which a step may be recorded with.
        exchange = OneRank().exchange(inner)
        if not self.is_alone:
            exchange = RecordedExchange(communicator.exchange(inner), inner)
        self._backend = ShardedBackend(inner, exchange, partition, gradients, is_ordered=is_ordered)
        self._loss = _ShardedLoss(network.loss_layer, self._backend, self._sums)

    @property
    def is_alone(self) -> bool:
        """Whether there is one rank: nothing is exchanged."""
        return self.partition.size == 1

    @property
    def may_be_recorded(self) -> bool:
        """Whether the backend can record all that a step does, exchanges included."""
        return self.is_alone or self._network.backend.records_calls

    def differentiate(
        self,
        x: Array,
        targets: Array,
        weights: Array | None,
        *,
        rows: int,
        tally: Tally | None = None,
        class_weights: Array | None = None,
    ) -> None:
        """Write J of a batch and its gradient, as :meth:`gpunet.layer_stack.LayerStack.differentiate` does.

        Parameters
        ----------
        x, targets, weights, class_weights : array
            This rank's rows, of which there may be none.
        rows : int
            Of the whole batch.
        tally : Tally or None
            Where a training step is counted.
        """
        network, backend = self._network, self._backend
        with self._in_place(rows):
            network.differentiate(x, targets, weights, class_weights=class_weights, loss=self._loss)
        backend.finish()
        loss, gradients = network.loss_layer.value, network.flat_gradients
        if weights is None and class_weights is None:  # they add up to the rows: all would be multiplied with 1
            gradients = gradients[:1]
        backend.inner.divide_sums(gradients, self._sums, loss, rows=rows)
        if tally is not None:
            backend.inner.count_step(loss, **tally._asdict(), rows=len(x))

    def forward(self, x: Array, targets: Array, weights: Array | None, *, rows: int) -> None:
        """Run a batch through the layers in training mode, and its rows here through the loss."""
        with self._in_place(rows):
            self._loss(self._network.forward(x, training=True), targets, weights)

    @contextmanager
    def _in_place(self, rows: int) -> Iterator[None]:
        """Let the layers be in shards for one batch."""
        self._backend.begin(rows)
        for layer in self._network.layers:
            layer.backend = self._backend
        try:
            yield
        finally:
            for layer in self._network.layers:
                layer.backend = self._backend.inner


class _ShardedLoss:
    """A loss, shard by shard: its gradient is that of (sum_i w_i l_i) / rows, which needs no other rank's weights."""

    def __init__(self, loss: Loss, backend: ShardedBackend, sums: Array) -> None:
        self._loss = loss
        self._backend = backend
        self._sums = sums

    def __call__(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        bias: Array | None = None,
        dbias: Array | None = None,
        tally: Tally | None = None,
        class_weights: Array | None = None,
    ) -> Array:
        loss, backend = self._loss, self._backend
        doutputs = loss.workspace.rows("loss.doutputs", outputs.shape[0], outputs.shape[1], loss.dtype)

        def compute(rows: slice, sums: Array, *own: Array) -> None:
            places = {"bias": bias, "dbias": own[0] if own else None, "tally": None}
            of_rows = None if weights is None else weights[rows]
            loss.evaluate(outputs[rows], targets[rows], of_rows, doutputs[rows], class_weights, places)
            backend.inner.weigh_shard(doutputs[rows], places["dbias"], loss.value, sums, rows=backend.rows)

        backend.add_up([self._sums] if dbias is None else [self._sums, dbias], compute)
        return doutputs
