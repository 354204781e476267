"""A backend whose batches are in shards, of which this rank has some: what is a sum over rows is one over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation
from gpunet.backends import Backend
from gpunet.backends.arrays import Array, Scratch
from gpunet.distributed.communicator import Exchange
from gpunet.distributed.ordered_sum import OrderedSum
from gpunet.distributed.shards import Node, Partition

# Vectors are exchanged as soon as they have so many bytes, while the backward pass goes on.
BUCKET_BYTES = 1 << 22
_MOST_COUNTS = 64


class ShardedBackend(Backend):
    """Does the operations of a training step on the rows that this rank has of a batch, by those of another backend.

    Each operation is done shard by shard: its bits depend on the shard alone. Sums over rows go through the tree of
    shards (:mod:`gpunet.backends.reference.shards`): those of batch norm are exchanged at once, which is two small
    exchanges for each; those of weights and biases with the loss, in few larger ones, which :meth:`sums` waits for.

    Parameters
    ----------
    inner : Backend
    exchange : Exchange
    partition : Partition
    gradients : sequence of array
        The vectors and matrices that the backward pass writes and that are sums over rows, but for those of batch norm,
        in the order in which it writes them. The first is (2,): the sums of :meth:`Backend.weigh_shard`.
    is_ordered : bool
        Whether the order of sums is that of the tree; otherwise the fastest, with one shard for each rank.
    """

    def __init__(
        self,
        inner: Backend,
        exchange: Exchange,
        partition: Partition,
        gradients: Sequence[Array],
        *,
        is_ordered: bool = True,
    ) -> None:
        super().__init__()
        self.inner = inner
        self.lock = inner.lock
        self.name = inner.name
        self.partition = partition
        self._exchange = exchange
        self._scratch, self._nothing = Scratch(inner.empty), Scratch(inner.zeros)
        self._gradients = list(gradients)
        self._nodes = partition.nodes()
        self._levels: dict[int, Array] = {}
        self._counts: dict[int, Array] = {}
        self._buckets: list[_Bucket] = []
        self._begun: _Bucket | None = None  # the last one that has been
        self._places: dict[int, _Place] = {}
        self._is_whole = partition.size == 1 and len(self._nodes) == 1
        if not self._is_whole:
            self._plan(is_ordered)
        self.rows = 0

    def _plan(self, is_ordered: bool) -> None:
        waiting: list[Array] = []
        for number, gradient in enumerate(self._gradients):
            waiting.append(gradient)
            is_last = number + 1 == len(self._gradients)
            if is_last or sum(int(one.nbytes) for one in waiting) >= BUCKET_BYTES:
                length = sum(int(one.size) for one in waiting)
                total = OrderedSum(
                    self.inner, self._exchange, self.partition, length, gradient.dtype, is_ordered=is_ordered
                )
                bucket = _Bucket(total, waiting)
                start = 0
                for one in waiting:
                    views = [part[start : start + one.size].reshape(one.shape) for part in total.parts]
                    self._places[id(one)] = _Place(bucket, views)
                    start += one.size
                self._buckets.append(bucket)
                waiting = []

    def begin(self, rows: int) -> None:
        """Begin a step on a batch of so many rows, of which this rank has its own."""
        self.rows = rows
        self._slices = self.partition.slices(rows)
        self._filled = [part for part in self._slices if part.stop > part.start]
        starts = self.partition.starts(rows)
        self._first = starts[self.partition.own.start]
        if rows not in self._counts:
            if len(self._counts) >= _MOST_COUNTS:  # of batches of ever other lengths
                self._counts.clear()
            self._counts[rows] = self.inner.asarray(np.diff(starts).astype(np.int32))
        self._begun = None
        for bucket in self._buckets:
            bucket.missing = len(bucket.gradients)

    def finish(self) -> None:
        """Wait until the gradients are the sums over all shards, and write them to where they belong."""
        for bucket in self._buckets:
            bucket.total.go_on()
        for bucket in self._buckets:
            total, start = bucket.total.finish(), 0
            for gradient in bucket.gradients:
                self.inner.copy(total[start : start + gradient.size].reshape(gradient.shape), gradient)
                start += gradient.size

    # --- sums over rows ---------------------------------------------------------------------------------------------

    def add_up(self, outs: Sequence[Array], compute: Callable[..., None]) -> None:
        """Write sums over the rows of all shards.

        Parameters
        ----------
        outs : sequence of array
            Of ``gradients``: what :meth:`finish` writes the sums to.
        compute : callable
            Gets the rows of a shard and, for each of ``outs``, an array of its shape for the sum over these.
        """
        places = [self._places.get(id(out)) for out in outs]
        for number, node in enumerate(self._nodes):
            targets = [out if place is None else place.views[number] for out, place in zip(outs, places, strict=True)]
            self._add_up_node(node, targets, compute)
        for place in places:
            if place is not None:
                place.bucket.missing -= 1
                if place.bucket.missing == 0:
                    self._begin_bucket(place.bucket)

    def _begin_bucket(self, bucket: _Bucket) -> None:
        """Send sums over nodes on their way, and the total of those before, which have had the time of a product."""
        bucket.total.start()
        if self._begun is not None:
            self._begun.total.go_on()
        self._begun = bucket

    def _add_up_node(self, node: Node, targets: Sequence[Array], compute: Callable[..., None]) -> None:
        first = self.partition.own.start
        if node.level == 0:
            self._compute(self._slices[node.first - first], targets, compute)
            return
        count = len(node.shards)
        leaves = [
            self._scratch(f"leaves{number}", (count, target.size), target.dtype)
            for number, target in enumerate(targets)
        ]
        for place, shard in enumerate(node.shards):
            views = [leaf[place].reshape(target.shape) for leaf, target in zip(leaves, targets, strict=True)]
            self._compute(self._slices[shard - first], views, compute)
        for leaf, target in zip(leaves, targets, strict=True):
            self.inner.sum_shards(leaf, self._zeros(count), target.reshape(-1))

    def _compute(self, rows: slice, targets: Sequence[Array], compute: Callable[..., None]) -> None:
        if rows.stop > rows.start:
            compute(rows, *targets)
            return
        for target in targets:
            self._clear(target)

    def _clear(self, target: Array) -> None:
        self.inner.copy(self._nothing("zeros", target.shape, target.dtype), target)

    def _zeros(self, count: int) -> Array:
        """Return the levels of so many shards."""
        if count not in self._levels:
            self._levels[count] = self.inner.asarray(np.zeros(count, np.int32))
        return self._levels[count]

    def _gather(self, role: str, columns: int, dtype: npt.DTypeLike) -> tuple[Array, Array]:
        """Return buffers for two vectors of each own shard, and for those of all shards."""
        own, size = self.partition.own, self.partition.size
        gathered = self._scratch(f"gathered_{role}", (self.partition.shards, 2, columns), dtype)
        return (gathered, gathered) if size == 1 else (self._scratch(role, (len(own), 2, columns), dtype), gathered)

    def _share(self, part: Array, gathered: Array) -> None:
        if self.partition.size > 1:
            self._exchange.all_gather(part, gathered.reshape(self.partition.size, *part.shape))()

    # --- operations -------------------------------------------------------------------------------------------------

    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
    ) -> None:
        if transpose_a:  # a sum over rows: dW = dS^T X
            self.add_up([out], lambda rows, target: self.inner.gemm(a[rows], b[rows], target, True, transpose_b))
            return
        for rows in self._filled:
            self.inner.gemm(a[rows], b, out[rows], False, transpose_b, accumulate)

    def linear_activation_forward(
        self, x: Array, weight: Array, bias: Array, activation: Activation, out: Array
    ) -> None:
        for rows in self._filled:
            self.inner.linear_activation_forward(x[rows], weight, bias, activation, out[rows])

    def bias_activation_forward(self, s: Array, bias: Array | None, activation: Activation, out: Array) -> None:
        for rows in self._filled:
            self.inner.bias_activation_forward(s[rows], bias, activation, out[rows])

    def bias_activation_backward(
        self,
        dy: Array,
        kept: Array,
        activation: Activation,
        ds: Array,
        dbias: Array | None,
        bias: Array | None = None,
    ) -> None:
        def compute(rows: slice, *sums: Array) -> None:
            own = sums[0] if sums else None
            self.inner.bias_activation_backward(dy[rows], kept[rows], activation, ds[rows], own, bias)

        self.add_up([] if dbias is None else [dbias], compute)

    def batch_norm_activation_forward(
        self,
        s: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        out: Array,
        mean: Array,
        inverse_std: Array,
        running_mean: Array,
        running_variance: Array,
        momentum: float,
        epsilon: float,
    ) -> None:
        part, gathered = self._gather("statistics", s.shape[1], mean.dtype)
        for rows, statistics in self._with(part):
            self.inner.batch_norm_statistics(s[rows], statistics)
        self._share(part, gathered)
        averages = running_mean, running_variance, momentum, epsilon
        self.inner.batch_norm_merge(gathered, self._counts[self.rows], mean, inverse_std, *averages)
        for rows in self._filled:
            self.inner.batch_norm_activation_apply(s[rows], gamma, beta, activation, out[rows], mean, inverse_std)

    def batch_norm_activation_backward(
        self,
        dy: Array,
        s: Array,
        y: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        mean: Array,
        inverse_std: Array,
        ds: Array,
        dgamma: Array | None,
        dbeta: Array | None,
    ) -> None:
        columns = s.shape[1]
        part, gathered = self._gather("batch_norm_sums", columns, mean.dtype)
        for shard, rows in zip(part, self._slices, strict=True):
            if rows.stop == rows.start:
                self._clear(shard)
                continue
            given = dy[rows], s[rows], y[rows], gamma, beta, activation, mean, inverse_std
            self.inner.batch_norm_activation_sums(*given, shard[0], shard[1])
        self._share(part, gathered)
        total = self._scratch("batch_norm_total", (2, columns), mean.dtype)
        shards = self.partition.shards
        self.inner.sum_shards(gathered.reshape(shards, -1), self._zeros(shards), total.reshape(-1))
        for rows in self._filled:
            given = dy[rows], s[rows], y[rows], gamma, beta, activation, mean, inverse_std
            self.inner.batch_norm_activation_input_gradient(*given, total[0], total[1], ds[rows], rows=self.rows)
        if dgamma is not None and dbeta is not None:
            self.inner.copy(total[0], dgamma)
            self.inner.copy(total[1], dbeta)

    def _with(self, part: Array) -> Iterator[tuple[slice, Array]]:
        """Yield the rows of each shard that has some, with what is the shard's of an array."""
        return ((rows, shard) for rows, shard in zip(self._slices, part, strict=True) if rows.stop > rows.start)

    def dropout_forward(
        self, x: Array, out: Array, mask: Array, rate: float, seed: int, layer: int, step: Array, *, first: int = 0
    ) -> None:
        for rows in self._filled:
            begin = first + (self._first + rows.start) * mask.shape[1]
            self.inner.dropout_forward(x[rows], out[rows], mask[rows], rate, seed, layer, step, first=begin)

    def dropout_backward(self, dy: Array, mask: Array, rate: float, dx: Array) -> None:
        for rows in self._filled:
            self.inner.dropout_backward(dy[rows], mask[rows], rate, dx[rows])

    def round_rows(self, source: Array, out: Array, factor: Array | None = None) -> None:
        for rows in self._filled:
            self.inner.round_rows(source[rows], out[rows], factor)

    # --- everything else is the other backend's ---------------------------------------------------------------------

    def copy(self, source: Array, destination: Array) -> None:
        self.inner.copy(source, destination)

    def array_module(self) -> Any:
        return self.inner.array_module()

    def to_numpy(self, array: Array) -> Array:
        return self.inner.to_numpy(array)


class _Bucket:
    """Gradients that are exchanged together."""

    def __init__(self, total: OrderedSum, gradients: Sequence[Array]) -> None:
        self.total = total
        self.gradients = list(gradients)
        self.missing = 0


class _Place:
    """Where the sums of a gradient over each node of a rank go."""

    def __init__(self, bucket: _Bucket, views: Sequence[Array]) -> None:
        self.bucket = bucket
        self.views = list(views)
