"""The training steps of an epoch on fixed buffers: gather, forward, loss, backward, clip, update (lecture row L5).

Several batches may make one update, by the mean of their gradients.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpunet.backends.feed import Feed
from gpunet.backends.reference.training import PLACE, Tally
from gpunet.distributed.sharded_step import ShardedStep
from gpunet.errors import GpunetError
from gpunet.mixed_precision import GROWTH_INTERVAL
from gpunet.network import Network
from gpunet.optimizers import Optimizer
from gpunet.recorded_step import RecordedStep, with_activations
from gpunet.training.evaluation import DeviceData
from gpunet.training.snapshot import GOOD_WEIGHTS_EVERY, GoodWeights
from gpunet.training.stream import BatchStream
from gpunet.training.weight_average import AveragedWeights

Array = npt.NDArray[Any]

# Steps between two looks for denormal parameters and moments, where they cost time.
_FLUSH_EVERY = 16
# So often, windows of a kind are done by recordings of single steps: to record one takes as long as many of those.
_ALONE = 1


class Batch(NamedTuple):
    """A batch of an epoch: its rows here, and whether it is the first, and the last, of those that make an update.

    With several ranks each has some rows of the ``whole`` batch.
    """

    rows: int
    whole: int
    begins: bool
    ends: bool


class TrainingSteps:
    """The steps of an epoch: one for each batch.

    The first step of a size runs operation by operation; a device may record the next and repeat that as one launch
    (:class:`~gpunet.recorded_step.RecordedStep`). All that changes from step to step (rows, learning rate, step count,
    losses) is on the device for a whole epoch, and moves on there: so a whole window of steps is one launch too, where
    nobody looks on in between, once there have been more like it. What callbacks change in network and optimiser counts
    from the next step on. Where data stay on the host, the batch is brought before each step, which is a launch of its
    own then, and the next one is while the device works. A stream's batches are added one by one (:meth:`add`).

    Parameters
    ----------
    network : Network
    optimizer : Optimizer
        Attached to the network's parameters.
    data : DeviceData or BatchStream
    sizes : sequence of int
        The rows of each batch of an epoch; none yet for a stream.
    sharded : ShardedStep or None
        What differentiates batches in shards; this rank gets its own rows of each.
    l2 : float
    clip_norm : float or None
        The largest norm that the gradient of J may have.
    accumulate : int
        Batches that make an update; at the end of an epoch, those that are left.
    averages : AveragedWeights or None
        Gets the weights after each update.
    good : GoodWeights or None
        Gets the weights at the start of each window of steps.
    is_watched : bool
        Whether somebody may look, and change something, between any two steps.
    most : int or None
        For about so many steps, which are whole updates, there is room until :meth:`begin`; None for as many as
        ``sizes`` has.

    Attributes
    ----------
    losses : array of float64, (steps of an epoch, 2)
        On the device: loss and sum of the weights of each batch.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        data: DeviceData | BatchStream,
        sizes: Sequence[int],
        *,
        sharded: ShardedStep | None = None,
        l2: float,
        clip_norm: float | None,
        accumulate: int = 1,
        averages: AveragedWeights | None = None,
        good: GoodWeights | None = None,
        is_watched: bool = False,
        most: int | None = None,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.data = data
        self._sharded = sharded
        self.whole_sizes = tuple(sizes)
        self.sizes = sizes = tuple(map(self._own, sizes))
        self._accumulate = accumulate
        self._averages = averages
        self._l2 = l2
        self._clip_norm = clip_norm
        self._good = good
        self._is_watched = is_watched
        self._backend = backend = network.backend
        self._starts = list(itertools.accumulate(sizes, initial=0))
        self._host_order = np.zeros(0, np.int32)
        self._clip = None if clip_norm is None else backend.zeros(1, network.dtype)
        # Of the batches of an update so far: the mean of their gradients, and of their losses with the sum of weights.
        self._accumulated = backend.zeros(network.flat_gradients.shape if accumulate > 1 else 0, network.dtype)
        self._mean_loss = backend.zeros(2, network.dtype) if accumulate > 1 else None

        steps = len(sizes) if most is None else max(1, most // accumulate) * accumulate
        self._order = backend.zeros(max(1, sum(sizes)), np.int32)
        self._place = backend.zeros(PLACE, np.int64)
        self.losses = backend.zeros((steps, 2), np.float64)
        self._planned: list[tuple[float, ...]] = []  # what the updates of this epoch read, as far as that is known
        self._host_table = np.zeros((steps, optimizer.scalar_count), network.dtype)
        self._table = backend.zeros(self._host_table.shape, network.dtype)
        self._recorded: dict[tuple[Batch, ...], RecordedStep] = {}
        self._windows: Counter[tuple[Batch, ...]] = Counter()
        self._made = 0  # of the steps that are being done, the complete ones
        self._rows = -1  # none have been made: a rank may have no rows of the first batch
        self._feed: Feed | None = None
        if sizes:
            self._allocate(max(sizes))
        if network.loss_scale is not None:
            network.loss_scale.count_skipped()  # those of a run that did not come to its end

    def _own(self, rows: int) -> int:
        """Return how many rows of a batch are here."""
        return rows if self._sharded is None else len(range(rows)[self._sharded.partition.rows(rows)])

    def _order_here(self, order: Array) -> Array:
        """Return the rows of each batch that are here, batch after batch."""
        if self._sharded is None:
            return order
        starts = itertools.accumulate(self.whole_sizes, initial=0)
        rows = self._sharded.partition.rows
        parts = [order[start:][rows(size)] for start, size in zip(starts, self.whole_sizes, strict=False)]
        return np.concatenate(parts)

    def _allocate(self, rows: int) -> None:
        """Make buffers for batches of at most so many rows; recorded steps have those before."""
        data = self.data
        self._rows = rows
        self._recorded.clear()
        self._features = data.buffer("features", rows)
        self._targets = data.buffer("targets", rows)
        self._weights = None if data.weights is None else data.buffer("weights", rows)
        self._feed = data.feed(rows)
        buffers = {"features": self._features, "targets": self._targets, "weights": self._weights}
        self._fed = [buffer for name in data.fed if (buffer := buffers[name]) is not None]

    def begin(self, order: Array | None) -> None:
        """Begin an epoch; or with a stream, go on in it when there is no room for more steps.

        Parameters
        ----------
        order : ndarray of int32, (n,), or None
            The rows of the data in the order in which batches take them, on the host; None stands for the last one.
        """
        if order is not None:
            self._host_order = self._order_here(order)
            self._backend.copy(self._host_order, self._order[: len(self._host_order)])
        windows = 0 if self._good is None else self._good.begin_epoch()
        self._backend.copy(np.array([0, 0, windows], np.int64), self._place)
        self._planned = []
        if isinstance(self.data, BatchStream):
            self.sizes = self.whole_sizes = ()
        self._prepare(0)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another step before the next :meth:`begin`."""
        return len(self.sizes) == len(self.losses)

    def add(self) -> None:
        """Add a step for the batch that the stream has ready, and begin to bring it."""
        assert isinstance(self.data, BatchStream)
        assert self.data.ready is not None
        arrays, whole = self.data.arrays(), self.data.ready.whole
        rows = len(arrays[0])
        if rows > self._rows:
            self._allocate(rows)
        assert self._feed is not None
        self.sizes += (rows,)
        self.whole_sizes += (whole,)
        self._feed.sources = tuple(arrays)
        self._feed.prepare(slice(0, rows))

    def __call__(self, first: int, stop: int) -> float:
        """Do the steps ``first`` to ``stop - 1`` of the epoch, in one window, and return the last learning rate.

        The last loss is in ``network.loss_layer.value`` too. After an error as many steps count as have been done.
        """
        if self._good is not None and first % GOOD_WEIGHTS_EVERY == 0:
            self._good.begin_window(self.network.steps)
        while first < stop:
            if self._is_watched or first == len(self._planned):
                self._plan(first)
            done = min(stop, len(self._planned))
            is_window = self._feed is None and first % GOOD_WEIGHTS_EVERY == 0
            if not (is_window and self._is_one_launch(self._batches(first, done))):
                done = first + 1
            self._go(first, done)
            if self._is_watched:
                self.take_back_skipped()
            first = done
        return self._planned[stop - 1][0]

    def finish(self) -> None:
        """Make the update of the batches that are left at the end of a stream, which is known no sooner."""
        if isinstance(self.data, BatchStream) and len(self.sizes) % self._accumulate:
            self._backend.copy(self._accumulated, self.network.flat_gradients)
            self.optimizer.step += 1
            self._update()

    def _batches(self, first: int, stop: int) -> tuple[Batch, ...]:
        return tuple(
            Batch(self.sizes[number], self.whole_sizes[number], number % self._accumulate == 0, self._completes(number))
            for number in range(first, stop)
        )

    def _completes(self, number: int) -> bool:
        """Say whether an update follows the batch; of a stream, nobody knows which one is the last."""
        is_last = isinstance(self.data, DeviceData) and number + 1 == len(self.sizes)
        return is_last or (number + 1) % self._accumulate == 0

    def _is_one_launch(self, batches: tuple[Batch, ...]) -> bool:
        """Say whether a recording of these steps is worth making, and can be: each of them has one that holds."""
        if len(batches) == 1 or not all(
            (one,) in self._recorded and self._recorded[one,].holds for one in set(batches)
        ):
            return False
        self._windows[batches] += 1
        return self._windows[batches] > _ALONE

    def take_back_skipped(self) -> None:
        """Let the optimiser count no step that the loss scale has skipped; the device has not since it skipped them."""
        if self.network.loss_scale is not None:
            self.optimizer.step -= self.network.loss_scale.count_skipped() // self._accumulate

    def _plan(self, number: int) -> None:
        """Put what the updates from ``number`` on read where the device finds it, unless it is there already."""
        step = self.optimizer.step
        scalars = self.optimizer.scalars_after(step)
        if self._planned[number : number + 1] == [scalars]:
            return
        self._planned[number:] = [scalars]
        for before in range(number, len(self.losses) - 1):
            has_update = self._completes(before)
            step += has_update
            try:
                self._planned.append(self.optimizer.scalars_after(step) if has_update else self._planned[-1])
            except Exception:  # told when it is the turn of that step
                break
        planned = np.array(self._planned[number:], self._host_table.dtype)
        there = self._host_table[number : len(self._planned)]
        if not np.array_equal(planned, there):
            there[...] = planned
            self._backend.copy(self._host_table, self._table)

    def _go(self, first: int, stop: int) -> None:
        network, optimizer, batches = self.network, self.optimizer, self._batches(first, stop)
        steps, self._updates = network.steps, optimizer.step
        self._made = len(batches)
        try:
            if len(batches) == 1:
                self._keep(first)
            self._deliver(batches[0].rows)
            if batches not in self._recorded:
                may_record = self._sharded is None or self._sharded.may_be_recorded
                self._recorded[batches] = RecordedStep(self._backend, is_warm=len(batches) > 1, may_record=may_record)
            averages = () if self._averages is None else (self._averages,)
            read = partial(read_by_steps, network, self.data, optimizer, *averages)
            self._recorded[batches](partial(self._run, first, batches), read)
            network.step_count.value = steps + len(batches)
            optimizer.step = self._updates + _updates(batches)
            if optimizer.step // _FLUSH_EVERY != self._updates // _FLUSH_EVERY:
                self._backend.flush_denormals([network.flat_parameters, *optimizer.moments.values()])
            self._prepare(stop)
        except BaseException:
            with contextlib.suppress(GpunetError):  # of a device that does not work any more
                counted = int(self._backend.to_numpy(self._place)[0]) - first
                made = min(self._made, counted)  # of an incomplete step, the update was not made: it comes last
                optimizer.step = self._updates + _updates(batches[:made])
                network.set_step(steps + made)
                self.take_back_skipped()
            raise

    def _keep(self, first: int) -> None:
        if self._good is not None and first % GOOD_WEIGHTS_EVERY == 0:
            self._good.keep(self.losses, self._place)

    def _run(self, first: int, batches: tuple[Batch, ...]) -> None:
        self._made = 0
        if len(batches) > 1:
            self._keep(first)
        for batch in batches:
            self.optimizer.step = self._updates + _updates(batches[: self._made]) + 1
            self._differentiate(batch)
            if batch.ends:
                self._update()
            self._made += 1

    def _differentiate(self, batch: Batch) -> None:
        """Have the gradient of a batch, or of all of an update, where the optimiser reads it."""
        network, backend = self.network, self._backend
        features, targets, weights = self._gather(batch.rows)
        tally = Tally(
            self.losses,
            self._table,
            self.optimizer.scalars,
            self._place,
            network.step_count.on_device,
            None if network.loss_scale is None else network.loss_scale.newly_skipped,
        )
        class_weights = self.data.class_weights
        if self._sharded is not None:
            self._sharded.differentiate(
                features, targets, weights, rows=batch.whole, tally=tally, class_weights=class_weights
            )
        elif network.narrow_pass(features, targets, weights):
            backend.count_step(network.loss_layer.value, **tally._asdict(), rows=batch.rows)
        else:
            network.differentiate(features, targets, weights, tally=tally, class_weights=class_weights)
        backend.join()
        if self._mean_loss is not None:
            backend.accumulate_gradients(
                network.flat_gradients,
                self._accumulated,
                network.loss_layer.value,
                self._mean_loss,
                is_first=batch.begins,
                is_last=batch.ends,
            )

    def _update(self) -> None:
        network, backend = self.network, self._backend
        network.unscale_gradients(GROWTH_INTERVAL, self._accumulate, self._mean_loss)
        guard = network.guard if self._mean_loss is None or network.loss_scale is not None else self._mean_loss
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
            guard,
        )
        if self._averages is not None:
            self._averages.add(guard)

    def _gather(self, rows: int) -> tuple[Array, Array, Array | None]:
        """Return the batch whose turn it is: features, targets and weights."""
        data, (features, targets, weights) = self.data, self._batch(rows)
        if isinstance(data, DeviceData) and rows:
            self._backend.gather_batch(
                self._order,
                None if "features" in data.fed else data.features,
                features,
                None if "targets" in data.fed else data.targets,
                targets,
                data.weights,
                weights,
                first=self._place[1:2],
            )
        return features, targets, weights

    def _prepare(self, number: int) -> None:
        """Begin to copy what stays on the host of the batch of step ``number``, if there is such a step."""
        if self._feed is not None and number < len(self.sizes) and self.sizes[number]:
            self._feed.prepare(self._host_order[self._starts[number] : self._starts[number + 1]])

    def _deliver(self, rows: int) -> None:
        """Have the next step find what was prepared."""
        if self._feed is not None and rows:
            self._feed.deliver([buffer[:rows] for buffer in self._fed])

    def _batch(self, rows: int) -> tuple[Array, Array, Array | None]:
        weights = None if self._weights is None else self._weights[:rows]
        return self._features[:rows], self._targets[:rows], weights

    def infer_last(self) -> None:
        """Run the epoch's last batch through network and loss once more, in inference mode."""
        features, targets, weights = self._batch(self.sizes[-1])
        if not len(features):
            return
        self.network.loss_layer(self.network.forward(features), targets, weights)

    def repeat(self, number: int, steps: int) -> None:
        """Run the batch of step ``number``, ``steps`` having been done before, through the network once more.

        A stream has gone on since then: of that, it is the last batch.
        """
        self.network.set_step(steps)
        if isinstance(self.data, BatchStream):
            number = -1
        else:
            place = [number, self._starts[number], 0]
            self._backend.copy(np.array(place, np.int64), self._place)
            self._prepare(number)
            self._deliver(self.sizes[number])
        batch = self._gather(self.sizes[number])
        if self._sharded is not None:
            self._sharded.forward(*batch, rows=self.whole_sizes[number])
        else:
            features, targets, weights = batch
            self.network.loss_layer(self.network.forward(features, training=True), targets, weights)


def _updates(batches: Sequence[Batch]) -> int:
    """Return how many updates these batches complete."""
    return sum(batch.ends for batch in batches)


def read_by_steps(network: Network, *others: object) -> Iterator[object]:
    """Yield the objects whose attributes steps of a network read, but for the network, whose own stay."""
    yield from (*others, network.backend, network.workspace, network.layout)
    yield from with_activations((*network.layers, network.loss_layer))
